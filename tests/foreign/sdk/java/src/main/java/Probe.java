import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.azure.json.JsonProviders;
import com.azure.security.keyvault.secrets.SecretClientBuilder;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Asks azure-identity for tokens. One case a line on stdin, one JSON object a line on stdout; see ../README.md. */
public class Probe {
    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            long start = System.nanoTime();
            var answer = new LinkedHashMap<String, Object>();
            try {
                ask(line.split(" "), answer);
            } catch (Exception error) {
                answer.put("error", error.getClass().getSimpleName());
                answer.put("message", Stream.iterate((Throwable) error, Objects::nonNull, Throwable::getCause)
                    .map(Throwable::toString).collect(Collectors.joining(": ")));
            }
            answer.put("seconds", (System.nanoTime() - start) / 1e9);
            System.out.println(json(answer));
        }
        // What is left are threads of the libraries.
        System.exit(0);
    }

    private static void ask(String[] words, Map<String, Object> answer) throws Exception {
        if (words[0].equals("secret")) {
            var client = new SecretClientBuilder().vaultUrl(words[1]).credential(managed(words)).buildClient();
            answer.put("secret", client.getSecret("greeting").getValue());
            return;
        }
        var credential = words[0].equals("default") ? byDefault(words) : managed(words);
        var token = credential.getTokenSync(new TokenRequestContext().addScopes(words[1]));
        var digest = MessageDigest.getInstance("SHA-256").digest(token.getToken().getBytes(StandardCharsets.UTF_8));
        answer.put("sha256", HexFormat.of().formatHex(digest));
        answer.put("expires", token.getExpiresAt().toEpochSecond());
    }

    private static TokenCredential managed(String[] words) {
        var builder = new ManagedIdentityCredentialBuilder();
        switch (words.length > 2 ? words[2] : "") {
            case "client_id" -> builder.clientId(words[3]);
            case "object_id" -> builder.objectId(words[3]);
            case "resource_id" -> builder.resourceId(words[3]);
            default -> { }
        }
        return builder.build();
    }

    private static TokenCredential byDefault(String[] words) {
        var builder = new DefaultAzureCredentialBuilder();
        switch (words.length > 2 ? words[2] : "") {
            case "client_id" -> builder.managedIdentityClientId(words[3]);
            case "resource_id" -> builder.managedIdentityResourceId(words[3]);
            default -> { }
        }
        return builder.build();
    }

    private static String json(Map<String, Object> answer) throws Exception {
        var text = new StringWriter();
        try (var writer = JsonProviders.createWriter(text)) {
            writer.writeMap(answer, (w, value) -> w.writeUntyped(value));
        }
        return text.toString();
    }
}
