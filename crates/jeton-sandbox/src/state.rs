//! The state of both tenants: in memory, and on disk before anything is answered.
//!
//! One lock, one writer: a change holds it until its transaction is committed.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    files::private_file,
    model::{Application, OidcClient, RoleGrant, ServicePrincipal},
    settings::{Settings, merge},
};

/// Remembered ids of assertions. When they are full, no more are taken.
const MAX_REMEMBERED: usize = 1_000_000;
/// Scopes counted apart for one client; the rest is counted as one.
const MAX_SCOPES: usize = 32;
const MAX_SCOPE_BYTES: usize = 1_024;

/// Requests of one client at the token endpoints.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) ok: u64,
    pub(crate) refused: u64,
    pub(crate) by_scope: BTreeMap<String, u64>,
    /// Keys whose assertions were accepted, in the order of first use.
    pub(crate) signed_with: Vec<String>,
}

impl Counts {
    pub(crate) fn asked(&mut self, scope: &str) {
        self.total += 1;
        let apart = self.by_scope.contains_key(scope)
            || self.by_scope.len() < MAX_SCOPES && scope.len() <= MAX_SCOPE_BYTES;
        *self.by_scope.entry(if apart { scope } else { "others" }.to_owned()).or_default() += 1;
    }

    /// The key that signed, if one did.
    pub(crate) fn granted(&mut self, key: Option<String>) {
        self.ok += 1;
        self.signed_with.extend(key.filter(|k| !self.signed_with.contains(k)));
    }
}

pub(crate) struct State {
    db: SqlitePool,
    pub(crate) applications: BTreeMap<String, Application>,
    pub(crate) principals: BTreeMap<String, ServicePrincipal>,
    pub(crate) grants: BTreeMap<String, RoleGrant>,
    pub(crate) clients: BTreeMap<String, OidcClient>,
    /// The members that are named for a client; under no name, for all.
    settings: BTreeMap<String, Value>,
    pub(crate) counts: HashMap<String, Counts>,
    /// Digests of (client, jti), and when they may be forgotten, in seconds by this machine.
    used: BTreeMap<String, i64>,
    /// By their digests. They end with the process: to write each down would cost as much as the grant.
    opaque: HashMap<String, Opaque>,
}

/// What an opaque token is worth; times in seconds by the clock that its client sees.
#[derive(Debug, Clone)]
pub(crate) struct Opaque {
    pub(crate) client_id: String,
    pub(crate) scope: String,
    pub(crate) issued: i64,
    pub(crate) ends: i64,
}

/// A kind of document.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Application,
    Principal,
    Grant,
    Client,
    Settings,
    Used,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Principal => "principal",
            Self::Grant => "grant",
            Self::Client => "client",
            Self::Settings => "settings",
            Self::Used => "used",
        }
    }
}

/// What changes together.
#[derive(Default)]
pub(crate) struct Changes(Vec<(Kind, String, Option<String>)>);

impl Changes {
    pub(crate) fn put(mut self, kind: Kind, id: &str, document: &impl Serialize) -> Self {
        self.0.push((kind, id.to_owned(), serde_json::to_string(document).ok()));
        self
    }

    pub(crate) fn remove(mut self, kind: Kind, id: &str) -> Self {
        self.0.push((kind, id.to_owned(), None));
        self
    }
}

impl State {
    pub(crate) async fn open(data_dir: &Path) -> Result<Self, sqlx::Error> {
        let file = data_dir.join("sandbox.db");
        // The files beside it get its permissions.
        private_file(&file).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let db = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::query("CREATE TABLE IF NOT EXISTS documents (kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id)) STRICT")
            .execute(&db)
            .await?;
        let mut state = Self {
            applications: load(&db, Kind::Application).await?,
            principals: load(&db, Kind::Principal).await?,
            grants: load(&db, Kind::Grant).await?,
            clients: load(&db, Kind::Client).await?,
            settings: load(&db, Kind::Settings).await?,
            counts: HashMap::new(),
            used: load(&db, Kind::Used).await?,
            opaque: HashMap::new(),
            db,
        };
        state.forget_expired(machine_millis() / 1_000).await?;
        Ok(state)
    }

