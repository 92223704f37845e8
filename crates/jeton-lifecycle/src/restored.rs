//! After a restored backup: what it says of credentials may be old.

use jeton_core::{IdentityState, Operation, OperationKind, Wall};

use crate::{IdentityStore, StoreError, Write};

/// Written in one commit.
const BATCH: usize = 500;

/// Has every identity that issues tokens prove its credential by a grant when the broker starts. One whose credential the authority does
/// not take any more gets a new key then; nothing is registered that is there. Returns how many.
pub async fn verify_all(store: &dyn IdentityStore, now: Wall) -> Result<usize, StoreError> {
    let mut writes = vec![];
    for mut identity in store.load().await?.identities {
        let Some(current) = identity.current().map(|credential| credential.uid) else { continue };
        if identity.state != IdentityState::Active || identity.operation.is_some() {
            // Work under way goes on, and ends with a grant.
            continue;
        }
        let operation = Operation { credential: Some(current), ..Operation::new(OperationKind::Verify, now) };
        identity.operation = Some(operation);
        identity.version += 1;
        identity.updated_at = now;
        writes.push(Write::Identity(Box::new(identity)));
    }
    let all = writes.len();
    while !writes.is_empty() {
        let rest = writes.split_off(BATCH.min(writes.len()));
        store.commit(std::mem::replace(&mut writes, rest)).await?;
    }
    Ok(all)
}
