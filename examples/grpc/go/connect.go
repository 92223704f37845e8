package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// What gRPC itself tries again, and for how long a call waits for a broker that is starting.
//
//go:embed service-config.json
var serviceConfig string

// TLSFiles say how to connect with TLS. Without CA the connection has none; Cert, Key and Bearer may be empty.
type TLSFiles struct{ CA, Cert, Key, Bearer string }

// LocalAddress is the unix socket of the broker that runs on this data directory, or its TCP address if it has none.
func LocalAddress(dataDir string) (string, error) {
	var endpoints struct {
		Socket string `json:"grpc_socket"`
		TCP    string `json:"grpc"`
	}
	file := filepath.Join(dataDir, "endpoints.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(text, &endpoints); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	if endpoints.Socket != "" {
		return "unix:" + endpoints.Socket, nil
	}
	return endpoints.TCP, nil
}

// Connect makes a connection to unix:PATH or HOST:PORT: with TLS if there are authorities to trust, with a client certificate if there
// is one, and with the token in the file Bearer on every call.
func Connect(address string, files TLSFiles) (*grpc.ClientConn, error) {
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = 5 * time.Second
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		// A connection that leads nowhere is found within 40 s, and a broker that was away within 5 s of its return.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
	}
	transport, err := transportCredentials(files)
	if err != nil {
		return nil, err
	}
	options = append(options, grpc.WithTransportCredentials(transport))
	if files.Bearer != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearerFile(files.Bearer)))
	}
	return grpc.NewClient(address, options...)
}

func transportCredentials(files TLSFiles) (credentials.TransportCredentials, error) {
	if files.CA == "" {
		return insecure.NewCredentials(), nil
	}
	authorities, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	if !config.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("%s holds no certificate", files.CA)
	}
	if files.Cert != "" {
		// Read for each handshake, so that a certificate that was replaced counts from the next connection on.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := tls.LoadX509KeyPair(files.Cert, files.Key)
			return &certificate, err
		}
	}
	return credentials.NewTLS(config), nil
}

// bearerFile is read for each call: Kubernetes replaces the file before the token in it expires.
type bearerFile string

func (file bearerFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(file))
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

func (bearerFile) RequireTransportSecurity() bool { return true }
