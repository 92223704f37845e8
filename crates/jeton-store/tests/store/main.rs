//! The stores on disk: the contracts of their ports, kills, and files that somebody changed.
#![allow(clippy::unwrap_used, reason = "a test fails where it expected otherwise")]

mod contracts;
mod crashes;
mod files;
mod threads;

use std::{path::Path, sync::Arc};

use jeton_store::{OpenError, SealingKey, Store};
use jeton_testkit::ManualClock;

pub(crate) async fn try_open(folder: &Path) -> Result<Store, OpenError> {
    let path = folder.join("sealing.key");
    let key = if path.exists() { SealingKey::load(&path) } else { SealingKey::create(&path) };
    Store::open(folder, key.unwrap(), Arc::new(ManualClock::default())).await
}

pub(crate) async fn open(folder: &Path) -> Store {
    try_open(folder).await.unwrap()
}
