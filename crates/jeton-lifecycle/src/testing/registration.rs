//! What every client registry and every key ring keeps: each call can be repeated, a key is usable from its registration to its
//! removal, and what is deleted proves nothing any more.

use std::{sync::Arc, time::Duration};

use jeton_core::{
    Authority, Credential, CredentialKind, CredentialState, Identity, IdentityKind, IdentityState, Registrar,
    Uid, Wall, profile::RegistrationStyle,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    ClientRegistry, IdentityStore, KeyError, KeyRequest, KeyRing, Registered, RegistryError,
    RegistryErrorClass, SecretId, SecretKind, Write,
};

const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Keys that are made: of the kind and validity that was asked for, and no two alike. What is no key is not imported.
pub async fn key_ring_contract(keys: &dyn KeyRing, authority: &Authority, now: Wall) {
    let request = || KeyRequest {
        kind: authority.profile.key,
        subject: "identities/contract".into(),
        not_before: now,
        valid_for: Duration::from_secs(86_400),
    };
    let (one, two) = (keys.make(request()).await.expect("a key"), keys.make(request()).await.expect("a key"));
    assert_eq!(one.facts.key, authority.profile.key);
    let (from, to) = (one.facts.not_before.as_secs(), one.facts.not_after.as_secs());
    assert_eq!((from, to - from), (now.as_secs(), 86_400));
    assert_ne!(one.facts.references, two.facts.references);
    assert_ne!(one.private.expose_secret(), two.private.expose_secret());
    let nonsense = keys.import("nonsense".into(), SecretString::from("nonsense"), now).await;
    assert!(matches!(nonsense, Err(KeyError::Invalid(_))), "{nonsense:?}");
}

/// A client's whole life. The store is where the registry finds the secrets.
pub async fn client_registry_contract(
    registry: &dyn ClientRegistry,
    keys: &dyn KeyRing,
    store: &dyn IdentityStore,
    authority: &Authority,
    now: Wall,
) {
    let world = World { keys, store, authority, now };
    let mut identity = world.identity();
    // Whatever the registrar is: there is nothing to ask for.
    let powerless = Authority { registrar: Registrar::None, ..authority.clone() };
    let gone = registry.delete(&powerless, &identity).await;
    assert_eq!(gone, Ok(()), "what was never registered is gone");
    let first = world.credential(&identity, 1).await;
    identity.credentials.push(first.clone());
    let registered = world.settled(|| registry.register(authority, &identity, &first)).await;
    world.remember(&mut identity, registered).await;
    assert!(identity.client_id.is_some(), "a registration tells the client id");
    if matches!(authority.profile.registration, RegistrationStyle::Graph { .. }) {
        let again = world.settled(|| registry.register(authority, &identity, &first)).await;
        assert_eq!(again.client_id, identity.client_id, "what can be looked up is not made twice");
    }
    world.settled(|| registry.verify(authority, &identity, &first)).await;
    set(&mut identity, first.uid, CredentialState::Current);

    let second = world.credential(&identity, 2).await;
    identity.credentials.push(second.clone());
    for _ in 0..2 {
        let added = world.settled(|| registry.add_key(authority, &identity, &second)).await;
        world.remember(&mut identity, added).await;
    }
    world.settled(|| registry.verify(authority, &identity, &first)).await;
    let second = identity.credential(second.uid).cloned().expect("it was pushed");
    world.settled(|| registry.verify(authority, &identity, &second)).await;

    set(&mut identity, first.uid, CredentialState::Overlap);
    set(&mut identity, second.uid, CredentialState::Current);
    let first = identity.credential(first.uid).cloned().expect("it was pushed");
    for _ in 0..2 {
        let removed = world.settled(|| registry.remove_key(authority, &identity, &first)).await;
        world.remember(&mut identity, removed).await;
    }
    identity.credentials.retain(|c| c.uid != first.uid);
    assert!(registry.verify(authority, &identity, &first).await.is_err(), "a removed key proves nothing");
    world.settled(|| registry.verify(authority, &identity, &second)).await;

    for _ in 0..2 {
        world.settled(|| registry.delete(authority, &identity)).await;
    }
    assert!(registry.verify(authority, &identity, &second).await.is_err(), "what is deleted proves nothing");
    if matches!(authority.profile.registration, RegistrationStyle::Dynamic { .. }) {
        lost_answer_contract(&world, registry).await;
    }
}

