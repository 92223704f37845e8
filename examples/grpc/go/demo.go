// Everything that a program does with TokenService. `-help` lists the arguments; the last line of the output is for tests.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	jetonv1 "github.com/jeton/jeton/examples/grpc/go/gen/jeton/v1"
)

const deadline = 5 * time.Second

func main() {
	log.SetFlags(0)
	if err := run(parse()); err != nil {
		log.Fatal(err)
	}
}

type arguments struct {
	dataDir, address, identity, scope, refused string
	files                                      TLSFiles
	updates                                    int
}

func parse() arguments {
	dataDir := ".jeton"
	if given := os.Getenv("JETON_DATA_DIR"); given != "" {
		dataDir = given
	}
	var a arguments
	flag.StringVar(&a.dataDir, "data-dir", dataDir, "of a broker on this machine")
	flag.StringVar(&a.address, "address", "", "unix:PATH or HOST:PORT, in place of -data-dir")
	flag.StringVar(&a.files.CA, "ca", "", "connect with TLS; the authorities to trust, as PEM")
	flag.StringVar(&a.files.Cert, "cert", "", "the client certificate, as PEM")
	flag.StringVar(&a.files.Key, "key", "", "its private key, as PEM")
	flag.StringVar(&a.files.Bearer, "bearer", "", "the file with the token that says who is calling")
	flag.StringVar(&a.identity, "identity", "identities/billing", "the identity whose tokens to get")
	flag.StringVar(&a.scope, "scope", "https://vault.example/.default", "what they are for")
	flag.StringVar(&a.refused, "refused", "identities/nobody", "an identity that gets no token")
	flag.IntVar(&a.updates, "updates", 1, "end after so many tokens of the watch")
	flag.Parse()
	return a
}

func run(a arguments) (err error) {
	if a.address == "" {
		if a.address, err = LocalAddress(a.dataDir); err != nil {
			return err
		}
	}
	connection, err := Connect(a.address, a.files)
	if err != nil {
		return err
	}
	defer connection.Close()
	tokens := jetonv1.NewTokenServiceClient(connection)
	request := &jetonv1.GetTokenRequest{Identity: a.identity, Scopes: []string{a.scope}}
	refused := &jetonv1.GetTokenRequest{Identity: a.refused, Scopes: []string{a.scope}}

	result := map[string]any{"language": "go", "address": a.address}
	if result["token"], err = oneToken(tokens, request); err != nil {
		return err
	}
	if result["batch"], err = severalTokens(tokens, request, refused); err != nil {
		return err
	}
	if result["refusal"], err = aRefusal(tokens, refused); err != nil {
		return err
	}
	if err := watched(tokens, request, a.updates, result); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func oneToken(tokens jetonv1.TokenServiceClient, request *jetonv1.GetTokenRequest) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	answer, err := tokens.GetToken(ctx, request)
	if err != nil {
		return nil, err
	}
	token := answer.Token
	// The token itself goes into the header `authorization: Bearer ...` of a request, and nowhere else.
	shown := map[string]any{
		"identity":   token.Identity,
		"client_id":  token.ClientId,
		"expires_at": token.ExpiresAt.AsTime().Format(time.RFC3339Nano),
		"sha256":     shortHash(token),
	}
	fmt.Println("token ", shown)
	return shown, nil
}

// severalTokens is one call. Each fails or succeeds by itself, and the answers have the order of the requests.
func severalTokens(tokens jetonv1.TokenServiceClient, requests ...*jetonv1.GetTokenRequest) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	answer, err := tokens.BatchGetTokens(ctx, &jetonv1.BatchGetTokensRequest{Requests: requests})
	if err != nil {
		return nil, err
	}
	var batch []map[string]any
	for i, result := range answer.Results {
		shown := map[string]any{"identity": requests[i].Identity}
		switch outcome := result.Outcome.(type) {
		case *jetonv1.BatchGetTokensResult_Response:
			shown["sha256"] = shortHash(outcome.Response.Token)
		case *jetonv1.BatchGetTokensResult_Failure:
			shown["reason"] = outcome.Failure.Reason
		}
		batch = append(batch, shown)
	}
	fmt.Println("batch ", batch)
	return batch, nil
}

func aRefusal(tokens jetonv1.TokenServiceClient, request *jetonv1.GetTokenRequest) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, err := tokens.GetToken(ctx, request)
	if err == nil {
		return nil, errors.New(request.Identity + " was not refused")
	}
	refusal := RefusalOf(err)
	var retryAfter any
	if refusal.RetryAfter != nil {
		retryAfter = refusal.RetryAfter.Seconds()
	}
	shown := map[string]any{
		"code":                codeName(refusal.Code),
		"reason":              refusal.Reason,
		"correlation_id":      refusal.CorrelationID,
		"retry_after_seconds": retryAfter,
	}
	fmt.Println("refused", shown, refusal.Message)
	return shown, nil
}

// watched adds the first tokens of a watch. After the first one: what a program does when a resource refuses a token.
func watched(tokens jetonv1.TokenServiceClient, request *jetonv1.GetTokenRequest, count int, result map[string]any) error {
	ctx, enough := context.WithCancel(context.Background())
	defer enough()
	var (
		updates       []string
		interruptions int
		outcome       string
		failed        error
	)
	update := func(token *jetonv1.Token) {
		updates = append(updates, shortHash(token))
		fmt.Printf("watch  update %d: %s, after %d interruptions\n", len(updates), shortHash(token), interruptions)
		if outcome == "" {
			outcome, failed = report(tokens, request, token)
		}
		if len(updates) == count || failed != nil {
			enough()
		}
	}
	interrupted := func(why string) {
		interruptions++
		fmt.Println("watch  interrupted:", why)
	}
	err := Watch(ctx, tokens, request, update, interrupted)
	if failed != nil || ctx.Err() == nil {
		return errors.Join(failed, err)
	}
	result["report"], result["updates"], result["interruptions"] = outcome, updates, interruptions
	return nil
}

// report is for a token that a resource answered with 401 although it has not expired. The broker asks for another, which the watch
// brings.
func report(tokens jetonv1.TokenServiceClient, request *jetonv1.GetTokenRequest, token *jetonv1.Token) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	hash := sha256.Sum256([]byte(token.AccessToken))
	answer, err := tokens.ReportRejectedToken(ctx, &jetonv1.ReportRejectedTokenRequest{
		Identity:    request.Identity,
		Scopes:      request.Scopes,
		TokenSha256: hash[:],
	})
	if err != nil {
		return "", err
	}
	fmt.Println("report", answer.Outcome)
	return answer.Outcome.String(), nil
}

// shortHash tells tokens apart in logs, and gives nothing away.
func shortHash(token *jetonv1.Token) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(token.AccessToken)))[:8]
}
