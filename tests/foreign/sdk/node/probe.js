// Asks @azure/identity and google-auth-library for tokens. One case a line on stdin, one JSON object a line on stdout; see ../README.md.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { DefaultAzureCredential, ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";
import { Compute, GoogleAuth } from "google-auth-library";

const OPTIONS = { client_id: "clientId", object_id: "objectId", resource_id: "resourceId" };
const DEFAULT_OPTIONS = { client_id: "managedIdentityClientId", resource_id: "managedIdentityResourceId" };

function managed(selector, value) {
  return selector ? new ManagedIdentityCredential({ [OPTIONS[selector]]: value }) : new ManagedIdentityCredential();
}

function byDefault(selector, value) {
  return new DefaultAzureCredential(selector ? { [DEFAULT_OPTIONS[selector]]: value } : {});
}

async function shown(credential, scope) {
  const token = await credential.getToken(scope);
  return { sha256: sha256(token.token), expires: Math.floor(token.expiresOnTimestamp / 1000) };
}

function sha256(token) {
  return createHash("sha256").update(token).digest("hex");
}

const CASES = {
  managed: (scope, ...identity) => shown(managed(...identity), scope),
  default: (scope, ...identity) => shown(byDefault(...identity), scope),
  secret: async (url, ...identity) => ({ secret: (await new SecretClient(url, managed(...identity)).getSecret("greeting")).value }),
  google: async (scope, _, account) => {
    const client = account
      ? new Compute({ serviceAccountEmail: account, scopes: [scope] })
      : await new GoogleAuth({ scopes: [scope] }).getClient();
    const { token } = await client.getAccessToken();
    return { sha256: sha256(token), expires: Math.floor(client.credentials.expiry_date / 1000) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = line.split(" ");
  const start = performance.now();
  let answer;
  try {
    answer = await CASES[name](...rest);
  } catch (error) {
    answer = { error: error.name, message: error.message };
  }
  answer.seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify(answer));
}
// What is left are timers of the libraries.
process.exit(0);
