//! Files that are not as they were left.

use std::{fs, path::Path};

use jeton_core::Wall;
use jeton_engine::{TokenStore, TokenWrite, testing};
use jeton_lifecycle::{IdentityStore, SecretId, SecretKind, StoreError, Write};
use jeton_store::{OpenError, SealingKey, SealingKeyError};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{open, try_open};

async fn sql(folder: &Path, file: &str, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(folder.join(file));
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test]
async fn another_sealing_key_is_refused_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await;
    fs::remove_file(folder.path().join("sealing.key")).unwrap();
    let error = try_open(folder.path()).await.unwrap_err();
    assert!(
        matches!(error, OpenError::WrongKey { .. }) && error.to_string().contains("belongs to this data"),
        "{error}"
    );
}

#[test]
fn a_sealing_key_that_others_can_read_or_that_is_no_key_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, [1_u8; 32]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = SealingKey::load(&path).unwrap_err();
    assert!(
        matches!(exposed, SealingKeyError::Exposed { .. }) && exposed.to_string().contains("chmod 600"),
        "{exposed}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [1_u8; 31]).unwrap();
    assert!(matches!(SealingKey::load(&path), Err(SealingKeyError::Malformed { .. })));
    assert!(
        matches!(SealingKey::create(&path), Err(SealingKeyError::File { .. })),
        "it never overwrites one"
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    for file in ["registry.db", "tokens.db"] {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).await.close().await;
        sql(folder.path(), file, "PRAGMA user_version = 99").await;
        let error = try_open(folder.path()).await.unwrap_err();
        assert!(
            matches!(error, OpenError::Newer { version: 99, .. }) && error.to_string().contains(file),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await;
    fs::write(folder.path().join("registry.db"), vec![b'x'; 8_192]).unwrap();
    let error = try_open(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("registry.db"), "{error}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let authority =
        jeton_lifecycle::testing::authority("a", jeton_core::Uid::new(Wall::from_secs(1), [1; 10]), true);
    let other =
        jeton_lifecycle::testing::authority("b", jeton_core::Uid::new(Wall::from_secs(1), [2; 10]), true);
    store
        .commit(vec![Write::Authority(Box::new(authority)), Write::Authority(Box::new(other))])
        .await
        .unwrap();
    store.close().await;
    sql(folder.path(), "registry.db", "UPDATE authorities SET body = '{}' WHERE name = 'authorities/a'")
        .await;
    let store = open(folder.path()).await;
    assert_eq!(IdentityStore::load(&store).await.unwrap().authorities.len(), 1);
    assert_eq!(store.quarantined(), ["authorities/a"]);
}

#[tokio::test]
async fn a_token_that_was_moved_to_another_key_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let at = Wall::from_secs(1_767_225_600);
    let put = |n| {
        let key = testing::key(n, "a");
        let token = testing::issued(&key, 1, std::time::Duration::from_secs(3_600));
        TokenWrite::Put(Box::new(jeton_engine::StoredToken {
            key,
            token,
            issued_at: at,
            refresh_at: at,
            last_used: at,
            earlier_until: None,
        }))
    };
    TokenStore::write(&store, vec![put(1), put(2), put(3)]).await.unwrap();
    store.close().await;
    let swap = "CREATE TEMP TABLE t AS SELECT rowid AS r, nonce, sealed FROM tokens ORDER BY token_key LIMIT 2;
        UPDATE tokens SET sealed = (SELECT sealed FROM t WHERE t.r <> tokens.rowid), nonce = (SELECT nonce FROM t WHERE t.r <> tokens.rowid)
        WHERE rowid IN (SELECT r FROM t);";
    sql(folder.path(), "tokens.db", swap).await;
    let kept = TokenStore::load(&open(folder.path()).await).await.unwrap();
    assert_eq!((kept.tokens.len(), kept.unreadable), (1, 2));
}

#[tokio::test]
async fn an_older_blob_under_a_newer_version_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let uid = jeton_core::Uid::new(Wall::from_secs(1), [1; 10]);
    let authority = jeton_lifecycle::testing::authority("a", uid, true);
    let id = SecretId { owner: uid, subject: uid, kind: SecretKind::InitialAccessToken };
    let secret = |text: &str| Write::Secret(id, text.as_bytes().to_vec().into());
    store.commit(vec![Write::Authority(Box::new(authority)), secret("first")]).await.unwrap();
    sql(folder.path(), "registry.db", "CREATE TABLE older AS SELECT nonce, sealed FROM secrets").await;
    store.commit(vec![secret("second")]).await.unwrap();
    assert!(store.secret(id).await.unwrap().is_some());
    let back = "UPDATE secrets SET nonce = (SELECT nonce FROM older), sealed = (SELECT sealed FROM older)";
    sql(folder.path(), "registry.db", back).await;
    let error = store.secret(id).await.unwrap_err();
    let StoreError::Sealed(text) = error else { panic!("{error}") };
    assert!(text.contains("authorities/a"), "{text}");
}
