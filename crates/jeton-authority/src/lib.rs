//! The outbound side: token endpoints and client registration at authorities.
//!
//! One code path speaks to all of them; what differs is the profile. Answers are read with suspicion: bounded, over TLS that trusts
//! what the authority's record says, never redirected. An assertion is spent when it is sent, so nothing here repeats a request
//! with the same one.

mod calls;
mod classify;
mod client;
mod dynamic;
mod graph;
mod holds;
mod probe;
mod profiles;
mod registration;
#[cfg(test)]
mod scripted;
mod skew;
mod token;
mod words;

pub use calls::CallsEnded;
pub use client::{AuthorityClient, Ports, bounds};
pub use jeton_http::{Answer, Http, HttpError, trust};
pub use probe::TestStep;
pub use profiles::{DiscoverError, Discovery, Shape, discover};
