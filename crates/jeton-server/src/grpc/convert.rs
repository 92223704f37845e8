//! Between the broker's words and the wire's.

use std::time::Duration;

use jeton_core::{
    Authority, CallerLimits, CertificateFacts, Credential, CredentialKind, CredentialState, Directory,
    Identity, IdentityKind, IdentityState, KeyKind, Operation, OperationKind, Registrar, RoleAssignment,
    TargetRule, Wall, Workload, WorkloadSecret,
};
use jeton_proto::v1;
use prost_types::Timestamp;

use super::error::Failure;

pub(crate) fn timestamp(at: Wall) -> Timestamp {
    let millis = at.as_millis();
    Timestamp {
        seconds: millis.div_euclid(1_000),
        nanos: i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or(0),
    }
}

pub(crate) fn wall(at: &Timestamp) -> Wall {
    Wall::from_millis(at.seconds.saturating_mul(1_000).saturating_add(i64::from(at.nanos) / 1_000_000))
}

pub(crate) fn duration(field: &'static str, given: &prost_types::Duration) -> Result<Duration, Failure> {
    let wrong = || Failure::field(field, "expected a duration that is not negative");
    let (seconds, nanos) = (
        u64::try_from(given.seconds).map_err(|_| wrong())?,
        u32::try_from(given.nanos).map_err(|_| wrong())?,
    );
    if nanos >= 1_000_000_000 { Err(wrong()) } else { Ok(Duration::new(seconds, nanos)) }
}

