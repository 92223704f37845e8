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
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::model::{Application, OidcClient, RoleGrant, ServicePrincipal, Settings};

/// Remembered ids of assertions; older ones have expired by then.
const MAX_REMEMBERED: usize = 1_000_000;

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

pub(crate) struct State {
    db: SqlitePool,
    pub(crate) applications: BTreeMap<String, Application>,
    pub(crate) principals: BTreeMap<String, ServicePrincipal>,
    pub(crate) grants: BTreeMap<String, RoleGrant>,
    pub(crate) clients: BTreeMap<String, OidcClient>,
    settings: BTreeMap<String, Settings>,
    pub(crate) counts: HashMap<String, Counts>,
    /// (client, jti) and when it may be forgotten.
    used: HashMap<(String, String), i64>,
}

/// A kind of document.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Application,
    Principal,
    Grant,
    Client,
    Settings,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Principal => "principal",
            Self::Grant => "grant",
            Self::Client => "client",
            Self::Settings => "settings",
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
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join("sandbox.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let db = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::query("CREATE TABLE IF NOT EXISTS documents (kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id)) STRICT")
            .execute(&db)
            .await?;
        Ok(Self {
            applications: load(&db, Kind::Application).await?,
            principals: load(&db, Kind::Principal).await?,
            grants: load(&db, Kind::Grant).await?,
            clients: load(&db, Kind::Client).await?,
            settings: load(&db, Kind::Settings).await?,
            counts: HashMap::new(),
            used: HashMap::new(),
            db,
        })
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

    /// The settings in force for a client: its own, or those for all.
    pub(crate) fn settings(&self, client: &str) -> Settings {
        self.settings.get(client).or_else(|| self.settings.get("")).copied().unwrap_or_default()
    }

    pub(crate) async fn set_settings(&mut self, client: &str, settings: Settings) -> Result<(), sqlx::Error> {
        self.commit(Changes::default().put(Kind::Settings, client, &settings)).await?;
        self.settings.insert(client.to_owned(), settings);
        Ok(())
    }

    /// Remembers an assertion's id; false if it was used before.
    pub(crate) fn use_once(&mut self, client: &str, jti: &str, until: i64, now: i64) -> bool {
        if self.used.len() >= MAX_REMEMBERED {
            self.used.retain(|_, end| *end > now);
        }
        self.used.insert((client.to_owned(), jti.to_owned()), until).is_none_or(|end| end <= now)
    }

    pub(crate) fn application_by_app_id(&self, app_id: &str) -> Option<&Application> {
        self.applications.values().find(|a| a.app_id == app_id)
    }

    pub(crate) fn principal_of(&self, app_id: &str) -> Option<&ServicePrincipal> {
        self.principals.values().find(|p| p.app_id == app_id)
    }

    /// The values of the app roles that a service principal has on an API.
    pub(crate) fn roles(
        &self,
        principal: &str,
        api: &Application,
        visible: impl Fn(i64) -> bool,
    ) -> Vec<String> {
        let Some(resource) = self.principal_of(&api.app_id) else { return vec![] };
        let granted = self
            .grants
            .values()
            .filter(|g| g.principal == principal && g.resource == resource.id && visible(g.created_ms));
        let mut roles: Vec<_> = granted
            .filter_map(|g| api.app_roles.iter().find(|r| r.id == g.role))
            .map(|r| r.value.clone())
            .collect();
        roles.sort();
        roles
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
