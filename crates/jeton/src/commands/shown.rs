//! The API's messages as JSON, in one shape for every command. Secrets have no place in it, a token's own command apart.

use jeton_console::shown::operation;
pub(super) use jeton_console::shown::{event, identity_status, seconds, status, time};
use jeton_proto::v1::{self, credential::Kind};
use serde_json::{Map, Value, json};

/// `IDENTITY_STATE_ACTIVE` as `ACTIVE`.
pub(super) fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_owned()
}

pub(super) fn identity_state(identity: &v1::Identity) -> String {
    short(identity.state().as_str_name(), "IDENTITY_STATE_")
}

pub(super) fn identity(identity: &v1::Identity) -> Value {
    json!({
        "name": identity.name,
        "uid": identity.uid,
        "display_name": identity.display_name,
        "labels": identity.labels,
        "kind": short(identity.kind().as_str_name(), "IDENTITY_KIND_"),
        "workload": identity.workload,
        "authority": identity.authority,
        "client_id": identity.client_id,
        "state": identity_state(identity),
        "operation": identity.operation.as_ref().map(operation),
        "credentials": identity.credentials.iter().map(credential).collect::<Vec<_>>(),
        "create_time": time(identity.create_time.as_ref()),
        "update_time": time(identity.update_time.as_ref()),
        "version": identity.version,
        "last_use_time": time(identity.last_use_time.as_ref()),
        "consumers": identity.consumers,
    })
}

pub(super) fn identity_with_uses(of: &v1::Identity, uses: &[v1::IdentityUse]) -> Value {
    let used = |used: &v1::IdentityUse| {
        json!({
            "principal": used.principal,
            "target": used.target,
            "first_use_time": time(used.first_use_time.as_ref()),
            "last_use_time": time(used.last_use_time.as_ref()),
        })
    };
    let mut shown = identity(of);
    shown["uses"] = uses.iter().map(used).collect();
    shown
}

fn credential(credential: &v1::Credential) -> Value {
    let mut value = json!({
        "uid": credential.uid,
        "state": short(credential.state().as_str_name(), "CREDENTIAL_STATE_"),
        "create_time": time(credential.create_time.as_ref()),
        "expire_time": time(credential.expire_time.as_ref()),
    });
    let (kind, more) = match &credential.kind {
        Some(Kind::Certificate(c)) => (
            "certificate",
            json!({"x5t": c.x5t, "x5t_s256": c.x5t_s256, "kid": c.kid, "key": c.key, "certificate_pem": c.certificate_pem, "jwk": c.jwk}),
        ),
        Some(Kind::Secret(_)) => ("secret", json!({})),
        Some(Kind::Federated(f)) => ("federated", json!({"issuer": f.issuer, "subject": f.subject})),
        Some(Kind::Mtls(m)) => ("mtls", json!({"x5t_s256": m.x5t_s256})),
        None => ("", json!({})),
    };
    value["kind"] = kind.into();
    if let (Value::Object(into), Value::Object(more)) = (&mut value, more) {
        into.extend(more);
    }
    value
}

pub(super) fn workload(workload: &v1::Workload) -> Value {
    json!({
        "name": workload.name,
        "uid": workload.uid,
        "display_name": workload.display_name,
        "labels": workload.labels,
        "principals": workload.principals,
        "system_identity": workload.system_identity,
        "create_time": time(workload.create_time.as_ref()),
        "update_time": time(workload.update_time.as_ref()),
        "version": workload.version,
        "secrets": workload.secrets.iter().map(|s| json!({
            "uid": s.uid,
            "create_time": time(s.create_time.as_ref()),
            "expire_time": time(s.expire_time.as_ref()),
            "last_use_time": time(s.last_use_time.as_ref()),
        })).collect::<Vec<_>>(),
    })
}

