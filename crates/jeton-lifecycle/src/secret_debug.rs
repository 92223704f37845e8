//! `Debug` of what carries secrets: which, and for whom.

use std::fmt::{Debug, Formatter, Result};

use crate::{AttachIdentity, AttachMaterial, AuthorityPatch, CreateAuthority, RegistrarMaterial, Write};

impl Debug for AttachIdentity {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("AttachIdentity")
            .field("create", &self.create)
            .field("client_id", &self.client_id)
            .field("material", &self.material)
            .finish()
    }
}

impl Debug for AttachMaterial {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate(..)",
            Self::Secret { .. } => "Secret(..)",
        })
    }
}

impl Debug for RegistrarMaterial {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate(..)",
            Self::InitialAccessToken(_) => "InitialAccessToken(..)",
            Self::None => "None",
        })
    }
}

impl Debug for CreateAuthority {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("CreateAuthority")
            .field("name", &self.name)
            .field("profile", &self.profile)
            .field("registrar", &self.registrar)
            .finish_non_exhaustive()
    }
}

impl Debug for AuthorityPatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("AuthorityPatch")
            .field("display_name", &self.display_name)
            .field("profile", &self.profile)
            .field("registrar", &self.registrar)
            .finish()
    }
}

impl Debug for Write {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (name, value): (_, &dyn Debug) = match self {
            Self::Identity(identity) => ("Identity", identity),
            Self::RemoveIdentity(uid) => ("RemoveIdentity", uid),
            Self::Workload(workload) => ("Workload", workload),
            Self::RemoveWorkload(uid) => ("RemoveWorkload", uid),
            Self::Authority(authority) => ("Authority", authority),
            Self::RemoveAuthority(uid) => ("RemoveAuthority", uid),
            Self::Secret(id, _) => ("Secret", id),
            Self::RemoveSecret(id) => ("RemoveSecret", id),
            Self::Orphan(orphan) => ("Orphan", orphan),
            Self::RemoveOrphan(uid) => ("RemoveOrphan", uid),
            Self::Recorded(recorded) => ("Recorded", recorded),
        };
        f.debug_tuple(name).field(value).finish()
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{Uid, Wall};
    use secrecy::SecretString;

    use super::*;
    use crate::{CreateIdentity, Registered, SecretId, SecretKind, testing};

    fn secret() -> SecretString {
        "canary".to_owned().into()
    }

    #[test]
    fn nothing_that_carries_a_secret_shows_it() {
        let uid = Uid::new(Wall::from_secs(1), [1; 10]);
        let id = SecretId { owner: uid, subject: uid, kind: SecretKind::ClientSecret };
        let certificate = || RegistrarMaterial::Certificate {
            client_id: "registrar".into(),
            certificate_pem: String::new(),
            private_key_pem: secret(),
        };
        let create = CreateIdentity {
            name: "identities/a".parse().unwrap(),
            authority: "authorities/a".parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            request_id: String::new(),
        };
        let material = AttachMaterial::Secret { secret: secret(), expires_at: None };
        let key = AttachMaterial::Certificate { certificate_pem: String::new(), private_key_pem: secret() };
        let authority = CreateAuthority {
            name: "authorities/a".parse().unwrap(),
            display_name: String::new(),
            profile: testing::authority("a", uid, true).profile.as_ref().clone(),
            ca_file: None,
            registrar: certificate(),
            request_id: String::new(),
        };
        let token = Some(RegistrarMaterial::InitialAccessToken(secret()));
        let registered = Registered { registration_access_token: Some(secret()), ..Registered::default() };
        for (shown, expected) in [
            (format!("{:?}", Write::Secret(id, b"canary".to_vec().into())), "ClientSecret"),
            (format!("{:?}", AttachIdentity { create, client_id: "x".into(), material }), "Secret(..)"),
            (format!("{key:?}"), "Certificate(..)"),
            (format!("{authority:?}"), "Certificate(..)"),
            (
                format!("{:?}", AuthorityPatch { registrar: token, ..AuthorityPatch::default() }),
                "InitialAccessToken(..)",
            ),
            (format!("{registered:?}"), "Registered"),
        ] {
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains("canary") && !shown.contains("REDACTED"), "{shown}");
            // Nor as a list of bytes.
            assert!(!shown.contains("99, 97, 110"), "{shown}");
        }
    }
}
