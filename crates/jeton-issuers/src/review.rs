//! TokenReview (`authentication.k8s.io/v1`) at a cluster's API server.

use std::path::PathBuf;

use http::Method;
use jeton_access::{Reviewed, TokenReview};
use jeton_core::BoxFuture;
use jeton_http::Http;
use serde_json::{Value, json};

use crate::bearer;

/// Where the API server says to which pod a token is bound.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

pub(crate) struct ApiServer {
    http: Http,
    url: String,
    token_file: PathBuf,
}

impl ApiServer {
    pub(crate) fn new(http: Http, server: &str, token_file: &str) -> Self {
        let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", server.trim_end_matches('/'));
        Self { http, url, token_file: token_file.into() }
    }

    async fn ask(&self, token: &str, audience: &str) -> Result<Reviewed, String> {
        let ours = [("authorization", format!("Bearer {}", bearer(&self.token_file).await?))];
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let answer =
            self.http.json(Method::POST, &self.url, &ours, &body).await.map_err(|e| e.to_string())?;
        match answer.status {
            200 | 201 if answer.json["kind"] == "TokenReview" => Ok(reviewed(&answer.json["status"])),
            200 | 201 => Err(format!("{} answers with no TokenReview", self.url)),
            401 => Err(format!(
                "{} answers with 401: it does not know the token in {}",
                self.url,
                self.token_file.display()
            )),
            403 => Err(format!(
                "{} answers with 403: the token in {} may not create TokenReviews; bind its service account to the ClusterRole system:auth-delegator",
                self.url,
                self.token_file.display()
            )),
            status => Err(format!("{} answers with {status}", self.url)),
        }
    }
}

impl TokenReview for ApiServer {
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Reviewed, String>> {
        Box::pin(self.ask(token, audience))
    }
}

fn reviewed(status: &Value) -> Reviewed {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let user = &status["user"];
    Reviewed {
        authenticated: status["authenticated"].as_bool().unwrap_or(false),
        error: text(&status["error"]),
        username: text(&user["username"]),
        uid: text(&user["uid"]),
        audiences: status["audiences"].as_array().into_iter().flatten().map(text).collect(),
        pod_uid: user["extra"][POD_UID][0].as_str().map(str::to_owned),
    }
}