pub(super) fn authority(authority: &v1::Authority) -> Value {
    json!({
        "name": authority.name,
        "uid": authority.uid,
        "display_name": authority.display_name,
        "profile": serde_json::from_str::<Value>(&authority.profile_json).unwrap_or_default(),
        "profile_version": authority.profile_version,
        "ca_file": authority.ca_file,
        "registrar": short(authority.registrar().as_str_name(), "REGISTRAR_KIND_"),
        "registrar_client_id": authority.registrar_client_id,
        "create_time": time(authority.create_time.as_ref()),
        "update_time": time(authority.update_time.as_ref()),
        "version": authority.version,
    })
}

pub(super) fn assignment(assignment: &v1::RoleAssignment) -> Value {
    json!({
        "name": assignment.name,
        "uid": assignment.uid,
        "member": assignment.member,
        "role": assignment.role,
        "identity": assignment.identity,
        "targets": assignment.targets,
        "keep_warm": assignment.keep_warm,
        "expire_time": time(assignment.expire_time.as_ref()),
        "max_token_lifetime_seconds": seconds(assignment.max_token_lifetime.as_ref()),
        "limits": assignment.limits.as_ref().map(limits),
        "create_time": time(assignment.create_time.as_ref()),
    })
}

/// Those that are set.
fn limits(limits: &v1::CallerLimits) -> Value {
    let all = [
        ("misses_per_second", limits.misses_per_second),
        ("miss_burst", limits.miss_burst),
        ("forced_refreshes_per_minute", limits.forced_refreshes_per_minute),
        ("max_watches", limits.max_watches),
        ("max_waiting", limits.max_waiting),
    ];
    let set = all.into_iter().filter_map(|(name, most)| Some((name.to_owned(), most?.into())));
    set.collect::<Map<_, _>>().into()
}

/// The flat object of `token get`.
pub(super) fn token(response: &v1::GetTokenResponse) -> Value {
    let token = response.token.clone().unwrap_or_default();
    json!({
        "access_token": token.access_token,
        "token_type": token.token_type,
        "expires_at": time(token.expires_at.as_ref()),
        "refresh_at": time(token.refresh_at.as_ref()),
        "issued_at": time(token.issued_at.as_ref()),
        "identity": token.identity,
        "client_id": token.client_id,
        "scopes": token.scopes,
        "state": short(response.state().as_str_name(), "TOKEN_STATE_"),
    })
}

pub(super) fn token_info(info: &v1::TokenInfo) -> Value {
    json!({
        "identity": info.identity,
        "authority": info.authority,
        "target": info.target,
        "claims": info.claims,
        "state": info.state,
        "expires_at": time(info.expires_at.as_ref()),
        "refresh_at": time(info.refresh_at.as_ref()),
        "last_used": time(info.last_used.as_ref()),
        "pinned": info.pinned,
        "last_error": info.last_error,
    })
}

pub(super) fn failure(failure: &v1::Failure) -> Value {
    json!({
        "code": failure.code,
        "reason": failure.reason,
        "message": failure.message,
        "metadata": failure.metadata,
        "retry_delay_seconds": seconds(failure.retry_delay.as_ref()),
    })
}

pub(super) fn revocation(r: &v1::Revocation) -> Value {
    json!({
        "dropped": r.dropped,
        "revoked": r.revoked,
        "not_revoked": r.not_revoked,
        "valid_until": time(r.valid_until.as_ref()),
    })
}

pub(super) fn explanation(e: &v1::ExplainResponse) -> Value {
    json!({
        "allowed": e.allowed,
        "role_assignment": e.role_assignment,
        "reason": e.reason,
        "remedy": e.remedy,
        "principal": e.principal,
        "identity": e.identity,
        "target": e.target,
        "denied_time": time(e.denied_time.as_ref()),
        "method": e.method,
        "near_misses": e.near_misses.iter().map(|miss| json!({"role_assignment": miss.role_assignment, "problem": miss.problem})).collect::<Vec<_>>(),
    })
}
