//! SealingService.

use std::path::PathBuf;

use jeton_core::{AuditUnavailable, BoxFuture};
use jeton_proto::v1::{self, sealing_service_server::SealingService};
use tonic::{Request, Response, Status};

use super::{
    error::{Failure, Reason},
    routes::Broker,
};

/// Makes another sealing key take over; the assembly fills it.
pub trait SealingRotation: Send + Sync + 'static {
    /// The key in a file takes over.
    fn rotate(&self, key_file: PathBuf) -> BoxFuture<'_, Result<SealingKeyRotated, NotRotated>>;
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKeyRotated {
    /// The id of the key in force.
    pub key_id: String,
    /// The id of the one before; none: it was in force already.
    pub previous: Option<String>,
    /// Data keys that it wraps.
    pub data_keys: u64,
    /// Whose data keys opened with neither.
    pub unreadable: Vec<String>,
}

/// Why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRotated {
    /// The file holds no key that may be used.
    KeyFile(String),
    /// Another one is under way.
    UnderWay(String),
    /// What is wrapped anew does not open.
    NotReadBack(String),
    /// The store cannot be written.
    Store(String),
    /// The audit log cannot be written.
    Audit(AuditUnavailable),
}

#[tonic::async_trait]
impl SealingService for Broker {
    async fn rotate_sealing_key(
        &self,
        request: Request<v1::RotateSealingKeyRequest>,
    ) -> Result<Response<v1::RotateSealingKeyResponse>, Status> {
        self.admin_call(&request)?.may_rotate_sealing_key().map_err(Failure::from)?;
        let key_file = PathBuf::from(request.into_inner().key_file);
        if !key_file.is_absolute() {
            let text = "must be an absolute path: the broker has another working directory than its callers";
            return Err(Failure::field("key_file", text).into());
        }
        let done = self.sealing.rotate(key_file).await.map_err(Failure::from)?;
        Ok(Response::new(v1::RotateSealingKeyResponse {
            key_id: done.key_id,
            previous_key_id: done.previous.unwrap_or_default(),
            data_keys: done.data_keys,
            unreadable: done.unreadable,
        }))
    }
}

impl From<NotRotated> for Failure {
    fn from(refused: NotRotated) -> Self {
        match refused {
            NotRotated::KeyFile(text) => Self::field("key_file", text),
            NotRotated::UnderWay(text) => Self::new(Reason::FailedPrecondition, text),
            NotRotated::NotReadBack(text) => Self::new(Reason::Internal, text),
            NotRotated::Store(text) => Self::new(Reason::StoreUnavailable, text),
            NotRotated::Audit(error) => error.into(),
        }
    }
}
