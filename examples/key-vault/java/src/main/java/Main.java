import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.security.keyvault.secrets.SecretClientBuilder;

/** Reads a secret from a key vault: java -jar target/key-vault.jar VAULT_URL */
public class Main {
    public static void main(String[] arguments) {
        var client = new SecretClientBuilder()
            .vaultUrl(arguments[0])
            .credential(new DefaultAzureCredentialBuilder().build())
            // For a vault at https://localhost:PORT. One that has a name below its resource, as all of Azure's have, does without this line.
            .disableChallengeResourceVerification()
            .buildClient();
        System.out.println(client.getSecret("greeting").getValue());
    }
}
