//! What stands behind each door: the data plane and the admin plane are separate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jeton_access::{Access, Tally};
use jeton_core::{AuditTrail, Clock, Principal};
use jeton_engine::Engine;
use jeton_lifecycle::Lifecycle;
use jeton_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        access_service_server::AccessServiceServer, authority_service_server::AuthorityServiceServer,
        event_service_server::EventServiceServer, identity_service_server::IdentityServiceServer,
        sealing_service_server::SealingServiceServer, status_service_server::StatusServiceServer,
        token_service_server::TokenServiceServer, workload_service_server::WorkloadServiceServer,
    },
};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::Semaphore;
use tonic::{server::NamedService, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    AuthorityProbe, SealingRotation,
    audit::{Auditor, audited},
    permit,
    shortcut::GetTokenShortcut,
};
use crate::{
    Alarms, Events, History,
    door::{Drain, Shortcut},
};

/// Largest request of the data plane. Room for one is made when its length is known and before its bytes are here, so what a peer can
/// take for nothing is this for each of its streams.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Largest answer. No resource takes a token that comes near it.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;
/// The same of a batch.
const MAX_BATCH_REQUEST_BYTES: usize = 512 * 1024;
pub(super) const MAX_BATCH_RESPONSE_BYTES: usize = 1024 * 1024;
/// Largest request of the admin plane: PEM files have 64 KiB each, and as many principals as a workload may have 128 KiB. Answers have no
/// bound there beside a page's thousand entries, because an entry may have twenty kilobytes of labels alone, and whoever asks for that
/// many wants them.
pub(super) const MAX_ADMIN_REQUEST_BYTES: usize = 512 * 1024;

const BATCH: &str = "/jeton.v1.TokenService/BatchGetTokens";

/// Watches of events at once.
pub const MAX_WATCHERS: usize = 64;

/// What is told of a door's services to whoever asks for their health.
#[derive(Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: &'static [&'static str],
}

const DATA_SERVICES: &[&str] = &["", TokenServiceServer::<Broker>::NAME];
const ADMIN_SERVICES: &[&str] = &[
    "",
    IdentityServiceServer::<Broker>::NAME,
    WorkloadServiceServer::<Broker>::NAME,
    AuthorityServiceServer::<Broker>::NAME,
    AccessServiceServer::<Broker>::NAME,
    SealingServiceServer::<Broker>::NAME,
    StatusServiceServer::<Broker>::NAME,
    EventServiceServer::<Broker>::NAME,
];

impl Health {
    async fn serving(reporter: HealthReporter, services: &'static [&'static str]) -> Self {
        let health = Self { reporter, services };
        health.tell(ServingStatus::Serving).await;
        health
    }

    /// Before a drain: whoever watches hears of it.
    pub async fn not_serving(&self) {
        self.tell(ServingStatus::NotServing).await;
    }

    async fn tell(&self, status: ServingStatus) {
        for service in self.services {
            self.reporter.set_service_status(*service, status).await;
        }
    }
}

