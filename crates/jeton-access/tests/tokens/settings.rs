//! What a configuration of issuers may say.

use jeton_access::{AccessSettings, IssuerKind, IssuerSettings, TokenReviewSettings};

use crate::world::issuer;

fn problems(issuers: Vec<IssuerSettings>) -> Vec<String> {
    let settings = AccessSettings { issuers, ..AccessSettings::default() };
    settings.validate().into_iter().map(|problem| problem.key).collect()
}

fn changed(kind: IssuerKind, change: impl Fn(&mut IssuerSettings)) -> Vec<String> {
    let mut issuer = issuer(kind);
    change(&mut issuer);
    problems(vec![issuer])
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong = changed(IssuerKind::Oidc, |issuer| {
        issuer.audience.clear();
        issuer.cluster = "east".into();
        issuer.jwks_url = "http://issuer.example/keys".into();
        issuer.jwks_file = "keys.json".into();
        issuer.algorithms = vec!["RS256".into(), "HS256".into()];
        issuer.leeway_seconds = 61;
        issuer.refresh_seconds = 5;
        issuer.require_pod = true;
        issuer.token_review = Some(TokenReviewSettings {
            api_server: "kubernetes".into(),
            ca_file: String::new(),
            token_file: String::new(),
        });
    });
    let keys = [
        "audience",
        "cluster",
        "require_pod",
        "token_review",
        "jwks_file",
        "algorithms",
        "leeway_seconds",
        "refresh_seconds",
        "token_review.api_server",
        "token_review.token_file",
    ];
    assert_eq!(wrong, keys.map(|key| format!("issuers[0].{key}")));
}

#[test]
fn keys_come_over_tls_or_from_this_very_machine() {
    for url in [
        "https://issuer.example/keys",
        "https://10.0.0.1:6443/keys",
        "http://127.0.0.1:8080/keys",
        "http://[::1]:80/keys",
    ] {
        assert_eq!(changed(IssuerKind::Oidc, |i| i.jwks_url = url.into()), Vec::<String>::new(), "{url}");
    }
    for url in [
        "http://issuer.example/keys",
        "http://localhost/keys",
        "http://127.0.0.1.example/keys",
        "https://user:secret@issuer.example/keys",
        "https://issuer.example/keys?x=1",
        "https://issuer.example/keys#x",
        "https://",
        "file:///etc/keys",
        "keys",
    ] {
        assert_eq!(changed(IssuerKind::Oidc, |i| i.jwks_url = url.into()), ["issuers[0].jwks_url"], "{url}");
    }
    assert_eq!(
        changed(IssuerKind::Kubernetes, |i| i.issuer = "kubernetes/serviceaccount".into()),
        ["issuers[0].issuer"]
    );
    let from_file = changed(IssuerKind::Kubernetes, |i| {
        (i.issuer, i.jwks_file) = ("kubernetes/serviceaccount".into(), "keys.json".into());
    });
    assert_eq!(from_file, Vec::<String>::new(), "an issuer that is only compared may be any text");
}

#[test]
fn each_kind_names_its_subjects_in_its_own_way() {
    assert_eq!(changed(IssuerKind::Kubernetes, |i| i.cluster.clear()), ["issuers[0].cluster"]);
    assert_eq!(changed(IssuerKind::Kubernetes, |i| i.cluster = "a/b".into()), ["issuers[0].cluster"]);
    assert_eq!(changed(IssuerKind::Spiffe, |i| i.trust_domain = "Prod".into()), ["issuers[0].trust_domain"]);
    assert_eq!(changed(IssuerKind::Spiffe, |i| i.trust_domain.clear()), ["issuers[0].trust_domain"]);
    assert_eq!(changed(IssuerKind::Oidc, |i| i.name = "a b".into()), ["issuers[0].name"]);
    let plain = |name: &str| {
        changed(IssuerKind::Oidc, |i| (i.issuer, i.name) = ("http://127.0.0.1:1".into(), name.into()))
    };
    assert_eq!(plain(""), ["issuers[0].name"], "a principal holds https issuers alone");
    assert_eq!(plain("local"), Vec::<String>::new());
}

#[test]
fn no_two_issuers_give_principals_that_look_alike() {
    let of = |url: &str| {
        let mut it = issuer(IssuerKind::Oidc);
        it.issuer = url.into();
        it
    };
    let (a, b) = (of("https://kc.example/realms/a"), of("https://kc.example/realms/b"));
    assert_eq!(problems(vec![a.clone(), b]), Vec::<String>::new());
    assert_eq!(problems(vec![a.clone(), a.clone()]), ["issuers[1].issuer", "issuers[1].name"]);
    assert_eq!(problems(vec![a.clone(), of("https://kc.example/realms/a/")]), ["issuers[1].name"]);
    let mut below = of("https://kc.example/realms/a/b");
    assert_eq!(
        problems(vec![a.clone(), below.clone()]),
        ["issuers[1].name"],
        "a pattern over one would cover the other"
    );
    assert_eq!(problems(vec![below.clone(), a.clone()]), ["issuers[1].name"]);
    below.name = "b".into();
    assert_eq!(problems(vec![a, below]), Vec::<String>::new());
}
