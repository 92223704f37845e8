//! Taking tokens back: by name, because an identity is disabled, and once for each request id.

use jeton_access::{AdminCall, Requested};
use jeton_core::{AuthorityName, IdentityName, Object};
use jeton_engine::{Leaving, Revocation, Scope};
use jeton_proto::v1::{self, revoke_tokens_request::Scope as Named};

use super::{
    convert::timestamp,
    error::{Failure, Reason},
    routes::Broker,
};

impl Broker {
    pub(super) async fn revoke(
        &self,
        call: &AdminCall,
        request: v1::RevokeTokensRequest,
    ) -> Result<v1::Revocation, Failure> {
        let directory = self.lifecycle.directory();
        let scope = match request.scope {
            Some(Named::Identity(name)) => {
                let name: IdentityName = name.parse()?;
                self.must_on_identity(call, &name)?;
                Scope::Identity(directory.identity_named(&name).ok_or_else(|| Failure::not_found(&name))?.uid)
            }
            Some(Named::Authority(name)) => {
                call.must(Object::All, "*")?;
                let name: AuthorityName = name.parse()?;
                Scope::Authority(
                    directory.authority_named(&name).ok_or_else(|| Failure::not_found(&name))?.uid,
                )
            }
            Some(Named::Everything(true)) => {
                call.must(Object::All, "*")?;
                Scope::Everything
            }
            Some(Named::Everything(false)) | None => {
                let text =
                    "name an identity, an authority, or everything: true; nothing is taken back otherwise";
                return Err(Failure::field("scope", text));
            }
        };
        let requested = Requested::new(&request.request_id, format!("revoke:{scope:?}"))?;
        self.take_back(scope, None, requested).await
    }

    /// Disables an identity and takes its tokens back.
    pub(super) async fn disable(
        &self,
        name: &IdentityName,
        request_id: &str,
    ) -> Result<v1::DisableIdentityResponse, Failure> {
        // What is about to be evicted is to be revoked all the same.
        let uid = self.lifecycle.directory().identity_named(name).map(|identity| identity.uid);
        let leaving = uid.map(|uid| self.engine.leaving(uid));
        let changed = self.lifecycle.disable_identity(name, request_id).await?;
        let scope = Scope::Identity(changed.uid);
        let requested = Requested::new(request_id, format!("disable:{scope:?}"))?;
        let requested = requested.map(|requested| requested.part("revocation"));
        let revocation = Some(self.take_back(scope, leaving, requested).await?);
        let identity = self.shown(Ok(changed))?;
        Ok(v1::DisableIdentityResponse { identity, revocation })
    }

    async fn take_back(
        &self,
        scope: Scope,
        leaving: Option<Leaving>,
        requested: Option<Requested>,
    ) -> Result<v1::Revocation, Failure> {
        if let Some(requested) = &requested
            && let Some(answer) = self.access.answered(requested).await?
        {
            return Ok(shown(serde_json::from_str(&answer).unwrap_or_default()));
        }
        let revocation = self.engine.revoke(scope, leaving).await.map_err(|e| {
            let text = format!(
                "the tokens are not served any more, but a restart may bring them back: {e}. Take them back again"
            );
            Failure::new(Reason::StoreUnavailable, text)
        })?;
        if let Some(requested) = requested {
            let answer = serde_json::to_string(&revocation).unwrap_or_default();
            self.access.remember_answer(&requested, answer).await?;
        }
        Ok(shown(revocation))
    }
}

fn shown(revocation: Revocation) -> v1::Revocation {
    v1::Revocation {
        dropped: revocation.dropped,
        revoked: revocation.revoked,
        not_revoked: revocation.not_revoked,
        valid_until: revocation.valid_until.map(timestamp),
    }
}
