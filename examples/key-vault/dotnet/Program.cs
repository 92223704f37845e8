// Reads a secret from a key vault: dotnet run -- VAULT_URL

using Azure.Identity;
using Azure.Security.KeyVault.Secrets;

var options = new SecretClientOptions
{
    // For a vault at https://localhost:PORT. One that has a name below its resource, as all of Azure's have, does without this line.
    DisableChallengeResourceVerification = true,
};
var client = new SecretClient(new Uri(args[0]), new DefaultAzureCredential(), options);
KeyVaultSecret secret = await client.GetSecretAsync("greeting");
Console.WriteLine(secret.Value);
