//! A broker's hot path on in-memory ports, with as many slots as a benchmark wants.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark ends where it expected otherwise")]

mod clock;
pub mod figures;
mod ports;
mod rpc;
mod signing;
mod stock;
mod telling;
mod tls;

use std::{sync::Arc, time::Duration};

use jeton_access::{
    Access, AccessSettings, AccessStore, AccessWrite, CreateAssignment, Tally, TallyBounds, TallyPorts,
    testing::{MemoryAccessStore, MemoryUseStore},
};
use jeton_core::{
    AssignmentName, AssignmentScope, Authority, Clock, Directory, Identity, IdentityKind, IdentityState,
    Member, Now, Principal, Role, RoleAssignment, SharedDirectory, TargetRequest, TargetRule, TokenKey, Uid,
    Wall, audit::testing::MemoryTrail, profile::AuthorityLimits,
};
use jeton_engine::{Engine, EngineSettings, EngineTasks, Ports, StoredToken, TokenSource};
use jeton_proto::v1;
use jeton_server::grpc::{GetTokenShortcut, encode_token};
use prost::Message;
use tokio::runtime::Runtime;

pub use clock::ShiftedClock;
pub use ports::{AtOnce, Before, token};
pub use rpc::{Peer, open_counting_door, open_door, open_tls_door};
pub use signing::{Material, Round, Signing};
pub use stock::open_stock;
pub use telling::Telling;
pub use tls::{CLIENT, sides};

/// A token's bytes, where they matter.
pub const TOKEN_BYTES: usize = 1_600;
/// How long tokens live that no benchmark refreshes.
pub const DAY: Duration = Duration::from_secs(86_400);

/// Whether the program's arguments want what it measures beside criterion: those who ask for other benchmarks by name, or for tests, do
/// not.
pub fn asked_for(name: &str) -> bool {
    let names: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let named = names.is_empty() || names.iter().any(|asked| name.contains(asked.as_str()));
    named && std::env::args().any(|argument| argument == "--bench")
}

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Slots, all of them fresh at the start.
    pub slots: usize,
    /// Scopes of each identity.
    pub scopes: usize,
    /// Bytes of each access token; shorter ones are what they say.
    pub token_bytes: usize,
    /// How long tokens live.
    pub lifetime: Duration,
}

/// Everything that answers GetToken from memory.
pub struct World {
    /// Who asks.
    pub principal: Principal,
    /// Encoded requests, one for each slot.
    pub requests: Vec<Box<[u8]>>,
    /// What each is cached under.
    pub keys: Vec<TokenKey>,
    /// The way that is measured.
    pub shortcut: Arc<GetTokenShortcut>,
    /// Decisions alone.
    pub access: Access,
    /// Slots alone.
    pub engine: Engine,
    /// What is handed out.
    pub tally: Tally,
    /// What the engine goes by.
    pub clock: Arc<dyn Clock>,
    _tasks: EngineTasks,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("slots", &self.keys.len()).finish_non_exhaustive()
    }
}

impl World {
    /// With short tokens that nobody refreshes, and a thousand scopes of each identity.
    pub fn new(slots: usize, runtime: &Runtime) -> Self {
        let size = Size { slots, scopes: 1_000, token_bytes: 0, lifetime: DAY };
        let settings = EngineSettings::default();
        let source = Arc::new(AtOnce::new(size));
        Self::with(size, settings, source, Before::default(), Arc::new(jeton_core::SystemClock), runtime)
    }

    /// One role assignment reaches all identities. The settings' caps are raised to what the slots need.
    pub fn with(
        size: Size,
        settings: EngineSettings,
        source: Arc<dyn TokenSource>,
        store: Before,
        clock: Arc<dyn Clock>,
        runtime: &Runtime,
    ) -> Self {
        runtime.block_on(Self::start(size, settings, source, store, clock))
    }

    async fn start(
        size: Size,
        settings: EngineSettings,
        source: Arc<dyn TokenSource>,
        store: Before,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let principal = Principal::loopback_dev();
        let directory = directory(size);
        let access = access(&principal, &directory, &clock).await;
        let (mut requests, mut keys, mut tokens) = (vec![], vec![], vec![]);
        let now = clock.now().wall;
        for n in 0..size.slots {
            let (name, scope) = names(n, size);
            let target = TargetRequest { scopes: vec![scope.clone()], resources: vec![] };
            let named = name.parse().expect("a name");
            let key = access.allowed(&principal, Some(&named), &target, None).expect("allowed").key;
            let request = v1::GetTokenRequest { identity: name, scopes: vec![scope], ..Default::default() };
            requests.push(request.encode_to_vec().into());
            // Evenly over what is drawn usually.
            let due = 0.4 + 0.2 * n as f64 / size.slots as f64;
            tokens.push(StoredToken {
                key: key.clone(),
                token: token(&key, 1, size),
                issued_at: now,
                refresh_at: now + size.lifetime.mul_f64(due),
                last_used: now,
                earlier_until: None,
            });
            keys.push(key);
        }
        let most = 2 * size.slots as u64 + 1_000;
        let max_bytes = most * (4_096 + size.token_bytes as u64);
        let forced_refreshes_per_minute = u32::MAX;
        let settings =
            EngineSettings { max_entries: most, max_bytes, forced_refreshes_per_minute, ..settings };
        let ports = Ports {
            source,
            store: Arc::new(store.with(tokens)),
            clock: Arc::clone(&clock),
            directory,
            encoder: Arc::new(encode_token),
            seed: 1,
            tracer: Default::default(),
        };
        let (engine, tasks) = Engine::start(settings, ports).await.expect("the engine starts");
        assert_eq!(engine.stats().slots, size.slots, "every slot is taken over");
        let tally = tally(&clock, most);
        let shortcut = Arc::new(GetTokenShortcut::new(
            engine.clone(),
            access.clone(),
            tally.clone(),
            Arc::clone(&clock),
            most,
        ));
        Self { principal, requests, keys, shortcut, access, engine, tally, clock, _tasks: tasks }
    }

