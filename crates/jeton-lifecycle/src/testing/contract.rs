//! What every identity store keeps, in memory or on disk.

use jeton_core::{Identity, IdentityKind, IdentityState, Operation, OperationKind, Uid, Wall, Workload};
use secrecy::ExposeSecret;

use super::authority;
use crate::{IdentityStore, Orphan, Recorded, SecretId, SecretKind, StoreError, Write};

fn uid(n: u8) -> Uid {
    Uid::new(Wall::from_secs(1_767_225_600), [n; 10])
}

fn identity(n: u8, name: &str, version: u64) -> Identity {
    Identity {
        uid: uid(n),
        name: name.parse().unwrap_or_else(|_| unreachable!("a test's name")),
        display_name: format!("version {version}"),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority: uid(200),
        state: IdentityState::Provisioning,
        client_id: None,
        registration: None,
        credentials: vec![],
        operation: Some(Operation::new(OperationKind::Provision, Wall::from_secs(1))),
        created_at: Wall::from_secs(1),
        updated_at: Wall::from_secs(1),
        version,
    }
}

fn workload(n: u8, name: &str, principals: &[&str]) -> Workload {
    Workload {
        uid: uid(n),
        name: name.parse().unwrap_or_else(|_| unreachable!("a test's name")),
        display_name: String::new(),
        labels: Default::default(),
        principals: principals.iter().filter_map(|p| p.parse().ok()).collect(),
        system_identity: None,
        secrets: vec![],
        created_at: Wall::from_secs(1),
        updated_at: Wall::from_secs(1),
        version: 1,
    }
}

fn put(n: u8, name: &str, version: u64) -> Write {
    Write::Identity(Box::new(identity(n, name, version)))
}

/// Goes through the contract. `open` is called again on the same place.
pub async fn identity_store_contract<S, F>(open: F)
where
    S: IdentityStore,
    F: AsyncFn() -> S,
{
    let store = open().await;
    let empty = store.load().await.expect("an empty store loads");
    assert!(empty.identities.is_empty() && empty.orphans.is_empty());

    let key = SecretId { owner: uid(1), subject: uid(9), kind: SecretKind::PrivateKey };
    let entra = Write::Authority(Box::new(authority("entra", uid(200), true)));
    let first = vec![entra, put(1, "identities/a", 1), Write::Secret(key, b"first".to_vec().into())];
    store.commit(first).await.expect("a first commit");

    // A version must follow the stored one.
    let stale = store.commit(vec![put(1, "identities/a", 1)]).await;
    assert_eq!(stale, Err(StoreError::Conflict(uid(1))));
    let ahead = store.commit(vec![put(1, "identities/a", 3)]).await;
    assert_eq!(ahead, Err(StoreError::Conflict(uid(1))));
    store.commit(vec![put(1, "identities/a", 2)]).await.expect("the next version");

    // All writes or none.
    let secret = Write::Secret(key, b"never".to_vec().into());
    let torn = store.commit(vec![secret, put(2, "identities/b", 1), put(1, "identities/a", 2)]).await;
    assert_eq!(torn, Err(StoreError::Conflict(uid(1))));
    assert_eq!(store.load().await.expect("it loads").identities.len(), 1);
    let opened = store.secret(key).await.expect("it opens").expect("it is there");
    assert_eq!(opened.expose_secret(), b"first");

    // Names and principals are taken once.
    let twice = store.commit(vec![put(2, "identities/a", 1)]).await;
    assert!(matches!(twice, Err(StoreError::Exists(_))), "{twice:?}");
    let one = workload(3, "workloads/one", &["unix://n/uid/1"]);
    store.commit(vec![Write::Workload(Box::new(one))]).await.expect("a workload");
    let two = workload(4, "workloads/two", &["unix://n/uid/1"]);
    let shared = store.commit(vec![Write::Workload(Box::new(two))]).await;
    assert!(matches!(shared, Err(StoreError::Exists(_))), "{shared:?}");

    let orphan = Orphan {
        uid: uid(5),
        authority: uid(200),
        identity: uid(1),
        client_name: "jeton-x".into(),
        client_id: None,
        repeated: 0,
        at: Wall::from_secs(2),
    };
    let recorded = Recorded {
        request_id: "r1".into(),
        fingerprint: "create:1".into(),
        resource: uid(1),
        at: Wall::from_secs(1_767_225_600),
    };
    let notes = vec![Write::Orphan(orphan.clone()), Write::Recorded(recorded.clone())];
    store.commit(notes).await.expect("an orphan and a request");
    drop(store);

    // Everything is there after a reopening.
    let store = open().await;
    let kept = store.load().await.expect("it loads");
    assert_eq!(kept.identities, [identity(1, "identities/a", 2)]);
    assert_eq!(kept.authorities, [authority("entra", uid(200), true)]);
    assert_eq!(kept.workloads, [workload(3, "workloads/one", &["unix://n/uid/1"])]);
    assert_eq!(kept.orphans, [orphan]);
    assert_eq!(store.recorded("r1".into()).await, Ok(Some(recorded)));
    assert_eq!(store.recorded("r2".into()).await, Ok(None));
    let opened = store.secret(key).await.expect("it opens").expect("it is there");
    assert_eq!(opened.expose_secret(), b"first");

    // A secret is replaced, and goes with its owner.
    store.commit(vec![Write::Secret(key, b"second".to_vec().into())]).await.expect("another secret");
    let opened = store.secret(key).await.expect("it opens").expect("it is there");
    assert_eq!(opened.expose_secret(), b"second");
    let gone =
        vec![Write::RemoveIdentity(uid(1)), Write::RemoveOrphan(uid(5)), Write::RemoveWorkload(uid(3))];
    store.commit(gone).await.expect("a removal");
    assert!(store.secret(key).await.expect("it answers").is_none());
    let again = vec![put(6, "identities/a", 1)];
    store.commit(again).await.expect("a name that is free again");
    let principal = workload(4, "workloads/two", &["unix://n/uid/1"]);
    store.commit(vec![Write::Workload(Box::new(principal))]).await.expect("a principal that is free again");
    let left = store.load().await.expect("it loads");
    assert!(left.orphans.is_empty() && left.identities.len() == 1 && left.workloads.len() == 1);
}
