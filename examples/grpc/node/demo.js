// Everything that a program does with TokenService. The arguments are below; the last line of the output is for tests.
import { createHash } from "node:crypto";
import { parseArgs } from "node:util";
import { connect, localAddress } from "./connect.js";
import { refusalOf } from "./refusal.js";
import { watch } from "./watch.js";

const DEADLINE_MS = 5_000;

const { values: given } = parseArgs({
  options: {
    // Of a broker on this machine.
    "data-dir": { type: "string", default: process.env.JETON_DATA_DIR ?? ".jeton" },
    // unix:PATH or HOST:PORT, in place of it.
    address: { type: "string" },
    // Connect with TLS: the authorities to trust, the client certificate and its key, as PEM.
    ca: { type: "string" },
    cert: { type: "string" },
    key: { type: "string" },
    // The file with the token that says who is calling.
    bearer: { type: "string" },
    identity: { type: "string", default: "identities/billing" },
    scope: { type: "string", default: "https://vault.example/.default" },
    // An identity that gets no token.
    refused: { type: "string", default: "identities/nobody" },
    // End after so many tokens of the watch.
    updates: { type: "string", default: "1" },
  },
});

async function main() {
  const address = given.address ?? localAddress(given["data-dir"]);
  const tokens = connect(address, given);
  const request = { identity: given.identity, scopes: [given.scope] };
  const refused = { identity: given.refused, scopes: [given.scope] };
  const result = { language: "node", address };
  result.token = await oneToken(tokens, request);
  result.batch = await severalTokens(tokens, [request, refused]);
  result.refusal = await aRefusal(tokens, refused);
  Object.assign(result, await watched(tokens, request, Number(given.updates)));
  tokens.close();
  console.log(JSON.stringify(result));
}

/** One call with a deadline, as a promise. */
function call(tokens, method, request) {
  return new Promise((resolve, reject) => {
    const done = (error, answer) => (error ? reject(error) : resolve(answer));
    tokens[method](request, { deadline: Date.now() + DEADLINE_MS }, done);
  });
}

async function oneToken(tokens, request) {
  const { token } = await call(tokens, "getToken", request);
  // The token itself goes into the header `authorization: Bearer ...` of a request, and nowhere else.
  const shown = {
    identity: token.identity,
    client_id: token.clientId,
    expires_at: new Date(Number(token.expiresAt.seconds) * 1000 + token.expiresAt.nanos / 1e6).toISOString(),
    sha256: shortHash(token),
  };
  console.log("token ", shown);
  return shown;
}

/** One call for several tokens. Each fails or succeeds by itself, and the answers have the order of the requests. */
async function severalTokens(tokens, requests) {
  const { results } = await call(tokens, "batchGetTokens", { requests });
  const batch = results.map((result, i) => {
    const { identity } = requests[i];
    return result.outcome === "response"
      ? { identity, sha256: shortHash(result.response.token) }
      : { identity, reason: result.failure.reason };
  });
  console.log("batch ", batch);
  return batch;
}

async function aRefusal(tokens, request) {
  const error = await call(tokens, "getToken", request).then(
    () => { throw new Error(`${request.identity} was not refused`); },
    (error) => error,
  );
  const { code, reason, correlationId, retryAfter, message } = refusalOf(error);
  const shown = { code, reason, correlation_id: correlationId, retry_after_seconds: retryAfter };
  console.log("refused", shown, message);
  return shown;
}

/** The first tokens of a watch. After the first one: what a program does when a resource refuses a token. */
async function watched(tokens, request, count) {
  const updates = [];
  let interruptions = 0;
  let outcome = null;
  const interrupted = (why) => {
    interruptions += 1;
    console.log("watch  interrupted:", why);
  };
  for await (const token of watch(tokens, request, interrupted)) {
    updates.push(shortHash(token));
    console.log(`watch  update ${updates.length}: ${shortHash(token)}, after ${interruptions} interruptions`);
    outcome ??= await report(tokens, request, token);
    if (updates.length === count) break;
  }
  return { report: outcome, updates, interruptions };
}

/** For a token that a resource answered with 401 although it has not expired. The broker asks for another, which the watch brings. */
async function report(tokens, request, token) {
  const tokenSha256 = createHash("sha256").update(token.accessToken).digest();
  const { outcome } = await call(tokens, "reportRejectedToken", { ...request, tokenSha256 });
  console.log("report", outcome);
  return outcome;
}

/** Tells tokens apart in logs, and gives nothing away. */
const shortHash = (token) => createHash("sha256").update(token.accessToken).digest("hex").slice(0, 8);

await main();
