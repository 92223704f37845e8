//! The sandbox's administrator: what a person does once in a directory, so that the broker may register clients there and its
//! identities may use the vault. Everything is looked up before it is made, so a second run finds it.

use std::time::Duration;

use anyhow::Context;
use http::Method;
use jeton_authority::{Answer, Http, bounds, trust};
use jeton_core::profile::AuthorityLimits;
use jeton_sandbox::Description;
use serde_json::{Value, json};

/// Microsoft Graph's application id is the same in every tenant.
const GRAPH_APP_ID: &str = "00000003-0000-0000-c000-000000000000";
const REGISTRAR_ROLE: &str = "Application.ReadWrite.OwnedBy";
const VAULT_URI: &str = "https://vault.example";
const VAULT_ROLE: &str = "Secrets.Read";
/// What was made is not seen everywhere at once.
const TRIES: u32 = 150;
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_SPREADING: Duration = Duration::from_secs(60);

pub(super) struct Administrator<'a> {
    http: Http,
    token: String,
    sandbox: &'a Description,
}

impl<'a> Administrator<'a> {
    pub(super) async fn sign_in(sandbox: &'a Description) -> anyhow::Result<Self> {
        let ca_file = sandbox.ca_file.display().to_string();
        let http = Http::new(trust(Some(&ca_file))?, bounds(&AuthorityLimits::default()));
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &sandbox.administrator.client_id),
            ("client_secret", &sandbox.administrator.client_secret),
            ("scope", &sandbox.entra.graph_scope),
        ];
        let answer = http.form(&sandbox.entra.token_endpoint, &[], &form).await?;
        let token =
            done("signing in as the sandbox's administrator", answer)?.text("access_token").to_owned();
        Ok(Self { http, token, sandbox })
    }

    /// Registers the broker's registrar with this certificate and lets it manage the applications that it makes. Its client id.
    pub(super) async fn registrar(&self, certificate: &str) -> anyhow::Result<String> {
        let key = json!({"type": "AsymmetricX509Cert", "usage": "Verify", "key": certificate});
        let body = json!({"displayName": "Jeton registrar", "keyCredentials": [key]});
        self.ask(Method::PATCH, "/applications(uniqueName='jeton-registrar')", &body).await?;
        let filter = "uniqueName eq 'jeton-registrar'";
        let client_id = self.find("/applications", filter, "appId").await?;
        let seen = self.read(&format!("/servicePrincipals?$filter=appId eq '{client_id}'")).await?;
        if seen["value"].as_array().is_none_or(Vec::is_empty) {
            self.until_done(Method::POST, "/servicePrincipals", &json!({"appId": client_id})).await?;
        }
        self.grant(&client_id, &format!("appId eq '{GRAPH_APP_ID}'"), REGISTRAR_ROLE).await?;
        Ok(client_id)
    }

    /// Lets a client read the vault's secrets.
    pub(super) async fn grant_vault(&self, client_id: &str) -> anyhow::Result<()> {
        let vault =
            self.find("/applications", &format!("identifierUris/any(x:x eq '{VAULT_URI}')"), "appId").await?;
        self.grant(client_id, &format!("appId eq '{vault}'"), VAULT_ROLE).await
    }

    /// Waits until what was granted has spread through the directory.
    pub(super) async fn spread(&self) -> anyhow::Result<()> {
        let answer = self.http.read(&format!("{}/sandbox/settings", self.sandbox.url), None).await?;
        let delay = done("reading the sandbox's settings", answer)?.json["propagation_delay_seconds"]
            .as_f64()
            .unwrap_or(0.0);
        tokio::time::sleep(Duration::try_from_secs_f64(delay).unwrap_or_default().min(LONGEST_SPREADING))
            .await;
        Ok(())
    }

    async fn grant(&self, client_id: &str, api: &str, role: &str) -> anyhow::Result<()> {
        let principal = self.find("/servicePrincipals", &format!("appId eq '{client_id}'"), "id").await?;
        let api = self.read(&format!("/servicePrincipals?$filter={api}")).await?["value"][0].clone();
        let resource = api["id"].as_str().context("the sandbox does not know the API")?;
        let roles = api["appRoles"].as_array().into_iter().flatten();
        let role = roles
            .clone()
            .find(|r| r["value"] == role)
            .and_then(|r| r["id"].as_str())
            .context("the API has no such role")?;
        let granted = self.read(&format!("/servicePrincipals/{principal}/appRoleAssignments")).await?;
        let has = granted["value"]
            .as_array()
            .is_some_and(|all| all.iter().any(|g| g["resourceId"] == resource && g["appRoleId"] == role));
        if !has {
            let body = json!({"principalId": principal, "resourceId": resource, "appRoleId": role});
            self.ask(Method::POST, &format!("/servicePrincipals/{resource}/appRoleAssignedTo"), &body)
                .await?;
        }
        Ok(())
    }

    /// A member of the one thing that a filter finds, once it is seen.
    async fn find(&self, collection: &str, filter: &str, member: &str) -> anyhow::Result<String> {
        for _ in 0..TRIES {
            let found = self.read(&format!("{collection}?$filter={filter}")).await?;
            if let Some(text) = found["value"][0][member].as_str() {
                return Ok(text.to_owned());
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::bail!("{collection} with {filter} is not seen at the sandbox")
    }

    async fn until_done(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
        for _ in 1..TRIES {
            if self.ask(method.clone(), path, body).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.ask(method, path, body).await
    }

    async fn read(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{}", self.sandbox.entra.graph, path.replace(' ', "%20"));
        let answer = self.http.read(&url, Some(&self.token)).await?;
        Ok(done(path, answer)?.json)
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
        let url = format!("{}{path}", self.sandbox.entra.graph);
        let headers =
            [("authorization", format!("Bearer {}", self.token)), ("prefer", "create-if-missing".to_owned())];
        done(path, self.http.json(method, &url, &headers, body).await?).map(drop)
    }

    /// Reads the demo secret with a token. Status and value.
    pub(super) async fn vault(sandbox: &Description, token: &str) -> anyhow::Result<(u16, String)> {
        let ca_file = sandbox.ca_file.display().to_string();
        let http = Http::new(trust(Some(&ca_file))?, bounds(&AuthorityLimits::default()));
        let url = format!("{}/secrets/{}?api-version=7.4", sandbox.vault.url, sandbox.vault.secret);
        let answer = http.read(&url, Some(token)).await?;
        Ok((answer.status, answer.text("value").to_owned()))
    }
}

fn done(what: &str, answer: Answer) -> anyhow::Result<Answer> {
    anyhow::ensure!(
        answer.is_success(),
        "{what}: the sandbox answered {} {}",
        answer.status,
        answer.json["error"]["message"].as_str().unwrap_or_else(|| answer.text("error_description"))
    );
    Ok(answer)
}
