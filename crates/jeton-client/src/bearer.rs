//! A bearer token in a file that somebody else replaces, such as Kubernetes' projected service account tokens.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncReadExt, time::Instant};
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use crate::error::Error;

/// Its replacement comes long before its end.
const REREAD: Duration = Duration::from_secs(10);
/// Longer than any header that a broker takes.
const LONGEST: u64 = 16 * 1024;

pub(crate) struct BearerFile {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

struct Read {
    value: MetadataValue<Ascii>,
    at: Instant,
    /// The broker refused it, so the file is looked at before the next call.
    refused: bool,
}

impl BearerFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    /// The header's value. A file that cannot be read for a moment leaves the last one in use.
    pub(crate) async fn authorization(&self) -> Result<MetadataValue<Ascii>, Error> {
        let (known, new_enough) = match &*self.lock() {
            Some(read) => (Some(read.value.clone()), !read.refused && read.at.elapsed() < REREAD),
            None => (None, false),
        };
        if let (Some(value), true) = (&known, new_enough) {
            return Ok(value.clone());
        }
        match (self.load().await, known) {
            (Ok(value), _) => {
                *self.lock() = Some(Read { value: value.clone(), at: Instant::now(), refused: false });
                Ok(value)
            }
            (Err(error), Some(value)) => {
                tracing::warn!(%error, "the last bearer token stays in use");
                Ok(value)
            }
            (Err(error), None) => Err(error),
        }
    }

    pub(crate) fn forget(&self) {
        if let Some(read) = &mut *self.lock() {
            read.refused = true;
        }
    }

    async fn load(&self) -> Result<MetadataValue<Ascii>, Error> {
        let failed = |problem: &dyn std::fmt::Display| Error::file(&self.path, problem);
        let file = tokio::fs::File::open(&self.path).await.map_err(|e| failed(&e))?;
        let mut text = Zeroizing::new(String::new());
        file.take(LONGEST + 1).read_to_string(&mut text).await.map_err(|e| failed(&e))?;
        let token = text.trim();
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || !printable || text.len() as u64 > LONGEST {
            return Err(failed(&"it should hold one bearer token and nothing else"));
        }
        let header = Zeroizing::new(format!("Bearer {token}"));
        let mut value = MetadataValue::try_from(header.as_str())
            .map_err(|_| failed(&"it holds bytes that no bearer token has"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
