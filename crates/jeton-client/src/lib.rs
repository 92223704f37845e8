//! Access tokens of managed identities, from a [Jeton](https://github.com/jeton/jeton) broker.
//!
//! Jeton holds managed identities, keeps their access tokens fresh and hands them to those who may have them. This is its client for
//! Rust. It keeps what it was given in memory and lets the broker send every new token, so that asking is a memory read:
//!
//! ```no_run
//! use jeton_client::Client;
//!
//! # async fn example() -> Result<(), jeton_client::Error> {
//! let client = Client::builder().endpoint("unix:/run/jeton/data.sock").build()?;
//!
//! // Ask each time a token is needed, and do not keep it: this is the current one.
//! let token = client.token("identities/billing", "https://vault.example/.default").await?;
//! let header = format!("{} {}", token.token_type(), token.secret());
//! # drop(header); Ok(()) }
//! ```
//!
//! # What it does
//!
//! - The first caller of a token waits for one `GetToken`; callers of the same token share it. From then on the token is watched
//!   (`WatchTokens`), one stream for all, and [`Client::token`] answers from memory without a lock or an allocation.
//! - A token is handed out only with life enough left: 30 s, of short-lived tokens a quarter, by the more pessimistic of the wall clock
//!   and the boot-time clock. So neither a clock that is stepped nor a machine that sleeps makes it hand out a dead one.
//! - While a token in memory is valid, no call fails: brokers may be restarted, drained or get other certificates. The stream is opened
//!   anew, at most a second after the broker is back, and tells what changed.
//! - Where the broker refuses to watch, tokens in use are asked for again once the broker says that it is time.
//! - What the broker takes back (a revocation, a role assignment that ends) is not handed out any more.
//! - Everything is bounded: tokens in memory ([`Builder::max_keys`]; what nobody asked for in an hour goes), callers that wait
//!   ([`Builder::max_waiting`]), the time of each call ([`Builder::timeout`]), the size of answers.
//!
//! # Where the broker is, and who asks
//!
//! On one machine the broker knows its caller by the unix socket, and nothing more is needed. Over a network there is TLS, and a
//! client certificate or a bearer token says who asks. Files are followed: whoever rotates them need not tell anybody.
//!
//! ```no_run
//! use jeton_client::Client;
//!
//! # fn example() -> Result<(), jeton_client::Error> {
//! // A SPIFFE identity, or any other client certificate.
//! let client = Client::builder()
//!     .endpoint("https://broker.example:7412")
//!     .ca_file("/run/spiffe/bundle.pem")
//!     .client_certificate("/run/spiffe/svid.pem", "/run/spiffe/svid.key")
//!     .build()?;
//! // A pod's projected service account token.
//! let client = Client::builder()
//!     .endpoint("https://broker.example:7412")
//!     .ca_file("/etc/jeton/ca.pem")
//!     .bearer_token_file("/var/run/secrets/jeton/token")
//!     .build()?;
//! # drop(client); Ok(()) }
//! ```
//!
//! # A token that a resource refuses
//!
//! Permissions that were changed at the authority, or a signing key that was replaced, make a resource refuse a token that has not
//! expired. [`Client::report_rejected`] has the broker ask for another; the new one comes by itself.
//!
//! ```no_run
//! # async fn example(client: jeton_client::Client) -> Result<(), jeton_client::Error> {
//! let token = client.token("identities/billing", "orders.read").await?;
//! # let status = 401;
//! if status == 401 {
//!     client.report_rejected(&token).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! # Errors
//!
//! [`Error`] says whose [`Fault`] it is and whether a retry helps; what may pass by itself has been tried again within the call's time.
//! A [`Refusal`] has the broker's reason, and the correlation id by which its operator finds the cause:
//!
//! ```no_run
//! # async fn example(client: jeton_client::Client) {
//! if let Err(error) = client.token("identities/billing", "orders.read").await {
//!     match error.refusal().map(|refusal| refusal.reason()) {
//!         Some("ACCESS_DENIED") => eprintln!("ask the operator of the broker: {error}"),
//!         _ if error.is_transient() => eprintln!("try again later: {error}"),
//!         _ => eprintln!("{error}"),
//!     }
//! }
//! # }
//! ```
//!
//! # Features
//!
//! - `azure`: `azure::JetonCredential` is an `azure_core` `TokenCredential`, for the clients of the Azure SDK.
//!
//! The one crypto library is aws-lc-rs. A tokio runtime is needed, the one in which the client was built must stay.

#[cfg(feature = "azure")]
pub mod azure;
mod backoff;
mod bearer;
mod broker;
mod builder;
mod client;
mod clock;
mod connect;
mod error;
mod flight;
mod near;
mod poll;
mod target;
mod tls;
mod token;
mod watch;

pub use builder::Builder;
pub use client::{Client, Report};
pub use error::{Error, Fault, Refusal};
pub use target::Target;
pub use token::Token;
