"""Ways to a broker: its unix socket, TCP on loopback, TLS, mutual TLS, and a bearer token beside TLS."""

import json
import pathlib

import grpc

OPTIONS = [
    # What gRPC itself tries again, and for how long a call waits for a broker that is starting.
    ("grpc.service_config", (pathlib.Path(__file__).parents[1] / "service-config.json").read_text()),
    # A connection that leads nowhere is found within 40 s, and a broker that was away within 5 s of its return.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def local_address(data_dir):
    """The unix socket of the broker that runs on this data directory, or its TCP address if it has none."""
    endpoints = json.loads((pathlib.Path(data_dir) / "endpoints.json").read_text())
    socket = endpoints.get("grpc_socket")
    return f"unix:{socket}" if socket else endpoints["grpc"]


def connect(address, ca=None, cert=None, key=None, bearer=None):
    """A channel to `unix:PATH` or `HOST:PORT`: with TLS if there is a file of authorities to trust, with a client certificate if there
    is one, and with the token in the file `bearer` on every call."""
    if ca is None:
        return grpc.insecure_channel(address, OPTIONS)
    read = lambda file: pathlib.Path(file).read_bytes() if file else None
    credentials = grpc.ssl_channel_credentials(root_certificates=read(ca), private_key=read(key), certificate_chain=read(cert))
    if bearer:
        credentials = grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(BearerFile(bearer)))
    return grpc.secure_channel(address, credentials, OPTIONS)


class BearerFile(grpc.AuthMetadataPlugin):
    """Reads the token for each call: Kubernetes replaces the file before the token in it expires."""

    def __init__(self, file):
        self.file = pathlib.Path(file)

    def __call__(self, context, callback):
        try:
            callback([("authorization", f"Bearer {self.file.read_text().strip()}")], None)
        except OSError as error:
            callback(None, error)
