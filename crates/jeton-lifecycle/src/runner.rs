//! The worker that takes the steps: bounded, one at a time for each identity, woken by changes and by a short tick.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jeton_core::{Identity, IdentityKind, IdentityState, Operation, OperationKind, Uid, Wall};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Write,
    registry::{Shared, locked},
    take::is_dynamic,
};

const TICK: Duration = Duration::from_millis(100);
/// How often certificates are looked at for their age.
const AGE_CHECK: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The lifecycle's task. Its owner notices when it dies, and stops it.
#[derive(Debug)]
pub struct LifecycleTasks {
    worker: JoinHandle<()>,
    stop: CancellationToken,
}

impl LifecycleTasks {
    /// Ends when the worker dies on its own, which it should not.
    pub async fn ended(&mut self) -> &'static str {
        let _ = (&mut self.worker).await;
        "the lifecycle's worker"
    }

    /// Stops: begins no step, and lets those in hand end within a bound, because an answer that nobody hears may be lost for good.
    /// What is under way is resumed at the next start.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let abort = self.worker.abort_handle();
        if tokio::time::timeout(STOP_TIMEOUT, self.worker).await.is_err() {
            abort.abort();
        }
    }
}

pub(crate) fn start(shared: Arc<Shared>) -> LifecycleTasks {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(run(shared, stop.clone()));
    LifecycleTasks { worker, stop }
}

async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut running = JoinSet::<Uid>::new();
    let mut taken = HashMap::<Uid, Turn>::new();
    let mut age_checked: Option<Wall> = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.wake.notified() => {}
            Some(ended) = running.join_next() => match ended {
                Ok(uid) => drop(taken.remove(&uid)),
                // Which one it was is not told; the steps are idempotent, so all others may be looked at again as well.
                Err(panicked) => {
                    tracing::error!(error = %panicked, "a lifecycle step died and is taken again: report it with this line");
                    taken.clear();
                }
            },
            () = stop.cancelled() => break,
        }
        let now = shared.now();
        if age_checked.is_none_or(|at| now.saturating_since(at) >= AGE_CHECK || now < at) {
            age_checked = Some(now);
            rotate_by_age(&shared, now).await;
        }
        for (uid, turn) in due(&shared, &taken, now) {
            taken.insert(uid, turn);
            let shared = Arc::clone(&shared);
            running.spawn(async move {
                shared.take_step(uid).await;
                uid
            });
        }
    }
    while running.join_next().await.is_some() {}
}

/// A step in hand.
#[derive(Clone, Copy)]
struct Turn {
    authority: Uid,
    /// Whether its answer cannot be had again. One such is awaited at a time at each authority, so that a kill loses at most one.
    alone: bool,
}

/// What to begin: what was asked for first, and no more at one authority than it may hold up.
fn due(shared: &Shared, taken: &HashMap<Uid, Turn>, now: Wall) -> Vec<(Uid, Turn)> {
    let directory = shared.ports.directory.load();
    let mut at_work = HashMap::<Uid, (usize, bool)>::new();
    for turn in taken.values() {
        let (steps, alone) = at_work.entry(turn.authority).or_default();
        *steps += 1;
        *alone |= turn.alone;
    }
    let (busy, mut begins) = (locked(&shared.busy), vec![]);
    for authority in busy.authorities() {
        let (steps, alone) = at_work.get(&authority).copied().unwrap_or_default();
        let most = shared.settings.max_concurrent.saturating_sub(steps);
        let one_at_a_time = directory.authority(authority).is_some_and(|a| is_dynamic(a));
        let changing = if one_at_a_time { usize::from(!alone) } else { most };
        let next = busy.next(authority, now, most, changing, |uid| taken.contains_key(&uid));
        begins.extend(
            next.into_iter()
                .map(|(uid, changing)| (uid, Turn { authority, alone: changing && one_at_a_time })),
        );
    }
    begins
}

/// Begins the rotation of every certificate that reached its age.
async fn rotate_by_age(shared: &Arc<Shared>, now: Wall) {
    let directory = shared.ports.directory.snapshot();
    for identity in directory.identities_after(None).filter(|identity| of_age(shared, identity, now)) {
        let _held = shared.change.lock().await;
        let Some(mut fresh) =
            shared.ports.directory.load().identity(identity.uid).map(|i| i.as_ref().clone())
        else {
            continue;
        };
        if of_age(shared, &fresh, now) {
            fresh.operation = Some(Operation::new(OperationKind::Rotate, now));
            shared.touch(&mut fresh);
            if let Err(error) = shared.commit(vec![Write::Identity(Box::new(fresh))]).await {
                tracing::warn!(identity = %identity.name, %error, "a rotation that is due was not begun; it is tried again in a minute");
            }
        }
    }
}

fn of_age(shared: &Shared, identity: &Identity, now: Wall) -> bool {
    let rotates = identity.kind == IdentityKind::Created
        && identity.state == IdentityState::Active
        && identity.operation.is_none();
    let Some(credential) = identity.current().filter(|c| rotates && c.certificate().is_some()) else {
        return false;
    };
    // Drawn once for each credential, from its uid: 90 to 110 %.
    let draw = f64::from(credential.uid.as_bytes()[15]) / 255.0;
    let age = Duration::from_secs(shared.settings.rotation.after_seconds).mul_f64(0.9 + 0.2 * draw);
    now.saturating_since(credential.created_at) >= age
}
