//! Keys in a file that somebody else keeps up to date.

use std::path::PathBuf;

use jeton_access::KeySetSource;
use jeton_core::BoxFuture;
use serde_json::Value;

use crate::read;

pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn new(path: &str) -> Self {
        Self(path.into())
    }
}

impl KeySetSource for KeyFile {
    fn fetch(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async {
            let text = read(&self.0).await?;
            serde_json::from_str(&text).map_err(|e| format!("{} is no JSON: {e}", self.0.display()))
        })
    }
}
