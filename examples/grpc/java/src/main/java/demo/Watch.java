package demo;

import io.github.jeton.v1.Failure;
import io.github.jeton.v1.GetTokenRequest;
import io.github.jeton.v1.Token;
import io.github.jeton.v1.TokenServiceGrpc.TokenServiceBlockingV2Stub;
import io.github.jeton.v1.WatchTokensAdd;
import io.github.jeton.v1.WatchTokensRequest;
import io.github.jeton.v1.WatchTokensResponse;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** WatchTokens over whatever interrupts it: the broker's restarts, its upgrades, a network that goes away. */
final class Watch {
  /** Whoever wants the tokens. */
  interface Watcher {
    /** The token at once, and each that replaces it. False ends the watch. */
    boolean updated(Token token) throws StatusException;

    /** A stream ended, and another is opened. */
    void interrupted(String why);
  }

  private record Interruption(String why, Duration waitFor) {}

  private final TokenServiceBlockingV2Stub tokens;
  private final WatchTokensRequest add;
  private final Watcher watcher;
  private int attempt;

  Watch(TokenServiceBlockingV2Stub tokens, GetTokenRequest request, Watcher watcher) {
    this.tokens = tokens;
    this.add = WatchTokensRequest.newBuilder()
        .setAdd(WatchTokensAdd.newBuilder().setId("token").setRequest(request))
        .build();
    this.watcher = watcher;
  }

  /** Until the watcher has enough. Throws what trying again does not mend. */
  void run() throws StatusException, InterruptedException {
    for (Interruption end = stream(); end != null; end = stream()) {
      watcher.interrupted(end.why);
      // Longer from time to time, and not in step with the other callers of the same broker.
      double pause = Math.min(5_000, 100 * Math.pow(2, attempt++)) * ThreadLocalRandom.current().nextDouble(0.5, 1);
      Thread.sleep(Math.max(end.waitFor.toMillis(), (long) pause));
    }
  }

  /** One call, without a deadline: a watch has no end of its own, and keepalive finds a dead connection. Null: the watcher has enough. */
  private Interruption stream() throws StatusException, InterruptedException {
    BlockingClientCall<WatchTokensRequest, WatchTokensResponse> call = tokens.watchTokens();
    try {
      call.write(add);
      for (WatchTokensResponse answer = call.read(); answer != null; answer = call.read()) {
        switch (answer.getEventCase()) {
          case TOKEN -> {
            attempt = 0;
            if (!watcher.updated(answer.getToken().getToken())) {
              return null;
            }
          }
          case MOVING -> {
            return new Interruption("the broker is about to stop", Duration.ZERO);
          }
          case FAILURE -> {
            // If a refresh failed, the token at hand stays good, and the broker itself tries again.
            if (!answer.getFailure().getReason().startsWith("AUTHORITY_")) {
              return ended(answer.getFailure());
            }
          }
          default -> {}
        }
      }
      return new Interruption("the stream ended", Duration.ZERO);
    } catch (StatusException e) {
      Refusal refusal = Refusal.of(e);
      if (refusal.retryAfter() == null && refusal.code() != Status.Code.UNAVAILABLE) {
        throw e;
      }
      String why = refusal.reason() == null ? refusal.code().name() : refusal.reason();
      return new Interruption(why, refusal.retryAfter() == null ? Duration.ZERO : refusal.retryAfter());
    } finally {
      call.cancel("no longer read", null);
    }
  }

  /** The token is not watched any longer. */
  private static Interruption ended(Failure failure) throws StatusException {
    if (!failure.hasRetryDelay()) {
      String told = failure.getReason() + ": " + failure.getMessage();
      throw Status.fromCodeValue(failure.getCode()).withDescription(told).asException();
    }
    return new Interruption(failure.getReason(), Refusal.duration(failure.getRetryDelay()));
  }
}
