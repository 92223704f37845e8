package main

import (
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Refusal is what the status of a call says to programs: google.rpc.ErrorInfo and google.rpc.RetryInfo.
type Refusal struct {
	Code          codes.Code
	Message       string
	Reason        string
	CorrelationID string
	// RetryAfter is nil if trying again does not help.
	RetryAfter *time.Duration
}

// RefusalOf reads the details. There are none if the broker was not reached: then the code came from gRPC here.
func RefusalOf(err error) Refusal {
	told := status.Convert(err)
	refusal := Refusal{Code: told.Code(), Message: told.Message()}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refusal.Reason, refusal.CorrelationID = detail.Reason, detail.Metadata["correlation_id"]
		case *errdetails.RetryInfo:
			delay := detail.RetryDelay.AsDuration()
			refusal.RetryAfter = &delay
		}
	}
	return refusal
}

// codeName is a code as the specification spells it, such as PERMISSION_DENIED.
func codeName(code codes.Code) string { return rpccode.Code(code).String() }
