//! Exit codes, and how an error is shown.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed: the message says what was wrong and what to do |
//! | 2 | wrong use of the command line, or an invalid configuration or input file |
//! | 3 | no broker can be reached |
//! | 4 | access denied, or not authenticated |
//! | 5 | not found |
//! | 6 | it exists already, or its state does not allow the change |
//! | 7 | try again later: overloaded, throttled or past a deadline |
//!
//! `status` is a check, with codes of its own: 0 healthy, 1 degraded, 2 down.

use std::{error::Error, process::ExitCode};

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

use crate::reach::CALL_TIMEOUT;

/// The codes of `status`, which are those of a check: healthy,
pub(crate) const HEALTHY: u8 = 0;
/// degraded: something needs attention,
pub(crate) const DEGRADED: u8 = 1;
/// and down: nobody answers.
pub(crate) const DOWN: u8 = 2;

/// What the command line or a file that it names says cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// Somebody uses what is to be deleted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InUse(pub(crate) String);

/// It may be done later, or is still being done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotYet(pub(crate) String);

/// The exit code of an error, by its outermost cause that has one.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(error.chain().find_map(known).unwrap_or(1))
}

fn known(cause: &(dyn Error + 'static)) -> Option<u8> {
    if cause.is::<Misuse>() || cause.is::<crate::config::Faults>() {
        return Some(2);
    }
    if cause.is::<crate::reach::Unreachable>() {
        return Some(3);
    }
    if cause.is::<crate::reach::Refused>() {
        return Some(4);
    }
    if cause.is::<InUse>() {
        return Some(6);
    }
    if cause.is::<NotYet>() {
        return Some(7);
    }
    cause.downcast_ref::<Status>().map(of_status)
}

/// The exit code of a refusal.
pub(crate) fn of_status(status: &Status) -> u8 {
    match Meaning::of(status) {
        Meaning::BrokeOff(_) => 3,
        Meaning::NoAnswer => 7,
        Meaning::OtherPlane => 2,
        Meaning::Said => match status.code() {
            Code::Ok => 0,
            Code::InvalidArgument | Code::OutOfRange => 2,
            Code::PermissionDenied | Code::Unauthenticated => 4,
            Code::NotFound => 5,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 6,
            Code::ResourceExhausted | Code::DeadlineExceeded | Code::Unavailable => 7,
            Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => 1,
        },
    }
}

/// The whole chain of causes, each where it says something new.
pub(crate) fn described(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let status = cause.downcast_ref::<Status>();
        let said = status.map_or_else(|| cause.to_string(), refusal);
        if !said.is_empty() && !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        if status.is_some() {
            break;
        }
    }
    text
}

/// A refusal in words: what was wrong, what to do, and by which id the operator finds more.
fn refusal(status: &Status) -> String {
    let mut text = match Meaning::of(status) {
        Meaning::BrokeOff(cause) => {
            return format!("the connection to the broker broke off ({cause}): it stopped or was killed");
        }
        Meaning::NoAnswer => {
            return format!(
                "the broker gave no answer within {} s: it hangs or is stopped (`jeton status` tells), and whether it does what was asked of it is not known",
                CALL_TIMEOUT.as_secs()
            );
        }
        Meaning::OtherPlane => {
            return "this is the broker's other plane: tokens are on the data plane (--socket, --endpoint), everything else is on the admin plane (--admin-socket)".into();
        }
        Meaning::Said if status.message().is_empty() => format!("{:?}", status.code()),
        Meaning::Said => status.message().to_owned(),
    };
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        text += &format!(" [{}]", info.reason);
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay).filter(|d| !d.is_zero()) {
        text += &format!("; try again in {} ms", delay.as_millis());
    }
    text
}

/// What a status stands for: a broker's own words have no cause on this side.
enum Meaning {
    BrokeOff(String),
    NoAnswer,
    OtherPlane,
    Said,
}

impl Meaning {
    fn of(status: &Status) -> Self {
        let causes = || std::iter::successors(status.source(), |&cause| cause.source());
        if causes().any(|cause| cause.is::<TimeoutExpired>()) {
            return Self::NoAnswer;
        }
        match (causes().last(), status.code()) {
            (Some(cause), _) => Self::BrokeOff(cause.to_string()),
            (None, Code::Unimplemented) => Self::OtherPlane,
            (None, _) => Self::Said,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_refusal_keeps_what_was_being_done() {
        let failed: Result<(), _> = Err(Status::already_exists("it exists"));
        let error = failed.context("+ identities/a").unwrap_err();
        assert_eq!(described(&error), "+ identities/a: it exists");
        assert_eq!(error.chain().find_map(known), Some(6));
    }

    #[test]
    fn a_connection_that_broke_off_is_no_word_of_the_broker() {
        let status = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert_eq!(of_status(&status), 3);
        assert!(refusal(&status).contains("broke off (broken pipe)"), "{}", refusal(&status));
        assert_eq!(of_status(&Status::unknown("the broker's own")), 1);
    }

    #[test]
    fn what_a_plane_does_not_know_is_on_the_other_one() {
        let status = Status::unimplemented("");
        assert_eq!(of_status(&status), 2);
        assert!(refusal(&status).contains("--admin-socket"));
    }
}
