// Reads a secret from a key vault: node main.js VAULT_URL

import { DefaultAzureCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const client = new SecretClient(process.argv[2], new DefaultAzureCredential(), {
  // For a vault at https://localhost:PORT. One that has a name below its resource, as all of Azure's have, does without this line.
  disableChallengeResourceVerification: true,
});

const { value } = await client.getSecret("greeting");
console.log(value);
