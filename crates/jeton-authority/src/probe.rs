//! The test of an authority, for the operator who doubts it.

use jeton_core::{Authority, profile::RegistrationStyle};

use crate::{AuthorityClient, registration::registrar};

/// One thing that a test of an authority tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestStep {
    /// What.
    pub name: &'static str,
    /// Whether it worked.
    pub ok: bool,
    /// What was seen, and what to do if it failed.
    pub detail: String,
}

impl AuthorityClient {
    /// One real round trip with the registrar, explained. Nothing that is kept answers for the authority.
    pub async fn test(&self, authority: &Authority) -> Vec<TestStep> {
        let mut steps = vec![step("reach the token endpoint", self.reach(authority).await)];
        if steps[0].ok && matches!(authority.profile.registration, RegistrationStyle::Graph { .. }) {
            steps.push(step("prove the registrar", self.prove(authority).await));
        }
        steps
    }

    async fn reach(&self, authority: &Authority) -> Result<String, String> {
        let endpoint = &authority.profile.token_endpoint;
        let http = self.0.http(authority).map_err(|e| e.to_string())?;
        // An empty request is refused by every authority, and its refusal is an answer.
        match http.form(endpoint, &[], &[]).await.map_err(|e| e.to_string())?.status {
            status @ 500.. => Err(format!(
                "{endpoint} answers {status}: the authority, or a proxy before it, does not serve; try again later, or ask who runs it"
            )),
            status => Ok(format!("{endpoint} answers ({status})")),
        }
    }

    async fn prove(&self, authority: &Authority) -> Result<String, String> {
        let client = registrar(authority).map_err(|e| e.message)?;
        let granted = self.0.new_graph_token(authority, client).await;
        granted
            .map(|_| "the registrar's assertion was accepted and a token issued".to_owned())
            .map_err(|e| e.message)
    }
}

fn step(name: &'static str, outcome: Result<String, String>) -> TestStep {
    TestStep { name, ok: outcome.is_ok(), detail: outcome.unwrap_or_else(|e| e) }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    };

    use crate::scripted::{SECRET, answer, scripted};

    const TOKEN: &str = r#"{"access_token": "a", "token_type": "Bearer", "expires_in": 3600}"#;

    #[tokio::test]
    async fn an_authority_that_answers_5xx_is_not_well_though_a_token_of_the_registrars_is_kept() {
        let status = Arc::new(AtomicU16::new(200));
        let (client, authority) = scripted({
            let status = Arc::clone(&status);
            move |request| match status.load(Ordering::SeqCst) {
                200 if request.contains("grant_type") => (200, TOKEN.to_owned()),
                200 => answer(400, "no grant_type"),
                status => answer(status, "down"),
            }
        })
        .await;
        client.0.registrar_token(&authority).await.unwrap();
        let steps = client.test(&authority).await;
        assert!(steps.len() == 2 && steps.iter().all(|step| step.ok), "{steps:?}");
        status.store(503, Ordering::SeqCst);
        let steps = client.test(&authority).await;
        assert!(steps.len() == 1 && !steps[0].ok && steps[0].detail.contains("answers 503"), "{steps:?}");
        assert!(client.0.registrar_token(&authority).await.is_ok(), "a test leaves what is kept alone");
    }

    #[tokio::test]
    async fn a_registrar_that_is_refused_now_is_told_though_its_token_is_kept_and_without_its_secret() {
        let (client, authority) = scripted({
            let asked = AtomicU16::new(0);
            move |request| match request.contains("grant_type") {
                true if asked.fetch_add(1, Ordering::SeqCst) == 0 => (200, TOKEN.to_owned()),
                _ => answer(400, &format!("not {SECRET} in {}", request.split("\r\n\r\n").last().unwrap())),
            }
        })
        .await;
        client.0.registrar_token(&authority).await.unwrap();
        let steps = client.test(&authority).await;
        let [reached, proved] = &steps[..] else { panic!("{steps:?}") };
        assert!(reached.ok && !proved.ok, "{steps:?}");
        assert!(proved.detail.contains("not [left out] in grant_type"), "{proved:?}");
        assert!(proved.detail.contains("client_secret=[left out]"), "percent-encoded: {proved:?}");
    }
}
