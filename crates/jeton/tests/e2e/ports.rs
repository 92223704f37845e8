//! The adapters hold the contracts that the ports in memory hold, at both tenants of the sandbox.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use jeton_authority::{AuthorityClient, Discovery, Ports, Shape, discover};
use jeton_core::{
    Authority, Clock, Credential, CredentialKind, CredentialState, Directory, KeyKind, Registrar,
    SharedDirectory, SystemClock, Uid, profile::IssuedAt,
};
use jeton_keys::{Keys, KeysSettings};
use jeton_lifecycle::{
    IdentityStore, KeyRequest, KeyRing, SecretId, SecretKind, Write,
    testing::{
        FakeKeyRing, FakeRegistry, MemoryIdentityStore, authority, client_registry_contract,
        key_ring_contract,
    },
};
use serde_json::json;

use crate::support::Sandbox;

struct World {
    sandbox: Sandbox,
    store: Arc<MemoryIdentityStore>,
    keys: Keys,
    clock: Arc<dyn Clock>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(&folder.path().join("sandbox"));
        let (store, clock): (_, Arc<dyn Clock>) =
            (Arc::new(MemoryIdentityStore::default()), Arc::new(SystemClock));
        let keys = Keys::start(KeysSettings::default(), store.clone(), Arc::clone(&clock)).unwrap();
        Self { sandbox, store, keys, clock, _folder: folder }
    }

    async fn authority(&self, shape: Shape, registrar: Registrar, uid: Uid) -> Authority {
        let (url, graph) = match shape {
            Shape::Entra => {
                (self.sandbox.text("/entra/authority"), Some(self.sandbox.text("/entra/graph").to_owned()))
            }
            Shape::Oidc => (self.sandbox.text("/oidc/issuer"), None),
        };
        let ca_file = Some(self.sandbox.text("/ca_file").to_owned());
        let wanted =
            Discovery { shape, url: url.to_owned(), ca_file: ca_file.clone(), graph, overrides: None };
        let profile = discover(&wanted).await.unwrap();
        Authority { profile: Arc::new(profile), ca_file, registrar, ..authority("tenant", uid, true) }
    }

    fn client(&self, authority: &Authority) -> AuthorityClient {
        let mut directory = Directory::default();
        directory.put_authority(Arc::new(authority.clone()));
        AuthorityClient::new(Ports {
            directory: SharedDirectory::new(directory),
            assertions: Arc::new(self.keys.clone()),
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
        })
    }

    /// Registers the registrar, as an administrator does.
    async fn registrar(&self, owner: Uid) -> Registrar {
        let now = self.clock.now().wall;
        let (subject, valid_for) = ("registrar".into(), Duration::from_secs(86_400));
        let request = KeyRequest {
            kind: KeyKind::Rsa2048,
            subject,
            not_before: now - Duration::from_secs(60),
            valid_for,
        };
        let key = self.keys.make(request).await.unwrap();
        let sandbox = &self.sandbox;
        let credential =
            json!({"type": "AsymmetricX509Cert", "usage": "Verify", "key": &*key.facts.certificate});
        assert!(STANDARD.decode(&*key.facts.certificate).is_ok());
        let made = sandbox
            .graph(
                Method::POST,
                "/applications",
                json!({"displayName": "registrar", "keyCredentials": [credential]}),
            )
            .await;
        let client_id: Arc<str> = made["appId"].as_str().unwrap().into();
        let principal =
            sandbox.graph(Method::POST, "/servicePrincipals", json!({"appId": &*client_id})).await;
        let graph = sandbox
            .graph(
                Method::GET,
                "/servicePrincipals(appId='00000003-0000-0000-c000-000000000000')",
                json!(null),
            )
            .await;
        let role = graph["appRoles"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["value"] == "Application.ReadWrite.OwnedBy")
            .unwrap();
        let grant =
            json!({"principalId": principal["id"], "resourceId": graph["id"], "appRoleId": role["id"]});
        let path = format!("/servicePrincipals/{}/appRoleAssignedTo", graph["id"].as_str().unwrap());
        sandbox.graph(Method::POST, &path, grant).await;
        let uid = Uid::new(now, [77; 10]);
        let id = SecretId { owner, subject: uid, kind: SecretKind::PrivateKey };
        self.store.commit(vec![Write::Secret(id, key.private)]).await.unwrap();
        let (kind, state) = (CredentialKind::Certificate(key.facts), CredentialState::Current);
        let credential = Credential { uid, kind, state, remote_id: None, created_at: now };
        Registrar::Certificate { client_id, credential: Box::new(credential) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_memory_holds_the_contracts() {
    let now = SystemClock.now().wall;
    let store = MemoryIdentityStore::default();
    for can_look_up in [true, false] {
        let authority = authority("tenant", Uid::new(now, [1; 10]), can_look_up);
        key_ring_contract(&FakeKeyRing, &authority, now).await;
        client_registry_contract(&FakeRegistry::new(store.clone()), &FakeKeyRing, &store, &authority, now)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entra_shaped_tenant_holds_the_contracts_though_changes_spread_slowly() {
    let world = World::new();
    let (uid, now) = (Uid::new(world.clock.now().wall, [1; 10]), world.clock.now().wall);
    let registrar = world.registrar(uid).await;
    let authority = world.authority(Shape::Entra, registrar, uid).await;
    world.sandbox.settings(json!({"propagation_delay_seconds": 0.3})).await;
    key_ring_contract(&world.keys, &authority, now).await;
    client_registry_contract(&world.client(&authority), &world.keys, &*world.store, &authority, now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oidc_shaped_tenant_holds_the_contracts() {
    let world = World::new();
    let (uid, now) = (Uid::new(world.clock.now().wall, [2; 10]), world.clock.now().wall);
    let credential = Uid::new(now, [78; 10]);
    let id = SecretId { owner: uid, subject: credential, kind: SecretKind::InitialAccessToken };
    let token = world.sandbox.text("/initial_access_token").as_bytes().to_vec();
    world.store.commit(vec![Write::Secret(id, token.into())]).await.unwrap();
    let authority = world.authority(Shape::Oidc, Registrar::InitialAccessToken { credential }, uid).await;
    key_ring_contract(&world.keys, &authority, now).await;
    client_registry_contract(&world.client(&authority), &world.keys, &*world.store, &authority, now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_clock_helps_an_assertion_is_signed_once_more_and_the_error_names_the_clocks() {
    let world = World::new();
    let uid = Uid::new(world.clock.now().wall, [1; 10]);
    let registrar = world.registrar(uid).await;
    let Registrar::Certificate { client_id, .. } = &registrar else { unreachable!() };
    let client_id = client_id.to_string();
    let mut authority = world.authority(Shape::Entra, registrar, uid).await;
    // Signed as if two hours ago, whatever the authority's clock says.
    let mut profile = authority.profile.as_ref().clone();
    profile.assertion.issued_at = IssuedAt::SecondsAgo(7_200);
    authority.profile = Arc::new(profile);
    world.sandbox.settings(json!({"clock_offset_seconds": 1_200})).await;
    let client = world.client(&authority);
    let proved = client.test(&authority).await.pop().unwrap();
    assert!(!proved.ok && proved.detail.contains("AADSTS700024"), "{proved:?}");
    assert!(proved.detail.contains("check the clocks"), "{proved:?}");
    assert_eq!(world.sandbox.stats().await["by_client"][&client_id]["total"], 2, "one more, and no loop");
}
