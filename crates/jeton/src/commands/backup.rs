//! `jeton backup` and `jeton restore`.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use jeton_core::{Clock, SystemClock};
use jeton_store::{SealingKey, Store};

use crate::{data_dir::DataDir, output};

/// `jeton backup`
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArguments {
    /// The file to write; it must not exist
    file: PathBuf,
    /// The data directory; its broker may run
    #[arg(long, value_name = "DIR", default_value = "./.jeton", env = "JETON_DATA_DIR")]
    data_dir: PathBuf,
}

/// `jeton restore`
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArguments {
    /// A file that `jeton backup` wrote
    file: PathBuf,
    /// An empty data directory, or one to make
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The sealing key that was in use when the backup was made
    #[arg(long, value_name = "FILE")]
    sealing_key_file: PathBuf,
}

/// Copies the registry.
pub(crate) async fn backup(arguments: BackupArguments) -> anyhow::Result<()> {
    let made = jeton_store::backup(&arguments.data_dir, &arguments.file).await?;
    output::text(&format!(
        "{}: {} identities, {} bytes. It opens with the sealing key alone, which is not in it: keep a copy of that elsewhere\n",
        arguments.file.display(),
        made.identities,
        made.bytes
    ))
}

/// Puts a copy back, and has everything in it verified at the next start.
pub(crate) async fn restore(arguments: RestoreArguments) -> anyhow::Result<()> {
    let sealing = SealingKey::load(&arguments.sealing_key_file)?;
    let data_dir = DataDir::open(&arguments.data_dir)?;
    let restored = jeton_store::restore(&arguments.file, data_dir.path()).await?;
    let verified = verify_later(&data_dir, sealing).await;
    if verified.is_err() {
        // A restore that failed leaves nothing behind that a broker would start on.
        for file in ["registry.db", "registry.db-wal", "registry.db-shm", "tokens.db", "uses.db"] {
            let _ = std::fs::remove_file(data_dir.join(file));
        }
    }
    let verified = verified.context("nothing was restored")?;
    output::text(&format!(
        "{}: {} identities restored; {verified} of them prove themselves to their authorities when a broker starts here, and get new keys where those are not known there any more\n",
        data_dir.path().display(),
        restored.identities
    ))
}

async fn verify_later(data_dir: &DataDir, sealing: SealingKey) -> anyhow::Result<usize> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.now().wall;
    let store = Store::open(data_dir.path(), sealing, clock).await?;
    let verified = jeton_lifecycle::verify_all(&store, now).await;
    store.close().await;
    Ok(verified?)
}
