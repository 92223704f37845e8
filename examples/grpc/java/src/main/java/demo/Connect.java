package demo;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** Ways to a broker: its unix socket, TCP on loopback, TLS, mutual TLS, and a bearer token beside TLS. */
final class Connect {
  private Connect() {}

  /** How to connect with TLS. Without {@code ca} the connection has none; the others may be null. */
  record TlsFiles(String ca, String cert, String key, String bearer) {}

  /** The unix socket of the broker that runs on this data directory, or its TCP address if it has none. */
  static String localAddress(String dataDir) throws IOException {
    String text = Files.readString(Path.of(dataDir, "endpoints.json"));
    JsonObject endpoints = new Gson().fromJson(text, JsonObject.class);
    return endpoints.has("grpc_socket")
        ? "unix:" + endpoints.get("grpc_socket").getAsString()
        : endpoints.get("grpc").getAsString();
  }

  /** A channel to {@code unix:PATH} or {@code HOST:PORT}. */
  static ManagedChannel to(String address, TlsFiles files) throws IOException {
    return Grpc.newChannelBuilder(address, credentials(files))
        // What gRPC itself tries again, and for how long a call waits for a broker that is starting.
        .defaultServiceConfig(serviceConfig())
        // A connection that leads nowhere is found within 40 s.
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .build();
  }

  /** With TLS if there are authorities to trust, with a client certificate if there is one, with a token on every call if there is one. */
  private static ChannelCredentials credentials(TlsFiles files) throws IOException {
    if (files.ca == null) {
      return InsecureChannelCredentials.create();
    }
    var tls = TlsChannelCredentials.newBuilder().trustManager(new File(files.ca));
    if (files.cert != null) {
      tls.keyManager(new File(files.cert), new File(files.key));
    }
    return files.bearer == null
        ? tls.build()
        : CompositeChannelCredentials.create(tls.build(), new BearerFile(Path.of(files.bearer)));
  }

  @SuppressWarnings("unchecked")
  private static Map<String, ?> serviceConfig() throws IOException {
    try (var resource = Connect.class.getResourceAsStream("/service-config.json");
        var text = new InputStreamReader(resource, StandardCharsets.UTF_8)) {
      return new Gson().fromJson(text, Map.class);
    }
  }

  /** Reads the token for each call: Kubernetes replaces the file before the token in it expires. */
  private static final class BearerFile extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private final Path file;

    BearerFile(Path file) {
      this.file = file;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      executor.execute(() -> {
        try {
          var headers = new Metadata();
          headers.put(AUTHORIZATION, "Bearer " + Files.readString(file).strip());
          applier.apply(headers);
        } catch (IOException e) {
          applier.fail(Status.UNAUTHENTICATED.withCause(e).withDescription(file + " cannot be read"));
        }
      });
    }
  }
}
