//! The client against a broker that does what a test says, in simulated time.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod bounds;
mod broker;
mod calls;
mod credential;
mod outages;
mod secured;
mod seeds;
mod taken_back;
mod unwatched;
mod watched;
