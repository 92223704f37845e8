"""What a refusal says to programs: google.rpc.ErrorInfo and google.rpc.RetryInfo in the details of its status."""

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status


class Refusal:
    """Code, reason and correlation id of an RpcError, and after how many seconds a retry is worth it (None: it does not help)."""

    def __init__(self, error):
        self.code, self.message = error.code(), error.details()
        self.reason = self.correlation_id = self.retry_after = None
        # There are no details if the broker was not reached: then the code came from gRPC here.
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            info, retry = ErrorInfo(), RetryInfo()
            if detail.Unpack(info):
                self.reason, self.correlation_id = info.reason, info.metadata.get("correlation_id")
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