/// Everything that the services ask.
#[derive(Clone)]
pub struct Broker {
    /// Tokens.
    pub engine: Engine,
    /// Decisions.
    pub access: Access,
    /// Who was handed what.
    pub tally: Tally,
    /// The registry.
    pub lifecycle: Lifecycle,
    /// The outbound side, for authorities.
    pub probe: Arc<dyn AuthorityProbe>,
    /// Makes another sealing key take over.
    pub sealing: Arc<dyn SealingRotation>,
    /// Where changes are written down before they are made.
    pub trail: Arc<dyn AuditTrail>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Tells watchers when to move.
    pub drain: Drain,
    /// How long they then have.
    pub drain_grace: Duration,
    /// The node's name.
    pub node: String,
    /// The broker's own user, who administers everything.
    pub root: Option<Principal>,
    /// When the process started.
    pub started: Instant,
    /// What could not be read at the start, by name.
    pub quarantined: Arc<Vec<String>>,
    /// Why the last write of the registry failed, if it did.
    pub unwritable: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Issuers of callers' tokens whose keys cannot be had now, and why.
    pub failing_issuers: Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>,
    /// What needs an operator.
    pub alarms: Alarms,
    /// What happened lately.
    pub events: Events,
    /// How much there was to do lately.
    pub history: History,
    /// Who may watch events: at most [`MAX_WATCHERS`] at once.
    pub watchers: Arc<Semaphore>,
    /// Who may look at every identity: one at a time, beside the threads that serve.
    pub looking: Arc<Semaphore>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The data plane: tokens, health, and reflection where it is wanted.
pub async fn data_routes(broker: &Broker, reflection: bool) -> (Routes, Health) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let tokens = || TokenServiceServer::new(broker.clone());
    let batches = tokens()
        .max_decoding_message_size(MAX_BATCH_REQUEST_BYTES)
        .max_encoding_message_size(MAX_BATCH_RESPONSE_BYTES);
    let tokens =
        tokens().max_decoding_message_size(MAX_REQUEST_BYTES).max_encoding_message_size(MAX_RESPONSE_BYTES);
    let health = health.max_decoding_message_size(MAX_REQUEST_BYTES);
    let routes = Routes::new(tokens).add_service(health);
    // A whole path goes before a service's.
    let routes = routes.into_axum_router().route_service(BATCH, batches).into();
    (with_reflection(routes, reflection), Health::serving(reporter, DATA_SERVICES).await)
}

/// The short way of the data plane's one hot call.
pub fn data_shortcut(broker: &Broker, most: u64) -> Arc<dyn Shortcut> {
    let (engine, access, tally) = (broker.engine.clone(), broker.access.clone(), broker.tally.clone());
    Arc::new(GetTokenShortcut::new(engine, access, tally, Arc::clone(&broker.clock), most))
}

/// The admin plane: everything else, for whom [`METHODS`](super::METHODS) lets in.
pub async fn admin_routes(broker: &Broker, reflection: bool) -> (Routes, Health) {
    let (reporter, health) = tonic_health::server::health_reporter();
    macro_rules! bounded {
        ($service:ident) => {
            $service::new(broker.clone()).max_decoding_message_size(MAX_ADMIN_REQUEST_BYTES)
        };
    }
    let routes = Routes::new(bounded!(IdentityServiceServer))
        .add_service(bounded!(WorkloadServiceServer))
        .add_service(bounded!(AuthorityServiceServer))
        .add_service(bounded!(AccessServiceServer))
        .add_service(bounded!(SealingServiceServer))
        .add_service(bounded!(StatusServiceServer))
        .add_service(bounded!(EventServiceServer))
        .add_service(health.max_decoding_message_size(MAX_REQUEST_BYTES));
    let routes = audited(permit::guarded(broker, routes), Auditor::of(broker));
    (with_reflection(routes, reflection), Health::serving(reporter, ADMIN_SERVICES).await)
}

fn with_reflection(routes: Routes, wanted: bool) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    if !wanted {
        return routes;
    }
    // Both names of the protocol: many clients still ask for the older one.
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes
            .add_service(v1.max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(v1alpha.max_decoding_message_size(MAX_REQUEST_BYTES)),
        _ => routes,
    }
}

/// The methods of both planes, as calls name them: `jeton.v1.TokenService/GetToken`.
pub fn method_names() -> Vec<String> {
    let sets = [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files =
        sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file);
    let of = |file: FileDescriptorProto| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let service_name = format!("{package}.{}", service.name());
            service.method.into_iter().map(move |method| format!("{service_name}/{}", method.name()))
        })
    };
    files.flat_map(of).collect()
}

/// Which paths are streams, with no deadline of the door's.
pub fn is_streaming(path: &str) -> bool {
    path.ends_with("/WatchTokens")
        || path.ends_with("/WatchEvents")
        || path.ends_with("/Watch")
        || path.ends_with("/ServerReflectionInfo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_batch_is_the_published_one() {
        assert!(method_names().iter().any(|name| BATCH == format!("/{name}")));
    }
}
