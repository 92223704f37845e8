//! What the lifecycle tells reaches the keys: nothing that was signed ahead, and no parsed key, outlives its credential.

use jeton_core::{
    AssertionRequest, Credential, CredentialKind, CredentialState, IdentityKind, IdentityState, KeyKind, Wall,
};
use jeton_keys::KeysSettings;
use jeton_lifecycle::{
    AuthorityPatch, IdentityStore, KeyRequest, KeyRing, RegistrarMaterial, SecretId, SecretKind, Write,
    testing,
};
use jeton_store::SealingKey;
use tempfile::TempDir;

use super::*;

/// How long a signature or an event may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One identity at one authority, and another authority without any.
pub(super) struct World {
    pub(super) running: Running,
    identity: Identity,
    authorities: [Authority; 2],
    _folder: TempDir,
}

fn uid(n: u8) -> Uid {
    Uid::new(Wall::from_secs(1), [n; 10])
}

/// A credential of an owner, whose key is in the store.
async fn credential(store: &Store, keys: &Keys, owner: Uid, n: u8) -> Credential {
    let (kind, now) = (KeyKind::P256, SystemClock.now().wall);
    let request = KeyRequest {
        kind,
        subject: "test".into(),
        not_before: now,
        valid_for: Duration::from_secs(86_400 * 90),
    };
    let made = keys.make(request).await.unwrap();
    let id = SecretId { owner, subject: uid(n), kind: SecretKind::PrivateKey };
    store.commit(vec![Write::Secret(id, made.private)]).await.unwrap();
    let (kind, state) = (CredentialKind::Certificate(made.facts), CredentialState::Current);
    Credential { uid: uid(n), kind, state, remote_id: None, created_at: now }
}

impl World {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&folder.path().join("data")).unwrap();
        let key = folder.path().join("sealing.key");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::open(data_dir.path(), SealingKey::create(&key).unwrap(), Arc::clone(&clock))
            .await
            .unwrap();
        let keys = Keys::start(KeysSettings::default(), Arc::new(store.clone()), clock).unwrap();
        let mut authorities = [testing::authority("a", uid(1), true), testing::authority("b", uid(2), true)];
        for (authority, n) in authorities.iter_mut().zip([11, 12]) {
            let credential = Box::new(credential(&store, &keys, authority.uid, n).await);
            authority.registrar = Registrar::Certificate { client_id: "registrar".into(), credential };
            store.commit(vec![Write::Authority(Box::new(authority.clone()))]).await.unwrap();
        }
        let identity = Identity {
            uid: uid(3),
            name: "identities/billing".parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            kind: IdentityKind::Attached,
            workload: None,
            authority: uid(1),
            state: IdentityState::Active,
            client_id: Some("billing".into()),
            registration: None,
            credentials: vec![credential(&store, &keys, uid(3), 13).await],
            operation: None,
            created_at: Wall::from_secs(1),
            updated_at: Wall::from_secs(1),
            version: 1,
        };
        store.commit(vec![Write::Identity(Box::new(identity.clone()))]).await.unwrap();
        store.close().await;
        let sealing = SealingKey::load(&key).unwrap();
        let running =
            Running::start(&Settings::default(), &data_dir, sealing, crate::log::Exporting::default())
                .await
                .unwrap();
        Self { running, identity, authorities, _folder: folder }
    }

    fn registrar(&self, n: usize) -> (Uid, &Credential) {
        let Registrar::Certificate { credential, .. } = &self.authorities[n].registrar else {
            unreachable!()
        };
        (self.authorities[n].uid, credential)
    }

    /// Assertions signed ahead, and parsed keys.
    async fn reaches(&self, expected: (usize, u64)) {
        let start = Instant::now();
        loop {
            let stats = self.running.keys.stats();
            if (stats.presigned, stats.kept) == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn signs_ahead(&self, (owner, credential): (Uid, &Credential)) {
        let request = AssertionRequest {
            owner,
            credential: credential.uid,
            references: credential.certificate().unwrap().references.clone(),
            client_id: "client".into(),
            profile: Arc::new(self.authorities[0].profile.assertion.clone()),
            skew_millis: 0,
        };
        self.running.keys.prepare(&request, Duration::ZERO);
        self.reaches((1, 1)).await;
    }
}

#[tokio::test]
async fn whatever_ends_the_use_of_a_credential_empties_the_pool_and_drops_its_key() {
    let world = World::start().await;
    let (identity, current) = (world.identity.uid, &world.identity.credentials[0]);
    let (tell, told) = mpsc::unbounded_channel();
    let passing = tokio::spawn(pass_on(told, world.running.broker.clone(), world.running.keys.clone()));
    let (old, authority) = (current.uid, world.identity.authority);
    for (owner, event) in [
        ((identity, current), LifecycleEvent::Deactivated(identity)),
        ((identity, current), LifecycleEvent::Switched { identity, old }),
        ((identity, current), LifecycleEvent::CredentialRemoved(old)),
        ((identity, current), LifecycleEvent::AuthorityChanged(authority)),
        (world.registrar(0), LifecycleEvent::AuthorityChanged(authority)),
    ] {
        world.signs_ahead(owner).await;
        tell.send(event).unwrap();
        world.reaches((0, 0)).await;
    }
    passing.abort();
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_registrar_that_is_replaced_or_whose_authority_is_deleted_leaves_nothing_behind() {
    let world = World::start().await;
    let lifecycle = world.running.broker.lifecycle.clone();
    world.signs_ahead(world.registrar(0)).await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let registrar = RegistrarMaterial::Certificate {
        client_id: "another".into(),
        certificate_pem: rcgen::CertificateParams::default().self_signed(&key).unwrap().pem(),
        private_key_pem: key.serialize_pem().into(),
    };
    let patch = AuthorityPatch { registrar: Some(registrar), ..AuthorityPatch::default() };
    lifecycle.update_authority(&world.authorities[0].name, patch, "").await.unwrap();
    world.reaches((0, 0)).await;
    world.signs_ahead(world.registrar(1)).await;
    lifecycle.delete_authority(&world.authorities[1].name, "").await.unwrap();
    world.reaches((0, 0)).await;
    world.running.shutdown().await;
}
