//! Sealed secrets of identities and authorities, each owner under a data key of its own. An opened one is not kept: opening it again costs
//! less than the query that reads it, and 100,000 of them are a lot of memory.

use jeton_core::Uid;
use jeton_lifecycle::{SecretId, SecretKind, StoreError};
use secrecy::{ExposeSecret, SecretSlice};
use sqlx::{Row, Sqlite, Transaction, sqlite::SqliteRow};

use crate::{
    identities::unavailable,
    ring::Ring,
    sealing::{DataKey, Sealed, place},
    store::Inner,
};

/// The schema of what is inside a sealed secret.
const SCHEMA: i64 = 1;

pub(crate) fn key_place(owner: Uid) -> Vec<u8> {
    place(&[b"data_keys", owner.as_bytes()])
}

fn secret_place(id: &SecretId, version: i64) -> Vec<u8> {
    let (version, schema) = (version.to_be_bytes(), SCHEMA.to_be_bytes());
    place(&[
        b"secrets",
        id.owner.as_bytes(),
        id.subject.as_bytes(),
        id.kind.as_str().as_bytes(),
        &version,
        &schema,
    ])
}

impl Inner {
    pub(crate) async fn put_secret(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        id: &SecretId,
        secret: &SecretSlice<u8>,
    ) -> Result<(), StoreError> {
        let key = self.owner_key(transaction, id.owner).await?;
        let before = sqlx::query("SELECT version FROM secrets WHERE owner = ? AND subject = ? AND kind = ?")
            .bind(&id.owner.as_bytes()[..])
            .bind(&id.subject.as_bytes()[..])
            .bind(id.kind.as_str())
            .fetch_optional(&mut **transaction)
            .await
            .map_err(unavailable)?;
        let version = before.map_or(Ok(0_i64), |row| row.try_get(0)).map_err(unavailable)? + 1;
        let sealed = key.seal(&secret_place(id, version), secret.expose_secret());
        let sealed = sealed.ok_or_else(|| StoreError::Unavailable("sealing failed".into()))?;
        sqlx::query("INSERT OR REPLACE INTO secrets (owner, subject, kind, version, schema, nonce, sealed) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(&id.owner.as_bytes()[..])
            .bind(&id.subject.as_bytes()[..])
            .bind(id.kind.as_str())
            .bind(version)
            .bind(SCHEMA)
            .bind(sealed.nonce)
            .bind(sealed.bytes)
            .execute(&mut **transaction)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    /// The owner's data key; made if it has none.
    async fn owner_key(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        owner: Uid,
    ) -> Result<DataKey, StoreError> {
        // Inside of the transaction: whoever makes another sealing key take over looks at what was written before.
        let ring = self.ring.read().await;
        let rows = sqlx::query("SELECT key_id, nonce, wrapped FROM data_keys WHERE owner = ?")
            .bind(&owner.as_bytes()[..])
            .fetch_all(&mut **transaction)
            .await
            .map_err(unavailable)?;
        if !rows.is_empty() {
            let in_force = |row: &&SqliteRow| row.try_get("key_id").is_ok_and(|id: &str| id == ring.id());
            let row = rows.iter().find(in_force).ok_or_else(|| no_key(owner))?;
            return unwrapped_key(&ring, owner, row);
        }
        let made = ring.new_data_key(&key_place(owner));
        let (key, wrapped) =
            made.ok_or_else(|| StoreError::Unavailable("the random generator failed".into()))?;
        for (key_id, Sealed { nonce, bytes }) in wrapped {
            sqlx::query("INSERT INTO data_keys (owner, key_id, nonce, wrapped) VALUES (?, ?, ?, ?)")
                .bind(&owner.as_bytes()[..])
                .bind(key_id)
                .bind(nonce)
                .bind(bytes)
                .execute(&mut **transaction)
                .await
                .map_err(unavailable)?;
        }
        Ok(key)
    }

    pub(crate) async fn open_secret(&self, id: SecretId) -> Result<Option<SecretSlice<u8>>, StoreError> {
        // Held until it is open: no sealing key goes away meanwhile.
        let ring = self.ring.read().await;
        let row = sqlx::query(
            "SELECT s.version, s.nonce AS secret_nonce, s.sealed, k.nonce, k.wrapped FROM secrets s \
             LEFT JOIN data_keys k ON k.owner = s.owner AND k.key_id = ? WHERE s.owner = ? AND s.subject = ? AND s.kind = ?",
        )
        .bind(ring.id())
        .bind(&id.owner.as_bytes()[..])
        .bind(&id.subject.as_bytes()[..])
        .bind(id.kind.as_str())
        .fetch_optional(&self.registry.reader)
        .await
        .map_err(unavailable)?;
        let Some(row) = row else { return Ok(None) };
        let opened = unwrapped_key(&ring, id.owner, &row).and_then(|key| {
            let sealed = Sealed {
                nonce: row.try_get("secret_nonce").map_err(unavailable)?,
                bytes: row.try_get("sealed").map_err(unavailable)?,
            };
            let version = row.try_get("version").map_err(unavailable)?;
            key.open(&secret_place(&id, version), &sealed).map_err(|_| StoreError::Sealed(String::new()))
        });
        match opened {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(StoreError::Sealed(_)) => Err(self.does_not_open(&id).await),
            Err(error) => Err(error),
        }
    }

    /// Names the owner, so that somebody knows what to mend.
    async fn does_not_open(&self, id: &SecretId) -> StoreError {
        let name = self.owner_name(id.owner).await;
        StoreError::Sealed(format!(
            "the sealed {} of {name} does not open: it was moved, replaced by an older one, or damaged in the store. {}",
            id.kind.as_str(),
            remedy(&name, id.kind)
        ))
    }

    /// How people call the owner of a data key.
    pub(crate) async fn owner_name(&self, owner: Uid) -> String {
        let name = sqlx::query(
            "SELECT name FROM identities WHERE uid = ?1 UNION SELECT name FROM authorities WHERE uid = ?1",
        )
        .bind(&owner.as_bytes()[..])
        .fetch_optional(&self.registry.reader)
        .await;
        let name = name.ok().flatten().and_then(|row| row.try_get(0).ok());
        name.unwrap_or_else(|| owner.to_string())
    }
}

fn unwrapped_key(ring: &Ring, owner: Uid, row: &SqliteRow) -> Result<DataKey, StoreError> {
    let wrapped = Sealed {
        nonce: row.try_get("nonce").map_err(|_| no_key(owner))?,
        bytes: row.try_get("wrapped").map_err(|_| no_key(owner))?,
    };
    ring.current.unwrap(&key_place(owner), &wrapped).map_err(|_| no_key(owner))
}

fn no_key(owner: Uid) -> StoreError {
    StoreError::Sealed(format!("the data key of {owner} does not open: it was changed or moved in the store"))
}

/// What helps depends on whose it is and on where it comes from.
fn remedy(name: &str, kind: SecretKind) -> String {
    match kind {
        _ if name.starts_with("authorities/") => {
            format!("Bring the registrar's credential along again with `jeton authority update {name}`")
        }
        SecretKind::ClientSecret => "Delete the identity and attach it anew".into(),
        SecretKind::RegistrationAccessToken => {
            "Rotate the credential: the identity is registered anew, and the client that it had is listed by `jeton status`".into()
        }
        _ => "Rotate the credential, or, if the identity was attached, delete it and attach it anew".into(),
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::Wall;
    use jeton_lifecycle::SecretKind;

    use super::*;

    #[test]
    fn a_secret_is_bound_to_its_table_owner_subject_kind_version_and_schema() {
        let (key, _) = DataKey::generate().unwrap();
        let uid = |n| Uid::new(Wall::from_secs(1), [n; 10]);
        let id = SecretId { owner: uid(1), subject: uid(2), kind: SecretKind::PrivateKey };
        let sealed = key.seal(&secret_place(&id, 3), b"canary").unwrap();
        let parts = [
            b"secrets".to_vec(),
            uid(1).as_bytes().to_vec(),
            uid(2).as_bytes().to_vec(),
            b"private-key".to_vec(),
            3_i64.to_be_bytes().to_vec(),
            SCHEMA.to_be_bytes().to_vec(),
        ];
        let opens = |parts: &[Vec<u8>]| {
            key.open(&place(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()), &sealed).is_ok()
        };
        assert!(opens(&parts));
        for changed in 0..parts.len() {
            let mut other = parts.clone();
            *other[changed].last_mut().unwrap() ^= 1;
            assert!(!opens(&other), "it opens although part {changed} is another");
        }
    }
}
