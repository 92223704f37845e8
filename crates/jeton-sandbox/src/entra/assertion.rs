//! The client assertion, verified in full: key by thumbprint, signature, issuer, subject, audience, times.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Moment,
    error::{self, Refusal},
};
use crate::{
    description::EntraTenant,
    jwt::{Received, normalized},
    model::{Application, Key},
};

/// Clocks may differ by this much.
pub(super) const SKEW_SECONDS: i64 = 300;

pub(super) struct Checked {
    /// SHA-256 thumbprint of the certificate that signed.
    pub(super) key: String,
    pub(super) jti: String,
    pub(super) expires: i64,
}

pub(super) fn check(
    text: &str,
    application: &Application,
    tenant: &EntraTenant,
    moment: Moment,
) -> Result<Checked, Refusal> {
    let jwt = Received::read(text).ok_or_else(error::malformed_assertion)?;
    if !matches!(jwt.algorithm(), "PS256" | "RS256") {
        return Err(error::algorithm(jwt.algorithm()));
    }
    let key = key_of(&jwt, application, moment)?;
    for claim in ["iss", "sub"] {
        if jwt.text(claim) != application.app_id {
            return Err(error::not_the_client(claim));
        }
    }
    let audiences = [&tenant.token_endpoint, &tenant.issuer, &tenant.authority];
    if !audiences.iter().any(|audience| jwt.text("aud") == audience.as_str()) {
        return Err(error::wrong_audience());
    }
    let expires = jwt.time("exp").ok_or_else(|| error::missing_claim("exp"))?;
    let (from, now) = (jwt.time("nbf").or(jwt.time("iat")), moment.secs());
    if expires + SKEW_SECONDS <= now || from.is_some_and(|from| from - SKEW_SECONDS > now) {
        return Err(error::time_range(now, from, expires));
    }
    Ok(Checked {
        key: key.x5t_s256.clone(),
        jti: jwt.text("jti").to_owned(),
        expires: expires + SKEW_SECONDS,
    })
}

/// The registered key that the header names, if its signature fits.
fn key_of<'a>(jwt: &Received, application: &'a Application, moment: Moment) -> Result<&'a Key, Refusal> {
    let named = |member: &str| jwt.header[member].as_str().map(normalized);
    let (sha256, sha1) = (named("x5t#S256"), named("x5t"));
    let Some(shown) = sha256.clone().or(sha1.clone()) else { return Err(error::no_thumbprint()) };
    let fits = |key: &&Key| match &sha256 {
        Some(thumbprint) => key.x5t_s256 == *thumbprint,
        None => Some(&key.x5t) == sha1.as_ref(),
    };
    let found = application.keys.iter().filter(|key| moment.visible(key.created_ms)).find(fits);
    let key = found.ok_or_else(|| error::unknown_key(&shown))?;
    if key.not_after <= moment.secs() {
        return Err(error::expired_key(&shown, key));
    }
    if key.not_before > moment.secs() + SKEW_SECONDS {
        return Err(error::early_key(&shown, key));
    }
    let der = STANDARD.decode(&key.certificate).unwrap_or_default();
    if jwt.verifies_with_certificate(&der) { Ok(key) } else { Err(error::bad_signature(&shown, key)) }
}
