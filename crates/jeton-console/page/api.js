// What the page asks its server, and whether that answers.

const PATIENCE_MS = 15_000;

/** An answer that is no success, in words for whoever reads the page. */
export class Failure extends Error {
  constructor({ message, remedy = null, reason = null, status = 0 }) {
    super(message);
    Object.assign(this, { remedy, reason, status });
  }
}

/** `change` whenever the state of the connection does: null, or the failure that stands between the page and its server. */
export const connection = Object.assign(new EventTarget(), { failure: null });

function connected(failure) {
  if (connection.failure?.message === failure?.message) return;
  connection.failure = failure;
  connection.dispatchEvent(new Event("change"));
}

const LOST = new Failure({
  message: "No connection to the console. What you see is from before.",
  remedy: "See whether jeton console still runs where you started it, and run it again if not. This page tries again by itself.",
});
const ENDED = new Failure({
  status: 401,
  message: "This session has ended.",
  remedy: "jeton console",
});

export function get(path, { query = {}, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  return ask(search ? `${path}?${search}` : path, { signal });
}

export function post(path, body = {}) {
  const headers = { "content-type": "application/json", "x-jeton-console": "1" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** The path of an identity's resource. */
export const identityPath = (name, verb = "") => `/api/identities/${encodeURIComponent(idOf(name))}${verb && `/${verb}`}`;

/** "identities/billing" to "billing". */
export const idOf = (name) => name.slice(name.indexOf("/") + 1);

async function ask(path, { signal, ...rest }) {
  let response, body;
  const late = AbortSignal.timeout(PATIENCE_MS);
  try {
    response = await fetch(path, { ...rest, signal: signal ? AbortSignal.any([signal, late]) : late });
    body = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (!response || !response.ok) connected(LOST);
    throw response ? new Failure({ message: "The answer cannot be read.", status: response.status }) : LOST;
  }
  if (response.ok) {
    connected(null);
    return body;
  }
  const failure = new Failure({ message: "It failed.", ...body.error, status: response.status });
  if (response.status === 401) connected(ENDED);
  else if ([502, 503, 504].includes(response.status)) connected(failure);
  else connected(null);
  throw failure;
}

/** Says that the server cannot be reached, or that the session is over: for whoever notices it elsewhere. */
export async function check() {
  await get("/api/me").catch(() => {});
}
