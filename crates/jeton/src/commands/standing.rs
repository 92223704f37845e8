//! How identities fare (`jeton identity worst`), and having their tokens asked for anew (`jeton identity refresh`).

use jeton_proto::v1::{
    self, identity_service_client::IdentityServiceClient, status_service_client::StatusServiceClient,
};
use serde_json::{Value, json};

use super::{Common, full, shown};

/// `jeton identity worst`
#[derive(Debug, clap::Args)]
pub(super) struct WorstArguments {
    /// Only those in whose name, display name or client id this is found
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
    /// Only those of this authority
    #[arg(long, default_value = "")]
    authority: String,
    /// So many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
}

pub(super) async fn worst(common: &Common, arguments: WorstArguments) -> anyhow::Result<()> {
    let mut client = StatusServiceClient::new(common.broker.admin_plane().await?);
    let request = v1::ListIdentityStatusesRequest {
        page_size: arguments.limit,
        query: arguments.search,
        authority: full(&arguments.authority, "authorities/"),
        order: v1::IdentityOrder::Worst.into(),
        ..Default::default()
    };
    let found = client.list_identity_statuses(request).await?.into_inner();
    let shown: Vec<_> = found.identities.iter().map(shown::identity_status).collect();
    let heads = ["name", "state", "starves in", "credential until", "last used", "last error"];
    common.output.many(&shown, &heads, |row| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let left = row["starves_in_seconds"].as_f64().map(|left| format!("{left:.0} s")).unwrap_or_default();
        let times = [text("credential_expire_time"), text("last_use_time")];
        let [until, used] = times;
        vec![text("name"), text("state"), left, until, used, text("last_error")]
    })
}

pub(super) async fn refresh(common: &Common, name: &str) -> anyhow::Result<()> {
    let mut client = IdentityServiceClient::new(common.broker.admin_plane().await?);
    let request = v1::RefreshTokensRequest { name: full(name, "identities/"), ..Default::default() };
    let done = client.refresh_tokens(request).await?.into_inner();
    common.output.one(&json!({"under_way": done.under_way, "left": done.left}), |done: &Value| {
        vec![("under way", done["under_way"].to_string()), ("left", done["left"].to_string())]
    })
}
