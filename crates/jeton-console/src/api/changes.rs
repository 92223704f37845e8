//! The buttons. What each does is an RPC, which the broker allows or refuses and writes down in the caller's name.

use axum::{
    Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
};
use jeton_proto::v1;
use serde_json::Value;

use super::{Answer, Broker, asked, identities::row};
use crate::failure::Failure;

/// The body of a change: an object, and nothing in it.
pub(super) async fn change(
    State(broker): State<Broker>,
    path: Result<Path<(String, String)>, PathRejection>,
    nothing: Result<Json<serde_json::Map<String, Value>>, JsonRejection>,
) -> Answer {
    let (Path((id, verb)), _) = (path?, nothing?);
    let (name, mut identities) = (format!("identities/{id}"), broker.identities());
    // A browser sends it once, and a person who presses again means it.
    let request_id = String::new();
    let refreshing = match verb.as_str() {
        "rotate" => {
            let request = v1::RotateCredentialRequest { name: name.clone(), request_id };
            asked(identities.rotate_credential(request)).await.map(|_| None)
        }
        "disable" => {
            let request = v1::DisableIdentityRequest { name: name.clone(), request_id };
            asked(identities.disable_identity(request)).await.map(|_| None)
        }
        "enable" => {
            let request = v1::EnableIdentityRequest { name: name.clone(), request_id };
            asked(identities.enable_identity(request)).await.map(|_| None)
        }
        "refresh" => {
            let request = v1::RefreshTokensRequest { name: name.clone(), request_id };
            asked(identities.refresh_tokens(request)).await.map(Some)
        }
        _ => Err(Failure::nothing_there()),
    };
    let (refreshing, mut shown) = (refreshing?, row(&broker, &name).await?);
    if let Some(refreshing) = refreshing {
        shown["under_way"] = refreshing.under_way.into();
        shown["left"] = refreshing.left.into();
    }
    Ok(Json(shown))
}