/// A change whose answer was lost took away what manages the client: it is told, and another client can be registered.
async fn lost_answer_contract(world: &World<'_>, registry: &dyn ClientRegistry) {
    let authority = world.authority;
    let mut identity = world.identity();
    let first = world.credential(&identity, 3).await;
    identity.credentials.push(first.clone());
    let registered = world.settled(|| registry.register(authority, &identity, &first)).await;
    world.remember(&mut identity, registered).await;
    set(&mut identity, first.uid, CredentialState::Current);
    let second = world.credential(&identity, 4).await;
    identity.credentials.push(second.clone());

    drop(world.settled(|| registry.add_key(authority, &identity, &second)).await);
    let class = |refused: Result<Registered, RegistryError>| refused.err().map(|e| e.class);
    let unasked = class(registry.add_key(authority, &identity, &second).await);
    assert_eq!(unasked, Some(RegistryErrorClass::Permanent), "somebody else took the client away");
    identity.registration.get_or_insert_default().in_doubt = true;
    let lost = class(registry.add_key(authority, &identity, &second).await);
    assert_eq!(lost, Some(RegistryErrorClass::Unmanageable));
    let lost = class(registry.remove_key(authority, &identity, &first).await);
    assert_eq!(lost, Some(RegistryErrorClass::Unmanageable));
    let kept = registry.delete(authority, &identity).await.err().map(|e| e.class);
    assert_eq!(
        kept,
        Some(RegistryErrorClass::Unmanageable),
        "a client that may be there is not said to be gone"
    );

    let before = identity.client_id.clone();
    let anew = world.settled(|| registry.register(authority, &identity, &second)).await;
    assert!(anew.client_id.is_some() && anew.client_id != before, "it is another client");
    identity.registration.get_or_insert_default().successor = anew.client_id.clone();
    world.settled(|| registry.verify(authority, &identity, &second)).await;
    world.remember(&mut identity, anew).await;
    world.settled(|| registry.delete(authority, &identity)).await;
}

struct World<'a> {
    keys: &'a dyn KeyRing,
    store: &'a dyn IdentityStore,
    authority: &'a Authority,
    now: Wall,
}

impl World<'_> {
    fn identity(&self) -> Identity {
        let mut random = *self.authority.uid.as_bytes();
        random[15] ^= 0xff;
        let mut tail = [0; 10];
        tail.copy_from_slice(&random[6..]);
        Identity {
            uid: Uid::new(self.now, tail),
            name: "identities/contract".parse().unwrap_or_else(|_| unreachable!("a test's name")),
            display_name: String::new(),
            labels: Default::default(),
            kind: IdentityKind::Created,
            workload: None,
            authority: self.authority.uid,
            state: IdentityState::Active,
            client_id: None,
            registration: None,
            credentials: vec![],
            operation: None,
            created_at: self.now,
            updated_at: self.now,
            version: 1,
        }
    }

    async fn credential(&self, identity: &Identity, n: u8) -> Credential {
        let request = KeyRequest {
            kind: self.authority.profile.key,
            subject: identity.name.to_string(),
            not_before: self.now - Duration::from_secs(300),
            valid_for: Duration::from_secs(86_400),
        };
        let made = self.keys.make(request).await.expect("a key");
        let uid = Uid::new(self.now, [n; 10]);
        let id = SecretId { owner: identity.uid, subject: uid, kind: SecretKind::PrivateKey };
        self.store.commit(vec![Write::Secret(id, made.private)]).await.expect("a secret is kept");
        Credential {
            uid,
            kind: CredentialKind::Certificate(made.facts),
            state: CredentialState::Pending,
            remote_id: None,
            created_at: self.now,
        }
    }

    /// What a registration left behind, as the lifecycle writes it down.
    async fn remember(&self, identity: &mut Identity, registered: Registered) {
        if let Some(client_id) = registered.client_id {
            identity.client_id = Some(client_id);
        }
        identity.registration = registered.registration.or(identity.registration.take());
        if let (Some(remote), Some(pending)) = (
            registered.remote_key_id,
            identity.credentials.iter_mut().find(|c| c.state == CredentialState::Pending),
        ) {
            pending.remote_id = Some(Arc::clone(&remote));
        }
        if let Some(token) = registered.registration_access_token {
            let (owner, kind) = (identity.uid, SecretKind::RegistrationAccessToken);
            let bytes = token.expose_secret().as_bytes().to_vec();
            let write = Write::Secret(SecretId { owner, subject: owner, kind }, bytes.into());
            self.store.commit(vec![write]).await.expect("a registration access token is kept");
        }
    }

    /// Until it is no transient failure any more: what was changed at an authority is not seen everywhere at once.
    async fn settled<'a, T>(
        &self,
        call: impl Fn() -> jeton_core::BoxFuture<'a, Result<T, RegistryError>>,
    ) -> T {
        for _ in 0..TRIES {
            match call().await {
                Ok(done) => return done,
                Err(e) if e.class == RegistryErrorClass::Transient => tokio::time::sleep(PAUSE).await,
                Err(e) => panic!("{:?}: {e}", e.class),
            }
        }
        panic!("still a transient failure after {TRIES} tries")
    }
}

fn set(identity: &mut Identity, uid: Uid, state: CredentialState) {
    identity.credentials.iter_mut().filter(|c| c.uid == uid).for_each(|c| c.state = state);
}
