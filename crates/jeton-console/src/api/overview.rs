//! Who looks, and how the broker is doing.

use axum::{Json, extract::State};
use jeton_proto::v1;
use serde_json::json;

use super::{Answer, Broker, asked};
use crate::shown;

pub(super) async fn me(State(broker): State<Broker>) -> Answer {
    let me = asked(broker.status().who_am_i(v1::WhoAmIRequest {})).await?;
    let may = |permission: &str| me.permissions.iter().any(|it| it == permission);
    let changes = may("identities.change");
    Ok(Json(json!({
        "principal": me.principal,
        "version": me.version,
        "node": me.node,
        "may": {"rotate": changes, "disable": changes, "refresh": changes, "explain": may("assignments.read")},
        "everything": me.permissions_on_everything.iter().any(|it| it == "status.read"),
    })))
}

pub(super) async fn overview(State(broker): State<Broker>) -> Answer {
    let status = asked(broker.status().status(v1::StatusRequest {})).await?;
    Ok(Json(shown::status(&status)))
}
