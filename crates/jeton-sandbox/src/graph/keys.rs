//! Key and password credentials of an application, and the proof of possession that addKey and removeKey want.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Call, Caller, GraphError, applications::save};
use crate::{
    dates::{date, seconds},
    jwt::{Received, base64url, normalized},
    model::{Application, Key, Secret},
    reply::{empty, json as reply},
    start::random_secret,
    state::{State, machine_millis, sha256_hex},
};

/// The audience of a proof of possession: the directory itself.
const PROOF_AUDIENCE: &str = "00000002-0000-0000-c000-000000000000";
const PROOF_MAX_SECONDS: i64 = 600;
const MAX_KEYS: usize = 100;
const YEAR_SECONDS: i64 = 365 * 86_400;

pub(super) async fn add(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    mut application: Application,
) -> Answer {
    prove(caller, call, &application)?;
    let key = key(&call.body["keyCredential"])?;
    within_quota(application.keys.len() + 1)?;
    let body = shown(&key, false);
    application.keys.push(key);
    save(state, application).await?;
    Ok(reply(200, &body))
}

pub(super) async fn remove(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    mut application: Application,
) -> Answer {
    prove(caller, call, &application)?;
    let key_id = call.body["keyId"].as_str().unwrap_or_default();
    let before = application.keys.len();
    application.keys.retain(|k| k.key_id != key_id);
    if application.keys.len() == before {
        return Err(GraphError::bad(format!("No credentials found to be removed: keyId '{key_id}'.")));
    }
    save(state, application).await?;
    Ok(empty(204))
}

/// The caller is the application itself or may change it, and holds the private key of one of its valid keys.
fn prove(caller: &Caller, call: &Call, application: &Application) -> Result<(), GraphError> {
    if caller.app_id != application.app_id && !caller.reaches(application) {
        return Err(GraphError::denied());
    }
    let refused = |why: &str| {
        GraphError::new(
            403,
            "Authentication_Unauthorized",
            format!("The proof of possession is not valid: {why}."),
        )
    };
    let text = call.body["proof"].as_str().unwrap_or_default();
    if text.is_empty() || text.contains('=') {
        return Err(GraphError::new(
            401,
            "Authentication_MissingOrMalformed",
            "Access Token missing or malformed.",
        ));
    }
    let jwt = Received::read(text).ok_or_else(|| {
        GraphError::new(401, "Authentication_MissingOrMalformed", "Access Token missing or malformed.")
    })?;
    if jwt.text("aud") != PROOF_AUDIENCE {
        return Err(refused("aud"));
    }
    if jwt.text("iss") != application.id {
        return Err(refused("iss must be the object id of the application"));
    }
    let (Some(from), Some(until)) = (jwt.time("nbf"), jwt.time("exp")) else {
        return Err(refused("nbf and exp are needed"));
    };
    let now = call.moment.secs();
    if until - from > PROOF_MAX_SECONDS || until <= now - 300 || from > now + 300 {
        return Err(refused("nbf or exp"));
    }
    let named = ["x5t", "kid", "x5t#S256"].into_iter().find_map(|m| jwt.header[m].as_str().map(normalized));
    let valid = |k: &&Key| {
        k.not_after > now && named.as_ref().is_none_or(|n| [&k.x5t, &k.x5t_s256, &k.key_id].contains(&n))
    };
    let signed =
        |k: &Key| STANDARD.decode(&k.certificate).is_ok_and(|der| jwt.verifies_with_certificate(&der));
    if application.keys.iter().filter(valid).any(signed) {
        Ok(())
    } else {
        Err(refused("no valid key of the application signed it"))
    }
}

/// A whole collection; entries without `key` are those that stay.
pub(super) fn credentials(value: &Value, present: &[Key]) -> Result<Vec<Key>, GraphError> {
    let entries = match value {
        Value::Null => return Ok(vec![]),
        Value::Array(entries) => entries,
        _ => return Err(GraphError::bad("keyCredentials must be a collection.")),
    };
    let stays = |entry: &Value| {
        present.iter().find(|k| entry["key"].is_null() && entry["keyId"] == k.key_id.as_str())
    };
    within_quota(entries.len())?;
    entries.iter().map(|entry| stays(entry).map_or_else(|| key(entry), |k| Ok(k.clone()))).collect()
}

fn within_quota(keys: usize) -> Result<(), GraphError> {
    if keys <= MAX_KEYS {
        return Ok(());
    }
    Err(GraphError::new(403, "Directory_QuotaExceeded", "The application has too many key credentials."))
}

fn key(value: &Value) -> Result<Key, GraphError> {
    if value["type"] != "AsymmetricX509Cert" || value["usage"] != "Verify" {
        return Err(GraphError::bad("keyCredential needs type AsymmetricX509Cert and usage Verify."));
    }
    let der = STANDARD
        .decode(value["key"].as_str().unwrap_or_default())
        .map_err(|_| GraphError::bad("key is not base64."))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der)
        .map_err(|_| GraphError::bad("Key credential is not a certificate."))?;
    Ok(Key {
        key_id: value["keyId"]
            .as_str()
            .filter(|id| Uuid::try_parse(id).is_ok())
            .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
        display_name: value["displayName"].as_str().map(str::to_owned),
        x5t: base64url(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref()),
        x5t_s256: base64url(digest(&SHA256, &der).as_ref()),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        certificate: STANDARD.encode(&der),
        created_ms: machine_millis(),
    })
}

/// The certificate itself only where it was selected.
pub(super) fn shown(key: &Key, selected: bool) -> Value {
    json!({
        "keyId": key.key_id, "displayName": key.display_name, "type": "AsymmetricX509Cert", "usage": "Verify",
        "key": selected.then_some(&key.certificate), "customKeyIdentifier": key.x5t,
        "startDateTime": date(key.not_before), "endDateTime": date(key.not_after),
    })
}

pub(super) async fn add_password(state: &mut State, call: &Call, mut application: Application) -> Answer {
    let asked = &call.body["passwordCredential"];
    let now = call.moment.secs();
    let time = |name: &str, default| {
        asked[name]
            .as_str()
            .map_or(Some(default), seconds)
            .ok_or_else(|| GraphError::bad(format!("{name} is not a date.")))
    };
    let secret = random_secret();
    let entry = Secret {
        key_id: Uuid::new_v4().to_string(),
        display_name: asked["displayName"].as_str().map(str::to_owned),
        sha256: sha256_hex(&secret),
        hint: secret.chars().take(3).collect(),
        not_before: time("startDateTime", now)?,
        not_after: time("endDateTime", now + 2 * YEAR_SECONDS)?,
    };
    let body = json!({
        "keyId": entry.key_id, "displayName": entry.display_name, "hint": entry.hint, "secretText": secret,
        "startDateTime": date(entry.not_before), "endDateTime": date(entry.not_after), "customKeyIdentifier": null,
    });
    application.secrets.push(entry);
    save(state, application).await?;
    Ok(reply(200, &body))
}

pub(super) async fn remove_password(state: &mut State, call: &Call, mut application: Application) -> Answer {
    let key_id = call.body["keyId"].as_str().unwrap_or_default();
    let before = application.secrets.len();
    application.secrets.retain(|s| s.key_id != key_id);
    if application.secrets.len() == before {
        return Err(GraphError::bad(format!("No password credential found with keyId '{key_id}'.")));
    }
    save(state, application).await?;
    Ok(empty(204))
}
