package demo;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.protobuf.ByteString;
import com.google.protobuf.util.Timestamps;
import io.github.jeton.v1.BatchGetTokensRequest;
import io.github.jeton.v1.BatchGetTokensResult;
import io.github.jeton.v1.GetTokenRequest;
import io.github.jeton.v1.ReportRejectedTokenRequest;
import io.github.jeton.v1.Token;
import io.github.jeton.v1.TokenServiceGrpc;
import io.github.jeton.v1.TokenServiceGrpc.TokenServiceBlockingV2Stub;
import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Everything that a program does with TokenService. The arguments are below; the last line of the output is for tests. */
final class Demo {
  private static final int DEADLINE_S = 5;
  private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

  private final TokenServiceBlockingV2Stub tokens;

  private Demo(ManagedChannel channel) {
    tokens = TokenServiceGrpc.newBlockingV2Stub(channel);
  }

  /**
   * The arguments, each as {@code --name value}: data-dir of a broker on this machine, or address as {@code unix:PATH} or
   * {@code HOST:PORT}; ca, cert, key and bearer are files for TLS; identity and scope; refused is an identity that gets no token; updates
   * says after how many tokens of the watch to end.
   */
  public static void main(String[] arguments) throws Exception {
    var given = new HashMap<>(Map.of(
        "data-dir", System.getenv().getOrDefault("JETON_DATA_DIR", ".jeton"),
        "identity", "identities/billing",
        "scope", "https://vault.example/.default",
        "refused", "identities/nobody",
        "updates", "1"));
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      given.put(arguments[i].substring(2), arguments[i + 1]);
    }
    String address = given.containsKey("address") ? given.get("address") : Connect.localAddress(given.get("data-dir"));
    var files = new Connect.TlsFiles(given.get("ca"), given.get("cert"), given.get("key"), given.get("bearer"));
    ManagedChannel channel = Connect.to(address, files);
    try {
      var demo = new Demo(channel);
      var request = request(given.get("identity"), given.get("scope"));
      var refused = request(given.get("refused"), given.get("scope"));
      var result = new LinkedHashMap<String, Object>(Map.of("language", "java", "address", address));
      result.put("token", demo.oneToken(request));
      result.put("batch", demo.severalTokens(List.of(request, refused)));
      result.put("refusal", demo.aRefusal(refused));
      demo.watched(request, Integer.parseInt(given.get("updates")), result);
      System.out.println(JSON.toJson(result));
    } finally {
      channel.shutdownNow().awaitTermination(DEADLINE_S, TimeUnit.SECONDS);
    }
  }

  private static GetTokenRequest request(String identity, String scope) {
    return GetTokenRequest.newBuilder().setIdentity(identity).addScopes(scope).build();
  }

  /** A deadline counts from when it is set: the stub with it is made for each call. */
  private TokenServiceBlockingV2Stub soon() {
    return tokens.withDeadlineAfter(DEADLINE_S, TimeUnit.SECONDS);
  }

  private Map<String, Object> oneToken(GetTokenRequest request) throws StatusException {
    Token token = soon().getToken(request).getToken();
    // The token itself goes into the header `authorization: Bearer ...` of a request, and nowhere else.
    var shown = new LinkedHashMap<String, Object>();
    shown.put("identity", token.getIdentity());
    shown.put("client_id", token.getClientId());
    shown.put("expires_at", Timestamps.toString(token.getExpiresAt()));
    shown.put("sha256", shortHash(token));
    System.out.println("token   " + shown);
    return shown;
  }

  /** One call for several tokens. Each fails or succeeds by itself, and the answers have the order of the requests. */
  private List<Map<String, Object>> severalTokens(List<GetTokenRequest> requests) throws StatusException {
    var answer = soon().batchGetTokens(BatchGetTokensRequest.newBuilder().addAllRequests(requests).build());
    var batch = new ArrayList<Map<String, Object>>();
    for (int i = 0; i < requests.size(); i++) {
      BatchGetTokensResult result = answer.getResults(i);
      String identity = requests.get(i).getIdentity();
      batch.add(
          result.hasResponse()
              ? Map.of("identity", identity, "sha256", shortHash(result.getResponse().getToken()))
              : Map.of("identity", identity, "reason", result.getFailure().getReason()));
    }
    System.out.println("batch   " + batch);
    return batch;
  }

  private Map<String, Object> aRefusal(GetTokenRequest request) {
    try {
      soon().getToken(request);
    } catch (StatusException e) {
      Refusal refusal = Refusal.of(e);
      var shown = new LinkedHashMap<String, Object>();
      shown.put("code", refusal.code().name());
      shown.put("reason", refusal.reason());
      shown.put("correlation_id", refusal.correlationId());
      shown.put("retry_after_seconds", refusal.retryAfter() == null ? null : refusal.retryAfter().toMillis() / 1000.0);
      System.out.println("refused " + shown + " " + refusal.message());
      return shown;
    }
    throw new IllegalStateException(request.getIdentity() + " was not refused");
  }

  /** Adds the first tokens of a watch. After the first one: what a program does when a resource refuses a token. */
  private void watched(GetTokenRequest request, int count, Map<String, Object> result)
      throws StatusException, InterruptedException {
    var updates = new ArrayList<String>();
    var interruptions = new ArrayList<String>();
    new Watch(tokens, request, new Watch.Watcher() {
      @Override
      public boolean updated(Token token) throws StatusException {
        updates.add(shortHash(token));
        System.out.printf("watch   update %d: %s, after %s%n", updates.size(), shortHash(token), interruptions);
        if (updates.size() == 1) {
          result.put("report", report(request, token));
        }
        return updates.size() < count;
      }

      @Override
      public void interrupted(String why) {
        interruptions.add(why);
      }
    }).run();
    result.put("updates", updates);
    result.put("interruptions", interruptions.size());
  }

  /** For a token that a resource answered with 401 although it has not expired. The broker asks for another, which the watch brings. */
  private String report(GetTokenRequest request, Token token) throws StatusException {
    var report = ReportRejectedTokenRequest.newBuilder()
        .setIdentity(request.getIdentity())
        .addAllScopes(request.getScopesList())
        .setTokenSha256(ByteString.copyFrom(hash(token)))
        .build();
    String outcome = soon().reportRejectedToken(report).getOutcome().name();
    System.out.println("report  " + outcome);
    return outcome;
  }

  private static byte[] hash(Token token) {
    try {
      return MessageDigest.getInstance("SHA-256").digest(token.getAccessToken().getBytes(StandardCharsets.UTF_8));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }

  /** Tells tokens apart in logs, and gives nothing away. */
  private static String shortHash(Token token) {
    return HexFormat.of().formatHex(hash(token)).substring(0, 8);
  }
}
