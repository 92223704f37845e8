//! `Debug` for the messages that hold secrets. What is public is shown, the secret never.

use std::fmt;

use crate::v1;

impl fmt::Debug for v1::Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("identity", &self.identity)
            .field("client_id", &self.client_id)
            .field("token_type", &self.token_type)
            .field("expires_at", &self.expires_at)
            .field("refresh_at", &self.refresh_at)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::AttachCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachCertificate")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::AttachSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachSecret").field("expire_time", &self.expire_time).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::RegistrarCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrarCertificate").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::RegistrarInitialAccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrarInitialAccessToken").finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::RotateSecretResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateSecretResponse")
            .field("workload", &self.workload)
            .field("secret_uid", &self.secret_uid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{self, attach_identity_request, create_authority_request};

    const CANARY: &str = "canary-2b9f";

    #[test]
    fn no_message_shows_a_secret_however_it_is_wrapped() {
        let canary = || CANARY.to_owned();
        let token = v1::Token { access_token: canary(), ..Default::default() };
        let response = v1::GetTokenResponse { token: Some(token), state: 1 };
        let key = v1::AttachCertificate { certificate_pem: "public".into(), private_key_pem: canary() };
        let attach =
            |credential| v1::AttachIdentityRequest { credential: Some(credential), ..Default::default() };
        let create =
            |registrar| v1::CreateAuthorityRequest { registrar: Some(registrar), ..Default::default() };
        let registrar = v1::RegistrarCertificate { private_key_pem: canary(), ..Default::default() };
        let rotated = v1::RotateSecretResponse { secret: canary(), ..Default::default() };
        let shown = [
            format!("{response:?}"),
            format!("{rotated:?}"),
            format!("{:?}", attach(attach_identity_request::Credential::Certificate(key))),
            format!(
                "{:?}",
                attach(attach_identity_request::Credential::Secret(v1::AttachSecret {
                    client_secret: canary(),
                    expire_time: None
                }))
            ),
            format!("{:?}", create(create_authority_request::Registrar::Certificate(registrar))),
            format!(
                "{:?}",
                create(create_authority_request::Registrar::InitialAccessToken(
                    v1::RegistrarInitialAccessToken { token: canary() }
                ))
            ),
        ];
        for text in shown {
            assert!(!text.contains(CANARY), "{text}");
        }
    }
}
