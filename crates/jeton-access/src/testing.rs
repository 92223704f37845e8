//! The ports in memory, and the contracts that those who fill them keep.

mod issuers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jeton_core::{
    AssignmentName, AssignmentScope, BoxFuture, Member, Principal, Role, RoleAssignment, TargetRule, Uid,
    Wall,
};

use crate::{
    AccessRecorded, AccessStore, AccessStoreError, AccessWrite, MOST_USES_TOLD, UseRecord, UseStore,
};

pub use issuers::{MemoryKeySet, MemoryTokenReview, key_set_source_contract};

/// Keeps assignments in memory. Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct MemoryAccessStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    assignments: HashMap<Uid, RoleAssignment>,
    recorded: HashMap<String, AccessRecorded>,
}

impl AccessStore for MemoryAccessStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<RoleAssignment>, AccessStoreError>> {
        let all = locked(&self.0).assignments.values().cloned().collect();
        Box::pin(async move { Ok(all) })
    }

    fn commit(&self, writes: Vec<AccessWrite>) -> BoxFuture<'_, Result<(), AccessStoreError>> {
        let mut state = locked(&self.0);
        for write in writes {
            match write {
                AccessWrite::Put(assignment) => drop(state.assignments.insert(assignment.uid, *assignment)),
                AccessWrite::Remove(uid) => drop(state.assignments.remove(&uid)),
                AccessWrite::Recorded(recorded) => {
                    drop(state.recorded.insert(recorded.request_id.clone(), recorded))
                }
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn recorded(
        &self,
        request_id: String,
    ) -> BoxFuture<'_, Result<Option<AccessRecorded>, AccessStoreError>> {
        let found = locked(&self.0).recorded.get(&request_id).cloned();
        Box::pin(async move { Ok(found) })
    }
}

/// Keeps uses in memory. Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct MemoryUseStore(Arc<Mutex<Vec<UseRecord>>>);

impl UseStore for MemoryUseStore {
    fn merge_uses(&self, uses: Vec<UseRecord>, most: usize) -> BoxFuture<'_, Result<(), AccessStoreError>> {
        let mut all = locked(&self.0);
        for new in uses {
            let key = |u: &UseRecord| (u.principal.clone(), u.identity, u.target.clone());
            match all.iter_mut().find(|known| key(known) == key(&new)) {
                Some(known) => {
                    (known.first, known.last) = (known.first.min(new.first), known.last.max(new.last))
                }
                None => all.push(new),
            }
        }
        all.sort_by_key(|used| std::cmp::Reverse(used.last));
        all.truncate(most);
        Box::pin(async { Ok(()) })
    }

    fn uses_of(&self, identity: Uid) -> BoxFuture<'_, Result<Vec<UseRecord>, AccessStoreError>> {
        let all = locked(&self.0);
        let found =
            all.iter().filter(|used| used.identity == identity).take(MOST_USES_TOLD).cloned().collect();
        Box::pin(async move { Ok(found) })
    }
}

/// What every store of uses keeps, over a reopening too. `open` is called again on the same place.
pub async fn use_store_contract<S, F>(open: F)
where
    S: UseStore,
    F: AsyncFn() -> S,
{
    let (at, uid) = (Wall::from_secs, |n| Uid::new(Wall::from_secs(1), [n; 10]));
    let used = |n: u8, target: &str, first: i64, last: i64| UseRecord {
        principal: Principal::loopback_dev(),
        identity: uid(n),
        target: target.into(),
        first: at(first),
        last: at(last),
    };
    {
        let store = open().await;
        store.merge_uses(vec![used(1, "a", 10, 20), used(1, "b", 11, 40)], 3).await.expect("a merge");
        store.merge_uses(vec![used(1, "a", 15, 30), used(2, "a", 50, 50)], 3).await.expect("a merge");
    }
    let store = open().await;
    let of = async |n| store.uses_of(uid(n)).await.expect("a look-up");
    assert_eq!(of(1).await, [used(1, "b", 11, 40), used(1, "a", 10, 30)]);
    store.merge_uses(vec![used(1, "a", 5, 6), used(3, "a", 60, 60)], 3).await.expect("a merge");
    assert_eq!(of(1).await, [used(1, "b", 11, 40)], "the one that was used longest ago had to go");
    assert_eq!((of(2).await.len(), of(3).await.len(), of(4).await.len()), (1, 1, 0));
}

/// What every store of assignments keeps, over a reopening too. `open` is called again on the same place.
pub async fn access_store_contract<S, F>(open: F)
where
    S: AccessStore,
    F: AsyncFn() -> S,
{
    let at = Wall::from_secs(1_767_225_600);
    let assignment = |n: u8| RoleAssignment {
        uid: Uid::new(at, [n; 10]),
        name: AssignmentName::from_id(&format!("a{n}")).unwrap_or_else(|e| unreachable!("{e}")),
        member: Member::Principal(Principal::loopback_dev()),
        role: Role::TokenUser,
        scope: AssignmentScope::Identity(Uid::new(at, [n + 100; 10])),
        targets: TargetRule::Only(vec!["scope:a".into()]),
        keep_warm: n == 1,
        expires_at: Some(at),
        max_token_lifetime: None,
        limits: Default::default(),
        created_at: at,
    };
    let recorded = AccessRecorded {
        request_id: "r1".into(),
        fingerprint: "f".into(),
        resource: assignment(1).uid,
        at,
        answer: Some("{}".into()),
    };
    {
        let store = open().await;
        assert!(store.load().await.expect("an empty store loads").is_empty());
        let put = |n| AccessWrite::Put(Box::new(assignment(n)));
        store.commit(vec![put(1), put(2), AccessWrite::Recorded(recorded.clone())]).await.expect("a commit");
        store.commit(vec![AccessWrite::Remove(assignment(2).uid), put(3)]).await.expect("a second commit");
    }
    let store = open().await;
    let mut all = store.load().await.expect("what was written loads");
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(all, [assignment(1), assignment(3)]);
    assert_eq!(store.recorded("r1".into()).await.expect("a look-up"), Some(recorded));
    assert_eq!(store.recorded("r2".into()).await.expect("a look-up"), None);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
