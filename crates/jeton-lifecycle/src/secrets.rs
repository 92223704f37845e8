//! Workload secrets, for doors whose callers can carry nothing better. Made here, shown once, kept as a digest.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use jeton_core::{Directory, Principal, SecretDigest, Uid, Wall, Workload, WorkloadName, WorkloadSecret};
use secrecy::{ExposeSecret, SecretString};

use crate::{Lifecycle, LifecycleError, registry::fingerprint, workloads::Changed};

/// So that whoever scans texts for secrets finds them: `jws_[0-9a-f]{64}`.
const PREFIX: &str = "jws_";
const RANDOM_BYTES: usize = 32;
/// Secrets of one workload that count at a time.
const MAX_SECRETS: usize = 8;
/// An older secret counts this much longer at most.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// How long the secret before counts beside a new one, where nobody says.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(86_400);

/// A secret on its one way out.
pub struct NewSecret {
    /// The workload with it.
    pub workload: Arc<Workload>,
    /// Its uid.
    pub uid: Uid,
    /// The secret. It is kept nowhere.
    pub secret: SecretString,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret").field("uid", &self.uid).finish_non_exhaustive()
    }
}

/// Who showed this secret, if it counts now: the principal of its workload. One digest and one look-up, without a lock.
pub fn principal_of_secret(directory: &Directory, shown: &str, now: Wall) -> Option<Principal> {
    let random = shown.strip_prefix(PREFIX)?;
    if random.len() != 2 * RANDOM_BYTES {
        return None;
    }
    let workload = directory.workload_by_secret(&digest_of(shown)?, now)?;
    Some(Principal::of_secret(workload.uid))
}

impl Lifecycle {
    /// Makes a secret. Those before count until the overlap is over, and without one no longer.
    pub async fn rotate_secret(
        &self,
        name: &WorkloadName,
        overlap: Duration,
        request_id: &str,
    ) -> Result<NewSecret, LifecycleError> {
        if overlap > MAX_OVERLAP {
            return Err(LifecycleError::invalid("overlap", "at most 30 days"));
        }
        let print = fingerprint("rotate-secret", &[name.as_str(), &format!("{overlap:?}")]);
        let mut made = None;
        let changed = self.change_workload(name, request_id, print, |shared, workload| {
            let (now, uid) = (shared.now(), shared.new_uid());
            retire(&mut workload.secrets, now, overlap);
            if workload.secrets.len() >= MAX_SECRETS {
                let text = format!(
                    "{name} has {MAX_SECRETS} secrets that count: wait for one to end, revoke one, or rotate without overlap"
                );
                return Err(LifecycleError::Precondition(text));
            }
            let (secret, digest) = make()?;
            workload.secrets.push(WorkloadSecret { uid, digest, created_at: now, expires_at: None });
            made = Some((uid, secret));
            Ok(vec![])
        });
        let workload = changed.await?;
        let (uid, secret) = made.ok_or_else(|| {
            let text = "this request was carried out before, and the secret was in its answer alone: it is kept nowhere. Rotate again, with a new request_id";
            LifecycleError::Precondition(text.into())
        })?;
        Ok(NewSecret { workload, uid, secret })
    }

    /// Ends one secret at once, or all.
    pub async fn revoke_secret(&self, name: &WorkloadName, which: Option<Uid>, request_id: &str) -> Changed {
        let print = fingerprint("revoke-secret", &[name.as_str(), &format!("{which:?}")]);
        self.change_workload(name, request_id, print, |_, workload| {
            let before = workload.secrets.len();
            workload.secrets.retain(|secret| which.is_some_and(|uid| uid != secret.uid));
            match which {
                Some(uid) if workload.secrets.len() == before => {
                    Err(LifecycleError::NotFound(format!("the secret {uid} of {name}")))
                }
                _ => Ok(vec![]),
            }
        })
        .await
    }

    /// Who showed this secret, if it counts now.
    pub fn principal_of_secret(&self, shown: &str) -> Option<Principal> {
        principal_of_secret(&self.directory(), shown, self.shared.now())
    }
}

/// What ended goes; what counts ends when the overlap does, or sooner.
fn retire(secrets: &mut Vec<WorkloadSecret>, now: Wall, overlap: Duration) {
    let end = now + overlap;
    for secret in secrets.iter_mut() {
        secret.expires_at = Some(secret.expires_at.map_or(end, |before| before.min(end)));
    }
    secrets.retain(|secret| secret.counts(now));
}

fn make() -> Result<(SecretString, SecretDigest), LifecycleError> {
    let failed = || LifecycleError::Precondition("the system's random generator failed".into());
    let mut random = [0; RANDOM_BYTES];
    rand::fill(&mut random).map_err(|_| failed())?;
    let digits = random.iter().map(|byte| format!("{byte:02x}"));
    let secret = SecretString::from([PREFIX.to_owned()].into_iter().chain(digits).collect::<String>());
    let digest = digest_of(secret.expose_secret()).ok_or_else(failed)?;
    Ok((secret, digest))
}

fn digest_of(shown: &str) -> Option<SecretDigest> {
    digest(&SHA256, shown.as_bytes()).as_ref().try_into().ok().map(SecretDigest)
}
