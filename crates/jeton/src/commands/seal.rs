//! `jeton seal`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use jeton_core::{Clock, SystemClock};
use jeton_proto::v1::{self, sealing_service_client::SealingServiceClient};
use jeton_server::Alarms;
use serde_json::json;

use super::{Common, absolute};
use crate::{
    broker,
    config::Sources,
    data_dir::DataDir,
    exit::Misuse,
    reach::Unreachable,
    sealing::{self, Rotation},
    serve,
};

/// `jeton seal`
#[derive(Debug, clap::Args)]
pub(crate) struct SealArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make another sealing key take over while the broker goes on; repeat it if it breaks off
    Rotate {
        /// The new key's file: 32 random bytes, mode 0600, outside of the data directory
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
        /// Do it without a broker, on the data directory and by the present key of this configuration (TOML)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: SealArguments) -> anyhow::Result<()> {
    let Verb::Rotate { new_key_file, config } = arguments.verb;
    let file = absolute(&new_key_file)?;
    let done = match config {
        Some(config) => offline(config, &file).await?,
        None => {
            let connected = arguments.common.broker.admin_plane().await;
            let channel = connected.map_err(|error| match error.is::<Unreachable>() {
                true => error.context("where no broker runs, `--config FILE` does it without one"),
                false => error,
            })?;
            let request = v1::RotateSealingKeyRequest { key_file: file.clone() };
            SealingServiceClient::new(channel).rotate_sealing_key(request).await?.into_inner()
        }
    };
    let rotated = !done.previous_key_id.is_empty();
    let next = format!("set sealing.key_file = {file:?} before the next start");
    let shown = json!({
        "key_id": done.key_id,
        "previous_key_id": Some(&done.previous_key_id).filter(|_| rotated),
        "data_keys": done.data_keys,
        "left": 0,
        "unreadable": done.unreadable,
        "next": next,
    });
    arguments.common.output.one(&shown, |_| {
        let keys = if rotated { "wrapped anew" } else { "wrapped by it already" };
        let mut facts = vec![
            ("sealing key", done.key_id.clone()),
            ("before", done.previous_key_id.clone()),
            ("data keys", format!("{} {keys}, 0 left", done.data_keys)),
        ];
        let broken = |owner: &String| ("unreadable", format!("{owner}: it opened with neither key"));
        facts.extend(done.unreadable.iter().map(broken));
        facts.push(("next", next.clone()));
        let backups = format!(
            "backups made before open with {} alone: keep its file as long as them",
            done.previous_key_id
        );
        facts.extend(rotated.then_some(("and", backups)));
        facts
    })
}

/// On the data directory of a configuration, which no broker uses.
async fn offline(config: PathBuf, new: &str) -> anyhow::Result<v1::RotateSealingKeyResponse> {
    let settings = serve::load(&Sources { config: Some(config), ..Sources::default() })?;
    let path = Path::new(&settings.data_dir);
    if !path.join("registry.db").exists() {
        return Err(Misuse(format!("there is no data in {}", path.display())).into());
    }
    let data_dir = DataDir::open(path).context("without --config the running broker does it")?;
    let keys = sealing::keys(&settings).map_err(crate::config::Faults::from)?;
    let (configured, clock): (_, Arc<dyn Clock>) = (keys.key.id().to_owned(), Arc::new(SystemClock));
    let (store, trail, task) = broker::stores(&settings, &data_dir, keys, &clock).await?;
    let (data_dir, inside) = (data_dir.path().to_owned(), false);
    let rotation = Rotation {
        store: store.clone(),
        trail: Arc::new(trail),
        clock,
        alarms: Alarms::default(),
        data_dir,
        inside,
        configured,
    };
    let done = rotation.to_file(Path::new(new)).await;
    task.shutdown().await;
    store.close().await;
    let done = done.map_err(|refused| anyhow!(sealing::text(&refused)))?;
    Ok(v1::RotateSealingKeyResponse {
        key_id: done.key_id,
        previous_key_id: done.previous.unwrap_or_default(),
        data_keys: done.wrapped,
        unreadable: done.unreadable,
    })
}
