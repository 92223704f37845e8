// WatchTokens over whatever interrupts it: the broker's restarts, its upgrades, a network that goes away.
import { setTimeout as sleep } from "node:timers/promises";
import { refusalOf, seconds } from "./refusal.js";

/** Yields the token at once, and each that replaces it. `interrupted` is told why a stream ended before another is opened. */
export async function* watch(tokens, request, interrupted) {
  for (let attempt = 0; ; attempt++) {
    let why = "the stream ended";
    let wait = 0;
    // No deadline: a watch has no end of its own, and keepalive finds a dead connection.
    const stream = tokens.watchTokens();
    // The iteration below throws what goes wrong; what comes after its end, such as the cancellation, concerns nobody.
    stream.on("error", () => {});
    stream.write({ add: { id: "token", request } });
    try {
      for await (const answer of stream) {
        if (answer.event === "token") {
          attempt = 0;
          yield answer.token.token;
        } else if (answer.event === "moving") {
          why = "the broker is about to stop";
          break;
        } else if (!answer.failure.reason.startsWith("AUTHORITY_")) {
          [why, wait] = ended(answer.failure);
          break;
        }
        // Otherwise a refresh failed: the token at hand stays good, and the broker itself tries again.
      }
    } catch (error) {
      if (error.code === undefined) throw error;
      const refusal = refusalOf(error);
      if (refusal.retryAfter === null && refusal.code !== "UNAVAILABLE") throw error;
      [why, wait] = [refusal.reason ?? refusal.code, refusal.retryAfter ?? 0];
    } finally {
      stream.cancel();
    }
    interrupted(why);
    // Longer from time to time, and not in step with the other callers of the same broker.
    const pause = Math.min(5, 0.1 * 2 ** attempt) * (0.5 + Math.random() / 2);
    await sleep(1000 * Math.max(wait, pause));
  }
}

/** Why this token is not watched any longer and how long to wait before watching it again, if that can help. */
function ended({ reason, message, retryDelay }) {
  if (!retryDelay) throw new Error(`${reason}: ${message}`);
  return [reason, seconds(retryDelay)];
}