    /// One decision and one look-up; the answer's length.
    pub fn hit(&self, n: usize, now: Now) -> usize {
        let answer = self.shortcut.serve(&self.principal, &self.requests[n], now, |answer, _| answer.len());
        answer.expect("a hit")
    }

    /// Makes a role assignment for this member: all identities, or one that is not asked for.
    pub async fn assign(&self, member: String, all: bool) {
        let identity = if all { "identities/load.*" } else { "identities/other.*" };
        let wanted = CreateAssignment {
            member,
            identity: identity.into(),
            targets: vec!["*".into()],
            ..CreateAssignment::default()
        };
        self.access.create_assignment(wanted).await.expect("a role assignment");
    }

    /// Keeps every token fresh although nobody asks.
    pub fn pin_all(&self) {
        let until = Wall::from_millis(i64::MAX);
        self.keys.iter().for_each(|key| self.engine.pin(key, &self.principal, until).expect("it is there"));
    }
}

/// The identity and the scope of a slot.
pub fn names(n: usize, size: Size) -> (String, String) {
    (format!("identities/load.n{}", n / size.scopes), format!("orders.read.s{}", n % size.scopes))
}

/// The uid of an identity, by its number.
pub fn uid(n: usize) -> Uid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(n as u64).to_be_bytes());
    Uid::new(Wall::from_secs(1), random)
}

/// An authority whose budget bounds nothing.
fn authority() -> Authority {
    let mut authority = jeton_lifecycle::testing::authority("a", uid(usize::MAX), true);
    let mut profile = authority.profile.as_ref().clone();
    profile.limits = AuthorityLimits {
        max_concurrent: 1_000_000,
        requests_per_second: 10_000_000,
        warm_up_per_second: 10_000_000,
        ..profile.limits
    };
    authority.profile = Arc::new(profile);
    authority
}

fn directory(size: Size) -> SharedDirectory {
    let (mut directory, authority) = (Directory::default(), authority());
    let identities = size.slots.div_ceil(size.scopes);
    (0..identities).for_each(|n| directory.put_identity(Arc::new(identity(n, authority.uid))));
    directory.put_authority(Arc::new(authority));
    SharedDirectory::new(directory)
}

fn identity(n: usize, authority: Uid) -> Identity {
    Identity {
        uid: uid(n),
        name: format!("identities/load.n{n}").parse().expect("a name"),
        display_name: String::new(),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority,
        state: IdentityState::Active,
        client_id: Some(format!("client-{n}").into()),
        registration: None,
        credentials: vec![],
        operation: None,
        created_at: Wall::default(),
        updated_at: Wall::default(),
        version: 1,
    }
}

async fn access(principal: &Principal, directory: &SharedDirectory, clock: &Arc<dyn Clock>) -> Access {
    let store = MemoryAccessStore::default();
    let assignment = RoleAssignment {
        uid: uid(usize::MAX - 1),
        name: AssignmentName::from_id("load").expect("a name"),
        member: Member::Principal(principal.clone()),
        role: Role::TokenUser,
        scope: AssignmentScope::Group("load.".into()),
        targets: TargetRule::Any,
        keep_warm: false,
        expires_at: None,
        max_token_lifetime: None,
        limits: Default::default(),
        created_at: Wall::default(),
    };
    store.commit(vec![AccessWrite::Put(Box::new(assignment))]).await.expect("kept");
    let settings = AccessSettings::default();
    let started = Access::start(&settings, Arc::new(store), Arc::clone(clock), directory.clone(), 1).await;
    started.expect("access starts")
}

/// Counts as in a broker. Nobody writes down what it counts, so that hits alone are measured.
fn tally(clock: &Arc<dyn Clock>, most: u64) -> Tally {
    let ports = TallyPorts {
        trail: Arc::new(MemoryTrail::default()),
        store: Arc::new(MemoryUseStore::default()),
        clock: Arc::clone(clock),
        directory: SharedDirectory::default(),
    };
    let batch = Duration::from_secs(1);
    let most_uses = usize::try_from(most).unwrap_or(usize::MAX);
    Tally::new(ports, TallyBounds { batch, refusals_per_minute: 60, most_uses })
}
