// What a refusal says to programs: google.rpc.ErrorInfo and google.rpc.RetryInfo in the details of its status.
import grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";

// From google/rpc/status.proto and google/rpc/error_details.proto, as much as is needed here.
const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: false });
const [Status, ErrorInfo, RetryInfo] = ["Status", "ErrorInfo", "RetryInfo"].map((name) => root.lookupType(`google.rpc.${name}`));

/** Code, reason and correlation id of an error, and after how many seconds a retry is worth it (null: it does not help). */
export function refusalOf(error) {
  const refusal = { code: grpc.status[error.code], message: error.details, reason: null, correlationId: null, retryAfter: null };
  // There are no details if the broker was not reached: then the code came from gRPC here.
  const [status] = error.metadata?.get("grpc-status-details-bin") ?? [];
  for (const { typeUrl, value } of status ? Status.decode(status).details : []) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      const { reason, metadata } = ErrorInfo.decode(value);
      Object.assign(refusal, { reason, correlationId: metadata.correlation_id ?? null });
    } else if (typeUrl.endsWith("/google.rpc.RetryInfo")) {
      refusal.retryAfter = seconds(RetryInfo.decode(value).retryDelay);
    }
  }
  return refusal;
}

/** Of a google.protobuf.Duration. */
export const seconds = (duration) => Number(duration.seconds) + duration.nanos / 1e9;
