// Ways to a broker: its unix socket, TCP on loopback, TLS, mutual TLS, and a bearer token beside TLS.
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const near = (path) => new URL(path, import.meta.url).pathname;

// The stubs are made from the definitions when the program starts: in camelCase, with enums by their names.
const definitions = protoLoader.loadSync("jeton/v1/token.proto", {
  includeDirs: [near("../../../proto")],
  defaults: true,
  enums: String,
  longs: String,
  oneofs: true,
});
const { TokenService } = grpc.loadPackageDefinition(definitions).jeton.v1;

const options = {
  // What gRPC itself tries again, and for how long.
  "grpc.service_config": readFileSync(near("../service-config.json"), "utf8"),
  // A call waits for a broker that is starting. grpc-js takes this from each call's metadata alone, and not from the service config.
  interceptors: [
    (callOptions, nextCall) =>
      new grpc.InterceptingCall(nextCall(callOptions), {
        start(metadata, listener, next) {
          metadata.setOptions({ waitForReady: true });
          next(metadata, listener);
        },
      }),
  ],
  // A connection that leads nowhere is found within 40 s, and a broker that was away within 5 s of its return.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.max_reconnect_backoff_ms": 5_000,
};

/** The unix socket of the broker that runs on this data directory, or its TCP address if it has none. */
export function localAddress(dataDir) {
  const endpoints = JSON.parse(readFileSync(join(dataDir, "endpoints.json"), "utf8"));
  return endpoints.grpc_socket ? `unix:${endpoints.grpc_socket}` : endpoints.grpc;
}

/**
 * A client of `unix:PATH` or `HOST:PORT`: with TLS if there is a file of authorities to trust, with a client certificate if there is one,
 * and with the token in the file `bearer` on every call.
 */
export function connect(address, { ca, cert, key, bearer } = {}) {
  if (!ca) return new TokenService(address, grpc.credentials.createInsecure(), options);
  const read = (file) => (file ? readFileSync(file) : null);
  let credentials = grpc.credentials.createSsl(read(ca), read(key), read(cert));
  if (bearer) {
    credentials = grpc.credentials.combineChannelCredentials(credentials, bearerFile(bearer));
  }
  return new TokenService(address, credentials, options);
}

/** Reads the token for each call: Kubernetes replaces the file before the token in it expires. */
function bearerFile(file) {
  return grpc.credentials.createFromMetadataGenerator((_, callback) => {
    readFile(file, "utf8").then((token) => {
      const metadata = new grpc.Metadata();
      metadata.set("authorization", `Bearer ${token.trim()}`);
      callback(null, metadata);
    }, callback);
  });
}
