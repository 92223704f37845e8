//! Every kind of wrong request gets a code, a reason, and words that say what to do.

use jeton_proto::v1;
use tonic::{Code, Status};

use crate::support::{VAULT, World, reason, request};

async fn refused(world: &World, request: v1::GetTokenRequest) -> Status {
    world.broker.tokens().await.get_token(request).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_request_is_told_what_is_wrong() {
    let world = World::start().await;
    let billing = |scope: &str| request("identities/billing", scope);
    let with = |change: fn(&mut v1::GetTokenRequest)| {
        let mut request = billing(VAULT);
        change(&mut request);
        request
    };
    let cases = [
        (request("billing", VAULT), Code::InvalidArgument, "INVALID_NAME", "identities/"),
        (request("identities/Nobody!", VAULT), Code::InvalidArgument, "INVALID_NAME", "lower-case"),
        (
            request("identities/nobody", VAULT),
            Code::PermissionDenied,
            "ACCESS_DENIED",
            "jeton access explain",
        ),
        (
            billing("https://graph.microsoft.com/.default"),
            Code::PermissionDenied,
            "ACCESS_DENIED",
            "jeton access explain",
        ),
        (billing("has space"), Code::InvalidArgument, "INVALID_TARGET", "RFC 6749"),
        (billing("https://vault.example/secret.read"), Code::InvalidArgument, "INVALID_TARGET", "/.default"),
        (
            with(|r| r.scopes.push("https://orders.example/.default".into())),
            Code::InvalidArgument,
            "INVALID_TARGET",
            "each by itself",
        ),
        (with(|r| r.scopes.clear()), Code::InvalidArgument, "INVALID_TARGET", "say what the token is for"),
        (with(|r| r.resources.push("not a uri".into())), Code::InvalidArgument, "INVALID_TARGET", "RFC 8707"),
        (with(|r| r.claims = "{".into()), Code::InvalidArgument, "INVALID_CLAIMS", "JSON"),
        (with(|r| r.claims = "[]".into()), Code::InvalidArgument, "INVALID_CLAIMS", "object"),
        (
            with(|r| r.claims = format!("{{\"a\":\"{}\"}}", "x".repeat(5_000))),
            Code::InvalidArgument,
            "INVALID_CLAIMS",
            "4096",
        ),
        (
            with(|r| r.min_validity = Some(prost_types::Duration { seconds: 3_000, nanos: 0 })),
            Code::InvalidArgument,
            "INVALID_MIN_VALIDITY",
            "40 %",
        ),
        (
            with(|r| r.min_validity = Some(prost_types::Duration { seconds: -1, nanos: 0 })),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "min_validity",
        ),
    ];
    for (request, code, why, words) in cases {
        let shown = format!("{request:?}");
        let status = refused(&world, request).await;
        assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{shown}: {status}");
        assert!(status.message().contains(words), "{words} in {:?}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_refused_before_it_is_read() {
    let world = World::start().await;
    // Over what the decoder takes, and over what is no batch.
    for length in [2 * 1024 * 1024, 100 * 1024] {
        let huge = v1::GetTokenRequest { claims: "x".repeat(length), ..request("identities/billing", VAULT) };
        let status = refused(&world, huge).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "REQUEST_TOO_LARGE"));
        assert!(status.message().contains("64 KiB"), "{status}");
    }
    let requests = vec![request("identities/billing", VAULT); 101];
    let status = world
        .broker
        .tokens()
        .await
        .batch_get_tokens(v1::BatchGetTokensRequest { requests })
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "INVALID_FIELD");
    assert!(status.message().contains("at most 100"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_repeats_a_change_and_never_makes_another() {
    let world = World::start().await;
    let mut admin = world.broker.identities().await;
    let create = |id: &str| v1::CreateIdentityRequest {
        identity_id: id.into(),
        authority: "authorities/entra".into(),
        request_id: "one".into(),
        ..Default::default()
    };
    let first = admin.create_identity(create("twice")).await.unwrap().into_inner().identity.unwrap();
    let second = admin.create_identity(create("twice")).await.unwrap().into_inner().identity.unwrap();
    assert_eq!(first.uid, second.uid);
    let other = admin.create_identity(create("other")).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_role_assignments_say_which_part_is_wrong() {
    let world = World::start().await;
    let mut access = world.broker.access().await;
    let assign = |member: &str, identity: &str, target: &str| v1::CreateRoleAssignmentRequest {
        member: member.into(),
        identity: identity.into(),
        targets: vec![target.into()],
        ..Default::default()
    };
    let cases = [
        (assign("workloads/nobody", "identities/billing", "*"), Code::NotFound, "workloads/nobody"),
        (assign("workloads/demo", "identities/nobody", "*"), Code::NotFound, "identities/nobody"),
        (assign("somebody", "identities/billing", "*"), Code::InvalidArgument, "member"),
        (assign("unix://*", "identities/billing", "*"), Code::InvalidArgument, "member"),
        (assign("workloads/demo", "identities/pay*", "*"), Code::InvalidArgument, "identity"),
        (assign("workloads/demo", "identities/billing", "has space"), Code::InvalidArgument, "targets"),
    ];
    for (request, code, words) in cases {
        let status = access.create_role_assignment(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{words} in {:?}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_refuses_is_told_in_its_own_words() {
    let world = World::start().await;
    let assign = [
        "access",
        "assign",
        "--member",
        "workloads/demo",
        "--identity",
        "billing",
        "--target",
        "https://unknown.example/.default",
    ];
    world.broker.json(&assign);
    let status = refused(&world, request("identities/billing", "https://unknown.example/.default")).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "AUTHORITY_REFUSED"),
        "{status}"
    );
    assert!(status.message().contains("AADSTS500011"), "{status}");
}
