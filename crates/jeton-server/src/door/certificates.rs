//! Where a listener's certificates come from: files, or SPIFFE's Workload API. Both are followed while the listener serves.
//!
//! What is in use stays in use until something better is there: a file that cannot be used raises an alarm and changes nothing.

mod files;
mod settings;
mod workload_api;

use std::sync::Arc;

use jeton_core::{Clock, Problem, SystemClock, Wall};
use tokio::task::JoinSet;

use super::{ClientCertificates, Tls};
use crate::Alarms;
use files::Files;
pub use settings::{TlsSettings, TrustSettings};
use workload_api::WorkloadApi;

/// A listener's TLS, and what it is made from.
#[derive(Debug)]
pub struct Certificates {
    /// The TLS, for a [`Door`](super::Door).
    pub tls: Arc<Tls>,
    section: &'static str,
    files: Files,
    workload_api: Option<WorkloadApi>,
}

impl Certificates {
    /// Reads all files, and says everything that is wrong with them. `section` is what the operator knows the listener by.
    pub fn load(section: &'static str, settings: &TlsSettings) -> Result<Self, Vec<Problem>> {
        let problems = settings.validate();
        if !problems.is_empty() {
            return Err(problems);
        }
        let clients = match (settings.client_trust.is_empty(), settings.bearer) {
            (true, _) => ClientCertificates::Ignored,
            (false, true) => ClientCertificates::Optional,
            (false, false) => ClientCertificates::Required,
        };
        let tls = Tls::new(clients, settings.client_trust.len());
        let mut files = Files::of(settings);
        let problems = files.first(&tls);
        if !problems.is_empty() {
            return Err(problems);
        }
        let workload_api = WorkloadApi::of(settings);
        Ok(Self { tls, section, files, workload_api })
    }

    /// Follows the sources for as long as the tasks are kept. None of them ends by itself.
    pub fn follow(self, alarms: &Alarms, tasks: &mut JoinSet<()>) {
        let Self { tls, section, files, workload_api } = self;
        tasks.spawn(files.follow(section, Arc::clone(&tls), alarms.clone()));
        if let Some(workload_api) = workload_api {
            tasks.spawn(workload_api.follow(section, tls, alarms.clone()));
        }
    }
}

/// A certificate that nobody replaces in time ends the listener; so it is said when a tenth of its life is left.
fn say_if_it_ends(tls: &Tls, section: &str, alarms: &Alarms) {
    let subject = format!("{section}: the certificate's end");
    let now = SystemClock.now().wall;
    match tls.shown_validity() {
        Some((from, until)) if is_near(from, until, now) => {
            let left = until.saturating_since(now).as_secs();
            let text = if left == 0 {
                "the server's certificate has expired: callers refuse it".to_owned()
            } else {
                format!("the server's certificate ends in {left} s")
            };
            alarms.raise(&subject, text, "put a new one in its place; no restart is needed");
        }
        _ => alarms.clear(&subject),
    }
}

fn is_near(from: Wall, until: Wall, now: Wall) -> bool {
    until.saturating_since(now) < until.saturating_since(from) / 10
}
