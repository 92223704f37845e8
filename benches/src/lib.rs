//! A broker's hot path on in-memory ports, with as many slots as a benchmark wants.
#![allow(clippy::expect_used, reason = "a benchmark ends where it expected otherwise")]

use std::{sync::Arc, time::Duration};

use jeton_access::{Access, AccessSettings, AccessStore, AccessWrite, testing::MemoryAccessStore};
use jeton_core::{
    AssignmentName, AssignmentScope, Clock, Directory, Identity, IdentityKind, IdentityState, Member,
    Principal, Role, RoleAssignment, SharedDirectory, SystemClock, TargetRequest, TargetRule, TokenKey, Uid,
    Wall,
};
use jeton_engine::{
    Engine, EngineSettings, EngineTasks, Kept, Ports, StoredToken, TokenSource, TokenStore, TokenStoreError,
    TokenWrite, testing::issued,
};
use jeton_proto::v1;
use jeton_server::grpc::{GetTokenShortcut, encode_token};
use prost::Message;

/// Scopes of each identity.
const SCOPES: usize = 1_000;

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
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    _tasks: EngineTasks,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("slots", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Asks nobody: every token is there at the start.
struct Nobody;

impl TokenSource for Nobody {
    fn prepare(&self, _: &TokenKey, _: Duration) {}

    fn issue(
        &self,
        key: TokenKey,
    ) -> jeton_core::BoxFuture<'static, Result<jeton_core::IssuedToken, jeton_engine::IssueError>> {
        Box::pin(async move { Ok(issued(&key, 1, Duration::from_secs(86_400))) })
    }
}

/// What was kept before the start.
struct Before(std::sync::Mutex<Vec<StoredToken>>);

impl TokenStore for Before {
    fn load(&self) -> jeton_core::BoxFuture<'_, Result<Kept, TokenStoreError>> {
        let tokens = std::mem::take(&mut *self.0.lock().expect("nobody panics"));
        Box::pin(async move { Ok(Kept { tokens, ..Kept::default() }) })
    }

    fn write(&self, _: Vec<TokenWrite>) -> jeton_core::BoxFuture<'_, Result<(), TokenStoreError>> {
        Box::pin(async { Ok(()) })
    }
}

fn uid(n: usize) -> Uid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(n as u64).to_be_bytes());
    Uid::new(Wall::from_secs(1), random)
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

impl World {
    /// With this many slots, all of them fresh. One role assignment reaches all identities.
    pub fn new(slots: usize, runtime: &tokio::runtime::Runtime) -> Self {
        runtime.block_on(Self::start(slots))
    }

    async fn start(slots: usize) -> Self {
        let principal = Principal::loopback_dev();
        let authority = jeton_lifecycle::testing::authority("a", uid(9_999_999), true);
        let mut directory = Directory::default();
        let identities = slots.div_ceil(SCOPES);
        (0..identities).for_each(|n| directory.put_identity(Arc::new(identity(n, authority.uid))));
        directory.put_authority(Arc::new(authority));
        let directory = SharedDirectory::new(directory);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let access = access(&principal, &directory, &clock).await;
        let (mut requests, mut keys, mut tokens) = (vec![], vec![], vec![]);
        let now = clock.now().wall;
        for n in 0..slots {
            let (name, scope) =
                (format!("identities/load.n{}", n / SCOPES), format!("orders.read.s{}", n % SCOPES));
            let target = TargetRequest { scopes: vec![scope.clone()], resources: vec![] };
            let name_ = name.parse().expect("a name");
            let key = access.allowed(&principal, Some(&name_), &target, None).expect("allowed").key;
            let request = v1::GetTokenRequest { identity: name, scopes: vec![scope], ..Default::default() };
            requests.push(request.encode_to_vec().into());
            tokens.push(StoredToken {
                key: key.clone(),
                token: issued(&key, 1, Duration::from_secs(86_400)),
                issued_at: now,
                refresh_at: now + Duration::from_secs(43_200),
                last_used: now,
            });
            keys.push(key);
        }
        let settings = EngineSettings {
            max_entries: 2 * slots as u64 + 1_000,
            max_bytes: (slots as u64 + 1_000) * 16_384,
            ..EngineSettings::default()
        };
        let most = settings.max_entries;
        let ports = Ports {
            source: Arc::new(Nobody),
            store: Arc::new(Before(tokens.into())),
            clock: Arc::clone(&clock),
            directory,
            encoder: Arc::new(encode_token),
            seed: 1,
        };
        let (engine, tasks) = Engine::start(settings, ports).await.expect("the engine starts");
        assert_eq!(engine.stats().slots, slots, "every slot is taken over");
        let shortcut =
            Arc::new(GetTokenShortcut::new(engine.clone(), access.clone(), Arc::clone(&clock), most));
        Self { principal, requests, keys, shortcut, access, engine, clock, _tasks: tasks }
    }

    /// One decision and one look-up; the answer's length.
    pub fn hit(&self, n: usize, now: jeton_core::Now) -> usize {
        let answer = self.shortcut.serve(&self.principal, &self.requests[n], now, |answer, _| answer.len());
        answer.expect("a hit")
    }
}

async fn access(principal: &Principal, directory: &SharedDirectory, clock: &Arc<dyn Clock>) -> Access {
    let store = MemoryAccessStore::default();
    let assignment = RoleAssignment {
        uid: uid(1_000_000),
        name: AssignmentName::from_id("load").expect("a name"),
        member: Member::Principal(principal.clone()),
        role: Role::TokenUser,
        scope: AssignmentScope::Group("load.".into()),
        targets: TargetRule::Any,
        keep_warm: false,
        expires_at: None,
        max_token_lifetime: None,
        created_at: Wall::default(),
    };
    store.commit(vec![AccessWrite::Put(Box::new(assignment))]).await.expect("kept");
    let settings = AccessSettings::default();
    let started = Access::start(&settings, Arc::new(store), Arc::clone(clock), directory.clone(), 1).await;
    started.expect("access starts")
}
