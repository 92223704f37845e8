//! Exit codes, and how an error is shown.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed: the message says what was wrong and what to do |
//! | 2 | wrong use of the command line, or an invalid configuration |
//! | 3 | no broker can be reached |
//! | 4 | access denied, or not authenticated |
//! | 5 | not found |
//! | 6 | it exists already, or its state does not allow the change |
//! | 7 | try again later: overloaded, throttled or past a deadline |

use std::process::ExitCode;

use tonic::Code;

/// The code of `status` for a broker that is degraded.
pub(crate) const DEGRADED: u8 = 1;

/// The exit code of an error, by its outermost cause that has one.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(error.chain().find_map(known).unwrap_or(1))
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<crate::config::Faults>() {
        return Some(2);
    }
    if cause.is::<crate::reach::Unreachable>() {
        return Some(3);
    }
    cause.downcast_ref::<tonic::Status>().map(|status| of_status(status.code()))
}

fn of_status(code: Code) -> u8 {
    match code {
        Code::Ok => 0,
        Code::InvalidArgument | Code::OutOfRange => 2,
        Code::PermissionDenied | Code::Unauthenticated => 4,
        Code::NotFound => 5,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 6,
        Code::ResourceExhausted | Code::DeadlineExceeded | Code::Unavailable => 7,
        Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => 1,
    }
}
