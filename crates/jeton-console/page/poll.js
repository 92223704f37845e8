// Asking again and again, as long as somebody looks.

import { Failure, connection } from "./api.js";

/**
 * Runs `ask` now and every `seconds()` until the signal says stop: never twice at once, and not while the page is hidden. What fails goes
 * to `failed`. The answer runs it at once.
 */
export function poll(seconds, signal, ask, failed = () => {}) {
  let timer = 0;
  let running = false;
  let again = false;

  async function run() {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    again = false;
    try {
      await ask();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Failure)) throw error;
      // The banner says what stands between the page and its server, and what was there before stays.
      if (!connection.failure) failed(error);
    } finally {
      running = false;
      next();
    }
  }

  function next() {
    if (signal.aborted || document.hidden) return;
    if (again) run();
    else timer = setTimeout(run, seconds() * 1000);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : run()), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return run;
}