    /// Commits all changes or none.
    pub(crate) async fn commit(&self, changes: Changes) -> Result<(), sqlx::Error> {
        let mut transaction = self.db.begin().await?;
        for (kind, id, body) in changes.0 {
            let query = match &body {
                Some(_) => sqlx::query("INSERT OR REPLACE INTO documents (kind, id, body) VALUES (?, ?, ?)"),
                None => sqlx::query("DELETE FROM documents WHERE kind = ? AND id = ?"),
            };
            let query = query.bind(kind.name()).bind(id);
            let query = if let Some(body) = body { query.bind(body) } else { query };
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(crate) async fn close(&self) {
        self.db.close().await;
    }

    /// The settings in force for a client: what is named for it, over what is named for all.
    pub(crate) fn settings(&self, client: &str) -> Settings {
        self.layered(client, self.settings.get(client)).unwrap_or_default()
    }

    fn layered(&self, client: &str, own: Option<&Value>) -> Result<Settings, String> {
        let general = self.settings.get("").filter(|_| !client.is_empty());
        Settings::layered(general.into_iter().chain(own))
    }

    /// Names members for a client, or for all; or says what is wrong with them.
    pub(crate) async fn name_settings(
        &mut self,
        client: &str,
        members: &Value,
    ) -> Result<Result<Settings, String>, sqlx::Error> {
        let mut own = self.settings.get(client).cloned().unwrap_or_else(|| json!({}));
        merge(&mut own, members);
        let settings = match self.layered(client, Some(&own)) {
            Ok(settings) => settings,
            Err(wrong) => return Ok(Err(wrong)),
        };
        self.commit(Changes::default().put(Kind::Settings, client, &own)).await?;
        self.settings.insert(client.to_owned(), own);
        Ok(Ok(settings))
    }

    /// Takes an assertion's id, which is on disk before this returns; false if it was taken before. It is kept as long as the
    /// assertion can be used. A refusal changes nothing.
    pub(crate) async fn use_once(
        &mut self,
        client: &str,
        jti: &str,
        seconds: i64,
    ) -> Result<bool, sqlx::Error> {
        let now = machine_millis() / 1_000;
        let id = sha256_hex(&format!("{client} {jti}"));
        if self.used.get(&id).is_some_and(|end| *end > now) {
            return Ok(false);
        }
        if self.used.len() >= MAX_REMEMBERED {
            self.forget_expired(now).await?;
            if self.used.len() >= MAX_REMEMBERED {
                return Ok(false);
            }
        }
        let until = now.saturating_add(seconds);
        // In memory first: whoever gives up while this is written down has used it up all the same.
        self.used.insert(id.clone(), until);
        self.commit(Changes::default().put(Kind::Used, &id, &until)).await?;
        Ok(true)
    }

    /// An opaque token that was issued. When there are too many, those that ended are forgotten, or else all.
    pub(crate) fn remember(&mut self, token: &str, worth: Opaque) {
        if self.opaque.len() >= MAX_REMEMBERED {
            self.opaque.retain(|_, known| known.ends > worth.issued);
            if self.opaque.len() >= MAX_REMEMBERED {
                self.opaque.clear();
            }
        }
        self.opaque.insert(sha256_hex(token), worth);
    }

    /// What an opaque token is worth; none if it is not known or was revoked.
    pub(crate) fn opaque(&self, token: &str) -> Option<&Opaque> {
        self.opaque.get(&sha256_hex(token))
    }

    pub(crate) fn revoke(&mut self, token: &str) {
        self.opaque.remove(&sha256_hex(token));
    }

    async fn forget_expired(&mut self, now: i64) -> Result<(), sqlx::Error> {
        let expired = self.used.iter().filter(|(_, end)| **end <= now);
        let changes = expired.fold(Changes::default(), |changes, (id, _)| changes.remove(Kind::Used, id));
        self.commit(changes).await?;
        self.used.retain(|_, end| *end > now);
        Ok(())
    }

    /// The counts of a client that is known; those of all others are one, so that they take no room.
    pub(crate) fn counts_of(&mut self, client: &str) -> &mut Counts {
        let known = self.counts.contains_key(client)
            || self.clients.contains_key(client)
            || self.application_by_app_id(client).is_some();
        self.counts.entry(if known { client.to_owned() } else { String::new() }).or_default()
    }

    pub(crate) fn application_by_app_id(&self, app_id: &str) -> Option<&Application> {
        self.applications.values().find(|a| a.app_id == app_id)
    }

    pub(crate) fn principal_of(&self, app_id: &str) -> Option<&ServicePrincipal> {
        self.principals.values().find(|p| p.app_id == app_id)
    }

    /// What a service principal was granted on an API.
    pub(crate) fn granted<'a>(
        &'a self,
        principal: &'a str,
        resource: &'a str,
    ) -> impl Iterator<Item = &'a RoleGrant> {
        self.grants.values().filter(move |g| g.principal == principal && g.resource == resource)
    }
}

