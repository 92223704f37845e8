package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	jetonv1 "github.com/jeton/jeton/examples/grpc/go/gen/jeton/v1"
)

// interruption is why one stream ended, and how long to wait before the next.
type interruption struct {
	why  string
	wait time.Duration
}

func (i interruption) Error() string { return i.why }

// Watch hands the token to update at once, and each that replaces it: over whatever interrupts a stream, such as the broker's restarts
// and upgrades. It ends with ctx, or with an error that trying again does not mend.
func Watch(
	ctx context.Context,
	tokens jetonv1.TokenServiceClient,
	request *jetonv1.GetTokenRequest,
	update func(*jetonv1.Token),
	interrupted func(why string),
) error {
	for attempt := 0; ; attempt++ {
		err := stream(ctx, tokens, request, func(token *jetonv1.Token) {
			attempt = 0
			update(token)
		})
		var again interruption
		if ctx.Err() != nil || !errors.As(err, &again) {
			return err
		}
		interrupted(again.why)
		// Longer from time to time, and not in step with the other callers of the same broker.
		pause := min(5*time.Second, 100*time.Millisecond<<min(attempt, 10))
		pause = time.Duration(float64(pause) * (0.5 + rand.Float64()/2))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(again.wait, pause)):
		}
	}
}

// stream is one call of WatchTokens. It has no deadline: a watch has no end of its own, and keepalive finds a dead connection.
func stream(
	ctx context.Context,
	tokens jetonv1.TokenServiceClient,
	request *jetonv1.GetTokenRequest,
	update func(*jetonv1.Token),
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers, err := tokens.WatchTokens(ctx)
	if err != nil {
		return ending(err)
	}
	add := &jetonv1.WatchTokensRequest_Add{Add: &jetonv1.WatchTokensAdd{Id: "token", Request: request}}
	// Send fails with io.EOF when the stream is over; Recv knows why.
	if err := answers.Send(&jetonv1.WatchTokensRequest{Action: add}); err != nil && !errors.Is(err, io.EOF) {
		return ending(err)
	}
	for {
		answer, err := answers.Recv()
		if err != nil {
			return ending(err)
		}
		switch event := answer.Event.(type) {
		case *jetonv1.WatchTokensResponse_Token:
			update(event.Token.Token)
		case *jetonv1.WatchTokensResponse_Moving:
			return interruption{why: "the broker is about to stop"}
		case *jetonv1.WatchTokensResponse_Failure:
			failure := event.Failure
			if strings.HasPrefix(failure.Reason, "AUTHORITY_") {
				continue // A refresh failed: the token at hand stays good, and the broker itself tries again.
			}
			if failure.RetryDelay == nil {
				return fmt.Errorf("%s: %s", failure.Reason, failure.Message)
			}
			return interruption{why: failure.Reason, wait: failure.RetryDelay.AsDuration()}
		}
	}
}

// ending is an interruption, unless trying again does not help.
func ending(err error) error {
	if errors.Is(err, io.EOF) {
		return interruption{why: "the stream ended"}
	}
	refusal := RefusalOf(err)
	why := refusal.Reason
	if why == "" {
		why = refusal.Code.String()
	}
	switch {
	case refusal.RetryAfter != nil:
		return interruption{why: why, wait: *refusal.RetryAfter}
	case refusal.Code == codes.Unavailable:
		return interruption{why: why}
	default:
		return err
	}
}
