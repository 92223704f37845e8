//! Who looks, how the broker is doing, and how it did.

use std::collections::HashMap;

use axum::{Json, extract::State};
use jeton_proto::v1;
use serde_json::{Value, json};

use super::{Answer, Broker, asked};
use crate::shown;

/// Most authorities that are shown: pages of a thousand.
const MOST_PAGES: usize = 4;

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

pub(super) async fn history(State(broker): State<Broker>) -> Answer {
    let history = asked(broker.status().get_history(v1::GetHistoryRequest {})).await?;
    let point = |point: &v1::HistoryPoint| {
        let mut shown = point.rates.as_ref().map(shown::rates).unwrap_or_default();
        shown["time"] = shown::time(point.time.as_ref()).into();
        shown
    };
    Ok(Json(json!({
        "interval_seconds": shown::seconds(history.interval.as_ref()),
        "points": history.points.iter().map(point).collect::<Vec<_>>(),
    })))
}

pub(super) async fn authorities(State(broker): State<Broker>) -> Answer {
    let status = asked(broker.status().status(v1::StatusRequest {})).await?;
    let mut known = HashMap::new();
    let mut request = v1::ListAuthoritiesRequest { page_size: 1_000, ..Default::default() };
    for _ in 0..MOST_PAGES {
        let page = asked(broker.authorities().list_authorities(request.clone())).await?;
        known.extend(page.authorities.into_iter().map(|authority| (authority.name.clone(), authority)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let shown = status.authorities.iter().map(|of| {
        let mut shown = shown::authority_status(of);
        if let Some(authority) = known.get(&of.name) {
            describe(&mut shown, authority);
        }
        shown
    });
    Ok(Json(json!({"authorities": shown.collect::<Vec<_>>()})))
}

/// What is set up of an authority.
fn describe(shown: &mut Value, authority: &v1::Authority) {
    let profile: Value = serde_json::from_str(&authority.profile_json).unwrap_or_default();
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let parts =
        [&profile["registration"]["style"], &profile["assertion"]["algorithm"], &profile["key"]].map(text);
    shown["display_name"] = authority.display_name.clone().into();
    shown["profile"] = parts.join(", ").into();
    shown["issuer_or_endpoint"] = text(&profile["issuer"]).into();
    shown["registrar"] = shown::lower(authority.registrar().as_str_name(), "REGISTRAR_KIND_").into();
}
