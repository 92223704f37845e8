//! Callers' bearer tokens: their issuers, as they are configured, and the tasks that keep these issuers' keys.

use std::sync::Arc;

use anyhow::Context;
use jeton_access::{AccessSettings, BearerTokens, TokenTasks, Tokens};
use jeton_core::Clock;

/// Who judges bearer tokens; none where no issuer is configured, and then no token counts.
pub(crate) fn bearer_tokens(
    settings: &AccessSettings,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(Option<Arc<dyn BearerTokens>>, TokenTasks)> {
    let ports = settings.issuers.iter().map(jeton_issuers::ports).collect::<Result<_, _>>();
    let ports = ports.context("callers' tokens cannot be verified ([[access.issuers]])")?;
    let (tokens, tasks) = Tokens::start(settings, ports, clock);
    let some = !settings.issuers.is_empty();
    Ok((some.then_some(tokens as Arc<dyn BearerTokens>), tasks))
}

#[cfg(test)]
mod tests {
    use jeton_core::SystemClock;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn no_issuer_means_that_no_token_counts_and_one_that_cannot_be_asked_ends_the_start() {
        let (tokens, tasks) = bearer_tokens(&AccessSettings::default(), Arc::new(SystemClock)).unwrap();
        assert!(tokens.is_none());
        tasks.shutdown().await;
        let issuer = json!({"kind": "oidc", "issuer": "https://a.example", "audience": "jeton", "ca_file": "/nowhere/ca.pem"});
        let mut settings: AccessSettings = serde_json::from_value(json!({ "issuers": [issuer] })).unwrap();
        let error = bearer_tokens(&settings, Arc::new(SystemClock)).err().unwrap();
        assert!(format!("{error:#}").contains("/nowhere/ca.pem"), "{error:#}");
        settings.issuers[0].ca_file.clear();
        settings.issuers[0].jwks_file = "keys.json".into();
        let (tokens, tasks) = bearer_tokens(&settings, Arc::new(SystemClock)).unwrap();
        assert!(tokens.unwrap().verify("no token").await.is_err());
        tasks.shutdown().await;
    }
}
