//! The sealing key: its file, and how another one takes over.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jeton_core::{
    AuditEvent, AuditKind, AuditOutcome, AuditResource, AuditTrail, BoxFuture, Clock, Problem, Uid,
};
use jeton_server::{
    Alarms,
    grpc::{NotRotated, SealingKeyRotated, SealingRotation},
};
use jeton_store::{RotateError, Rotated, Rotating, SealingKey, SealingKeys, Store};

use crate::config::Settings;

/// What the alarm is about, and where it is mended.
const SETTING: &str = "sealing.key_file";

/// The keys that `serve` is told of.
pub(crate) fn keys(settings: &Settings) -> Result<SealingKeys, Vec<Problem>> {
    let data_dir = Path::new(&settings.data_dir);
    let load = |name: &str, file: &str| {
        outside(data_dir, Path::new(file)).map_err(|text| vec![Problem::new(name, text)])
    };
    let (file, before) = (&settings.sealing.key_file, &settings.sealing.previous_key_file);
    let previous = (!before.is_empty()).then(|| load("sealing.previous_key_file", before));
    if file.is_empty() {
        let text = "name the file of the sealing key, outside of the data directory; `(umask 077; head -c 32 /dev/urandom > FILE)` makes one";
        let mut problems = previous.and_then(Result::err).unwrap_or_default();
        problems.push(Problem::new(SETTING, text));
        return Err(problems);
    }
    match (load(SETTING, file), previous.transpose()) {
        (Ok(key), Ok(previous)) => Ok(SealingKeys { key, previous }),
        (key, previous) => Err(key.err().into_iter().chain(previous.err()).flatten().collect()),
    }
}

/// A key that does not lie in the data directory: there it would be in every copy of what it seals.
fn outside(data_dir: &Path, file: &Path) -> Result<SealingKey, String> {
    let real = file.canonicalize().map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
    if is_inside(data_dir, &real) {
        return Err(format!(
            "{} is inside of the data directory, where every backup of the data would hold its key: move it out",
            file.display()
        ));
    }
    SealingKey::load(&real).map_err(|e| e.to_string())
}

fn is_inside(data_dir: &Path, file: &Path) -> bool {
    data_dir.canonicalize().is_ok_and(|folder| file.starts_with(folder))
}

/// Makes another sealing key take over, and says so on the audit trail.
#[derive(Clone)]
pub(crate) struct Rotation {
    pub(crate) store: Store,
    pub(crate) trail: Arc<dyn AuditTrail>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) alarms: Alarms,
    /// Where no key may lie, unless the present one does: that is `dev`.
    pub(crate) data_dir: PathBuf,
    /// Whether the present one does.
    pub(crate) inside: bool,
    /// The id of the key that the configuration names.
    pub(crate) configured: String,
}

impl Rotation {
    /// Whether the key that a configuration names lies in the data directory. `dev` makes one there where none is named.
    pub(crate) fn is_inside(settings: &Settings, data_dir: &Path) -> bool {
        let file = &settings.sealing.key_file;
        file.is_empty() || Path::new(file).canonicalize().is_ok_and(|file| is_inside(data_dir, &file))
    }

    /// The key in a file takes over.
    pub(crate) async fn to_file(&self, file: &Path) -> Result<Rotated, NotRotated> {
        let loaded = if self.inside {
            SealingKey::load(file).map_err(|e| e.to_string())
        } else {
            outside(&self.data_dir, file)
        };
        let done = self.to(Arc::new(loaded.map_err(NotRotated::KeyFile)?)).await?;
        if done.key_id == self.configured {
            self.alarms.clear(SETTING);
        } else {
            let message = format!(
                "the sealing key was rotated to {} since the start, by whose configuration it was {}: that key opens nothing any more",
                done.key_id, self.configured
            );
            let remedy =
                format!("set {SETTING} to {:?}; it counts from the next start", file.display().to_string());
            self.alarms.raise(SETTING, message, remedy);
        }
        Ok(done)
    }

    /// The key that the configuration names takes over, where the previous one is in force still.
    pub(crate) async fn as_configured(&self) {
        let Some(wanted) = self.store.wanted_sealing_key().await else { return };
        match self.to(wanted).await {
            Ok(_) => self.alarms.clear(SETTING),
            Err(error) => {
                let message =
                    format!("the sealing key of the configuration has not taken over: {}", text(&error));
                self.alarms.raise(SETTING, message, "jeton seal rotate --new-key-file FILE, or start anew");
            }
        }
    }

    async fn to(&self, key: Arc<SealingKey>) -> Result<Rotated, NotRotated> {
        let mut event = AuditEvent::new(AuditKind::KeyStep, AuditOutcome::Intent);
        event.method = Some("rotate/sealing_key".into());
        let ids = [self.store.sealing_key().await, key.id().to_owned()];
        event.resources = ids.map(|id| AuditResource::new(format!("sealingKeys/{id}"), None)).into();
        event.correlation_id = Some(Uid::new(self.clock.now().wall, rand::random()).to_string().into());
        self.trail.record(event.clone()).await.map_err(NotRotated::Audit)?;
        let done = self.store.rotate_sealing(key, |step| match step {
            Rotating::Wrapped(data_keys) => tracing::debug!(data_keys, "wrapped by both sealing keys"),
            Rotating::InForce => tracing::info!("the new sealing key is in force"),
            _ => tracing::info!("the sealing key was rotated"),
        });
        let done = done.await;
        let failure = done.as_ref().err().map(ToString::to_string);
        let outcome = if done.is_ok() { AuditOutcome::Ok } else { AuditOutcome::Failed };
        self.trail.note(event.with_outcome(outcome, failure.as_deref()));
        done.map_err(|error| match error {
            RotateError::UnderWay => NotRotated::UnderWay(error.to_string()),
            RotateError::NotReadBack(_) => NotRotated::NotReadBack(error.to_string()),
            _ => NotRotated::Store(error.to_string()),
        })
    }
}

impl SealingRotation for Rotation {
    fn rotate(&self, key_file: PathBuf) -> BoxFuture<'_, Result<SealingKeyRotated, NotRotated>> {
        Box::pin(async move {
            let Rotated { key_id, previous, wrapped, unreadable, .. } = self.to_file(&key_file).await?;
            Ok(SealingKeyRotated { key_id, previous, data_keys: wrapped, unreadable })
        })
    }
}

/// A refusal in words.
pub(crate) fn text(refused: &NotRotated) -> String {
    match refused {
        NotRotated::KeyFile(text)
        | NotRotated::UnderWay(text)
        | NotRotated::NotReadBack(text)
        | NotRotated::Store(text) => text.clone(),
        NotRotated::Audit(error) => error.to_string(),
    }
}
