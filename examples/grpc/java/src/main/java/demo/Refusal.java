package demo;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;

/**
 * What a refusal says to programs: google.rpc.ErrorInfo and google.rpc.RetryInfo in the details of its status.
 *
 * @param retryAfter null if trying again does not help
 */
record Refusal(Status.Code code, String message, String reason, String correlationId, Duration retryAfter) {

  /** Reads the details. There are none if the broker was not reached: then the code came from gRPC here. */
  static Refusal of(StatusException error) {
    String reason = null;
    String correlationId = null;
    Duration retryAfter = null;
    try {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          reason = info.getReason();
          correlationId = info.getMetadataOrDefault("correlation_id", null);
        } else if (detail.is(RetryInfo.class)) {
          retryAfter = duration(detail.unpack(RetryInfo.class).getRetryDelay());
        }
      }
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalStateException("the details of a status cannot be read", e);
    }
    return new Refusal(error.getStatus().getCode(), error.getStatus().getDescription(), reason, correlationId, retryAfter);
  }

  static Duration duration(com.google.protobuf.Duration duration) {
    return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
  }
}