pub(crate) fn wire_duration(given: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(given.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(given.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn identity(identity: &Identity, directory: &Directory) -> v1::Identity {
    v1::Identity {
        name: identity.name.to_string(),
        uid: identity.uid.to_string(),
        display_name: identity.display_name.clone(),
        labels: identity.labels.clone().into_iter().collect(),
        kind: identity_kind(identity.kind).into(),
        workload: identity
            .workload
            .and_then(|uid| directory.workload(uid))
            .map_or_else(String::new, |w| w.name.to_string()),
        authority: directory.authority(identity.authority).map_or_else(String::new, |a| a.name.to_string()),
        client_id: identity.client_id.as_deref().unwrap_or_default().to_owned(),
        state: state(identity.state).into(),
        operation: identity.operation.as_ref().map(operation),
        credentials: identity.credentials.iter().map(credential).collect(),
        create_time: Some(timestamp(identity.created_at)),
        update_time: Some(timestamp(identity.updated_at)),
        version: identity.version,
        last_use_time: None,
        consumers: vec![],
    }
}

pub(crate) fn identity_kind(kind: IdentityKind) -> v1::IdentityKind {
    match kind {
        IdentityKind::Created => v1::IdentityKind::Created,
        IdentityKind::Attached => v1::IdentityKind::Attached,
    }
}

/// None: any.
pub(crate) fn wanted_state(state: v1::IdentityState) -> Option<IdentityState> {
    match state {
        v1::IdentityState::Unspecified => None,
        v1::IdentityState::Provisioning => Some(IdentityState::Provisioning),
        v1::IdentityState::Active => Some(IdentityState::Active),
        v1::IdentityState::Disabled => Some(IdentityState::Disabled),
        v1::IdentityState::Deleting => Some(IdentityState::Deleting),
        v1::IdentityState::Failed => Some(IdentityState::Failed),
    }
}

pub(crate) fn state(state: IdentityState) -> v1::IdentityState {
    match state {
        IdentityState::Provisioning => v1::IdentityState::Provisioning,
        IdentityState::Active => v1::IdentityState::Active,
        IdentityState::Disabled => v1::IdentityState::Disabled,
        IdentityState::Deleting => v1::IdentityState::Deleting,
        IdentityState::Failed => v1::IdentityState::Failed,
    }
}

pub(crate) const fn operation_kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Provision => "provision",
        OperationKind::Attach => "attach",
        OperationKind::Rotate => "rotate",
        OperationKind::Verify => "verify",
        OperationKind::Delete => "delete",
    }
}

fn operation(operation: &Operation) -> v1::Operation {
    v1::Operation {
        kind: operation_kind(operation.kind).into(),
        step: operation.step().map_or("", jeton_core::Step::as_str).into(),
        start_time: Some(timestamp(operation.started_at)),
        attempts: operation.attempts,
        next_try_time: Some(timestamp(operation.next_try_at)),
        last_error: operation.last_error.clone().unwrap_or_default(),
    }
}

fn credential(credential: &Credential) -> v1::Credential {
    v1::Credential {
        uid: credential.uid.to_string(),
        state: match credential.state {
            CredentialState::Pending => v1::CredentialState::Pending,
            CredentialState::Current => v1::CredentialState::Current,
            CredentialState::Overlap => v1::CredentialState::Overlap,
        }
        .into(),
        create_time: Some(timestamp(credential.created_at)),
        expire_time: credential.expires_at().map(timestamp),
        kind: Some(match &credential.kind {
            CredentialKind::Certificate(facts) => v1::credential::Kind::Certificate(certificate(facts)),
            CredentialKind::Secret { .. } => v1::credential::Kind::Secret(v1::SecretCredential {}),
        }),
    }
}

fn certificate(facts: &CertificateFacts) -> v1::CertificateCredential {
    v1::CertificateCredential {
        x5t: facts.references.x5t.to_string(),
        x5t_s256: facts.references.x5t_s256.to_string(),
        kid: facts.references.kid.to_string(),
        key: match facts.key {
            KeyKind::Rsa2048 => "rsa2048",
            KeyKind::Rsa3072 => "rsa3072",
            KeyKind::P256 => "p256",
        }
        .into(),
        certificate_pem: facts.certificate_pem(),
        jwk: facts.jwk.to_string(),
    }
}

pub(crate) fn workload(workload: &Workload, directory: &Directory) -> v1::Workload {
    v1::Workload {
        name: workload.name.to_string(),
        uid: workload.uid.to_string(),
        display_name: workload.display_name.clone(),
        labels: workload.labels.clone().into_iter().collect(),
        principals: workload.principals.iter().map(ToString::to_string).collect(),
        system_identity: workload
            .system_identity
            .and_then(|uid| directory.identity(uid))
            .map_or_else(String::new, |i| i.name.to_string()),
        create_time: Some(timestamp(workload.created_at)),
        update_time: Some(timestamp(workload.updated_at)),
        version: workload.version,
        secrets: workload.secrets.iter().map(|s| secret(s, directory)).collect(),
    }
}

fn secret(secret: &WorkloadSecret, directory: &Directory) -> v1::WorkloadSecret {
    v1::WorkloadSecret {
        uid: secret.uid.to_string(),
        create_time: Some(timestamp(secret.created_at)),
        expire_time: secret.expires_at.map(timestamp),
        last_use_time: directory.secret_used(&secret.digest).map(timestamp),
    }
}

pub(crate) fn authority(authority: &Authority) -> v1::Authority {
    let (registrar, client_id) = match &authority.registrar {
        Registrar::Certificate { client_id, .. } => (v1::RegistrarKind::Certificate, client_id.to_string()),
        Registrar::InitialAccessToken { .. } => (v1::RegistrarKind::InitialAccessToken, String::new()),
        Registrar::None => (v1::RegistrarKind::None, String::new()),
    };
    v1::Authority {
        name: authority.name.to_string(),
        uid: authority.uid.to_string(),
        display_name: authority.display_name.clone(),
        profile_json: serde_json::to_string(&authority.profile).unwrap_or_default(),
        profile_version: authority.profile_version,
        ca_file: authority.ca_file.clone().unwrap_or_default(),
        registrar: registrar.into(),
        registrar_client_id: client_id,
        create_time: Some(timestamp(authority.created_at)),
        update_time: Some(timestamp(authority.updated_at)),
        version: authority.version,
    }
}

pub(crate) fn assignment(assignment: &RoleAssignment, directory: &Directory) -> v1::RoleAssignment {
    v1::RoleAssignment {
        name: assignment.name.to_string(),
        uid: assignment.uid.to_string(),
        member: assignment.member.shown(directory),
        role: assignment.role.to_string(),
        identity: assignment.scope.shown(directory),
        targets: match &assignment.targets {
            TargetRule::Any => vec!["*".into()],
            TargetRule::Only(texts) => texts.iter().map(ToString::to_string).collect(),
        },
        keep_warm: assignment.keep_warm,
        expire_time: assignment.expires_at.map(timestamp),
        max_token_lifetime: assignment.max_token_lifetime.map(wire_duration),
        limits: Some(assignment.limits).filter(|limits| !limits.are_usual()).map(wire_limits),
        create_time: Some(timestamp(assignment.created_at)),
    }
}

pub(crate) fn limits(given: v1::CallerLimits) -> CallerLimits {
    CallerLimits {
        misses_per_second: given.misses_per_second,
        miss_burst: given.miss_burst,
        forced_refreshes_per_minute: given.forced_refreshes_per_minute,
        max_watches: given.max_watches,
        max_waiting: given.max_waiting,
    }
}

fn wire_limits(own: CallerLimits) -> v1::CallerLimits {
    v1::CallerLimits {
        misses_per_second: own.misses_per_second,
        miss_burst: own.miss_burst,
        forced_refreshes_per_minute: own.forced_refreshes_per_minute,
        max_watches: own.max_watches,
        max_waiting: own.max_waiting,
    }
}

pub(crate) fn page_size(given: i32) -> Result<usize, Failure> {
    usize::try_from(given).map_err(|_| Failure::field("page_size", "must not be negative"))
}
