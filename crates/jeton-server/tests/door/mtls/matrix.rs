//! Who is let in, and as whom.

use std::sync::Arc;

use jeton_access::NameKind;
use jeton_server::door::{ClientCertificates, DoorSettings, Tls};

use super::made::{Made, Pair, Wanted, as_whom, spiffe, trusting, x509};
use crate::{
    log::Log,
    support::{Callers, open_for, until},
};

/// What is expected of one certificate: the principal, or a part of the reason in the operator's log.
type Expected = Result<&'static str, &'static str>;

async fn expect(made: &Made, tls: &Arc<Tls>, shown: Option<&Pair>, expected: Expected) {
    // A door of its own: lines of a door come once in a second.
    let log = Log::of_a_door();
    let callers = Callers { name: log.door, tls: Some(Arc::clone(tls)), ..Callers::default() };
    let door = open_for(DoorSettings::default(), false, callers).await;
    let found = as_whom(door.address, &made.path("ca.pem"), shown).await;
    match (expected, found) {
        (Ok(principal), found) => assert_eq!(found.as_deref(), Ok(principal), "{shown:?}: {}", log.text()),
        (Err(reason), Err(told)) => {
            until("it is counted", || (door.stats)().refused == 1).await;
            // The line is written before it is counted.
            let said = log.text();
            assert!(
                said.contains("a peer is not let in") && said.contains(reason),
                "{shown:?}: {reason} in {said}"
            );
            for word in [reason, "spiffe", "bundle", "expired", "Unknown"] {
                assert!(!told.contains(word), "{shown:?}: the caller hears {told}");
            }
        }
        (Err(reason), Ok(principal)) => panic!("{shown:?} is let in as {principal}, in spite of {reason}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spiffe_certificate_of_the_bundle_lets_in_and_what_looks_like_one_does_not() {
    let made = Made::new();
    made.authority("other");
    let tls =
        trusting(&made, ClientCertificates::Required, &[(&made.path("ca.pem"), spiffe("prod.example"))]);
    let names = |names: &'static str| Wanted { names, ..Wanted::default() };
    let cases: [(&str, &str, Wanted<'_>, Expected); 18] = [
        ("right", "ca", Wanted::default(), Ok("spiffe://prod.example/api")),
        ("wrong-ca", "other", Wanted::default(), Err("BadSignature")),
        ("expired", "ca", Wanted { until: "20210101000000Z", ..Wanted::default() }, Err("expired")),
        ("early", "ca", Wanted { from: "20980101000000Z", ..Wanted::default() }, Err("not valid yet")),
        ("usage", "ca", Wanted { usage: "serverAuth", ..Wanted::default() }, Err("client authentication")),
        ("no-usage", "ca", Wanted { usage: "", ..Wanted::default() }, Ok("spiffe://prod.example/api")),
        ("no-name", "ca", names(""), Err("no URI")),
        ("dns-only", "ca", names("DNS:prod.example"), Err("no URI")),
        ("two", "ca", names("URI:spiffe://prod.example/api,URI:spiffe://prod.example/admin"), Err("2 URIs")),
        ("domain", "ca", names("URI:spiffe://test.example/api"), Err("another trust domain")),
        ("longer", "ca", names("URI:spiffe://prod.example.evil.example/api"), Err("another trust domain")),
        ("upper", "ca", names("URI:spiffe://Prod.example/api"), Err("another trust domain")),
        ("scheme", "ca", names("URI:SPIFFE://prod.example/api"), Err("begin with spiffe")),
        ("dot", "ca", names("URI:spiffe://prod.example./api"), Err("another trust domain")),
        ("percent", "ca", names("URI:spiffe://prod.example/%61pi"), Err("percent-encoded")),
        ("slash", "ca", names("URI:spiffe://prod.example/api/"), Err("single slashes")),
        (
            "authority",
            "ca",
            Wanted { more: "basicConstraints=critical,CA:TRUE", ..Wanted::default() },
            Err("CaUsedAsEndEntity"),
        ),
        (
            "signs",
            "ca",
            Wanted { more: "keyUsage=critical,digitalSignature,keyCertSign", ..Wanted::default() },
            Err("sign certificates"),
        ),
    ];
    for (name, by, wanted, expected) in cases {
        let pair = made.signed(name, by, &wanted);
        expect(&made, &tls, Some(&pair), expected).await;
    }
    expect(&made, &tls, Some(&made.self_signed("self")), Err("UnknownIssuer")).await;
    expect(&made, &tls, None, Err("no certificates")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_let_in_where_a_bundle_is_configured_for_them() {
    let made = Made::new();
    let names = |names: &'static str| Wanted { names, subject: "/O=Example/CN=api", ..Wanted::default() };
    let ca = made.path("ca.pem");
    let trust = |kind| trusting(&made, ClientCertificates::Required, &[(ca.as_path(), x509(kind))]);
    let (dns, uri, subject) = (trust(NameKind::Dns), trust(NameKind::Uri), trust(NameKind::Subject));
    let cases: [(_, _, _, Expected); 9] = [
        (&dns, "d1", names("DNS:api.example,URI:urn:a"), Ok("x509://corp/dns/api.example")),
        (&dns, "d2", names("DNS:API.example"), Err("is not taken")),
        (&dns, "d3", names("DNS:api.example."), Err("is not taken")),
        (&dns, "d4", names("DNS:*.example"), Err("is not taken")),
        (&dns, "d5", names("DNS:a.example,DNS:b.example"), Err("2 DNS names")),
        (&uri, "u1", names("URI:urn:service:api"), Ok("x509://corp/uri/urn%3Aservice%3Aapi")),
        (
            &uri,
            "u2",
            names("URI:spiffe://prod.example/api"),
            Ok("x509://corp/uri/spiffe%3A%2F%2Fprod.example%2Fapi"),
        ),
        (&uri, "u3", names("URI:urn:a,URI:urn:b"), Err("2 URIs")),
        (&subject, "s1", names(""), Ok("x509://corp/subject/O=Example,CN=api")),
    ];
    for (tls, name, wanted, expected) in cases {
        expect(&made, tls, Some(&made.signed(name, "ca", &wanted)), expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_domain_is_pinned_to_its_own_bundle() {
    let made = Made::new();
    let (ca, other) = (made.path("ca.pem"), made.authority("other"));
    let trust = [(ca.as_path(), spiffe("prod.example")), (other.as_path(), spiffe("edge.example"))];
    let tls = trusting(&made, ClientCertificates::Required, &trust);
    let names = |names: &'static str| Wanted { names, ..Wanted::default() };
    let cases: [(_, _, _, Expected); 4] = [
        ("one", "ca", names("URI:spiffe://prod.example/api"), Ok("spiffe://prod.example/api")),
        ("two", "other", names("URI:spiffe://edge.example/api"), Ok("spiffe://edge.example/api")),
        ("three", "ca", names("URI:spiffe://edge.example/api"), Err("another trust domain")),
        ("four", "other", names("URI:spiffe://prod.example/api"), Err("another trust domain")),
    ];
    for (name, by, wanted, expected) in cases {
        expect(&made, &tls, Some(&made.signed(name, by, &wanted)), expected).await;
    }
}
