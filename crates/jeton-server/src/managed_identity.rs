//! The local endpoints that SDKs of managed identities know, so that programs written for a cloud run here as they are.
//!
//! One way leads through all of them: a request passes the [`guard`], shows its flavour's proof, is read into [`asked`], [`chosen`]
//! finds the identity that it means, and the token comes from the same functions as over gRPC, decided, counted and audited there.
//! [`flavour`] has everything in which they differ, [`answer`] the words of success and [`refusal`] those of failure.
//!
//! What clients make of a status rules what is answered: 404, 408, 410 and 5xx make them try for up to a hundred seconds, so what is
//! permanent is a 400, 401 or 403, and what will pass is a 429 or 503 with a Retry-After of a second or two.

mod answer;
mod arc;
mod asked;
mod chosen;
mod endpoint;
mod flavour;
mod gce;
mod guard;
mod refusal;
mod settings;

pub use arc::Challenges;
pub use endpoint::{Endpoint, routes};
pub use flavour::Flavour;
pub use guard::Hosts;
pub use settings::{EndpointSettings, ManagedIdentitySettings, Place};