async fn load<T: DeserializeOwned>(db: &SqlitePool, kind: Kind) -> Result<BTreeMap<String, T>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, body FROM documents WHERE kind = ?").bind(kind.name()).fetch_all(db).await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let body: String = row.try_get("body")?;
        let document = serde_json::from_str(&body).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        Ok((row.try_get("id")?, document))
    };
    rows.iter().map(read).collect()
}

/// Milliseconds since the epoch, by this machine.
pub(crate) fn machine_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn sha256_hex(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_is_taken_once_and_a_refusal_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).await.unwrap();
        assert!(state.use_once("client", "jti", 60).await.unwrap());
        assert!(!state.use_once("client", "jti", -13).await.unwrap());
        assert!(!state.use_once("client", "jti", 60).await.unwrap());
        assert!(state.use_once("other", "jti", 60).await.unwrap());
        assert!(state.use_once("client", "ended", -1).await.unwrap());
        state.close().await;

        let mut again = State::open(folder.path()).await.unwrap();
        assert_eq!(again.used.len(), 2, "what has ended is forgotten");
        assert!(!again.use_once("client", "jti", 60).await.unwrap());
    }

    #[tokio::test]
    async fn settings_of_a_client_lie_over_those_of_all_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).await.unwrap();
        state.name_settings("client", &json!({"latency_ms": 500})).await.unwrap().unwrap();
        state.name_settings("", &json!({"token_lifetime_seconds": 33})).await.unwrap().unwrap();
        state.name_settings("", &json!({"latency_ms": -1})).await.unwrap().unwrap_err();
        state.close().await;

        let state = State::open(folder.path()).await.unwrap();
        let of = |client| {
            let settings = state.settings(client);
            (settings.latency_ms, settings.token_lifetime_seconds)
        };
        assert_eq!((of("client"), of("other")), ((500, Some(33)), (0, Some(33))));
    }

    #[tokio::test]
    async fn what_nobody_registered_is_counted_in_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).await.unwrap();
        for n in 0..100 {
            state.counts_of(&format!("stranger-{n}")).asked(&format!("scope-{n}"));
        }
        assert_eq!(state.counts.len(), 1);
        let counts = state.counts_of("stranger");
        assert_eq!((counts.total, counts.by_scope.len()), (100, MAX_SCOPES + 1));
    }

    #[tokio::test]
    async fn only_its_owner_reads_the_database() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).await.unwrap();
        state.commit(Changes::default().put(Kind::Used, "x", &1)).await.unwrap();
        for name in ["sandbox.db", "sandbox.db-wal", "sandbox.db-shm"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
