use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, IsCa, KeyPair, KeyUsagePurpose, SanType,
    string::Ia5String,
};

use super::*;

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).unwrap())
}

/// A certificate as an authority could have signed it; here nobody asks who did.
fn certificate(names: &[SanType], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn spiffe() -> Naming {
    Naming::Spiffe("prod.example".parse().unwrap())
}

fn x509(kind: NameKind) -> Naming {
    Naming::X509 { bundle: "corp".into(), kind }
}

fn named(naming: &Naming, names: &[SanType]) -> Result<String, String> {
    let found = naming.authenticate(&certificate(names, |_| {}));
    found.map(|it| it.principal.to_string()).map_err(|error| error.to_string())
}

#[test]
fn a_spiffe_id_of_the_pinned_trust_domain_is_the_principal_until_the_certificate_ends() {
    let der = certificate(&[uri("spiffe://prod.example/ns/pay/sa/api"), dns("api.example")], |_| {});
    let found = spiffe().authenticate(&der).unwrap();
    assert_eq!(found.principal.as_str(), "spiffe://prod.example/ns/pay/sa/api");
    assert_eq!(found.until, Some(Wall::from_secs(1_893_456_000)));
}

#[test]
fn what_looks_like_a_spiffe_id_of_the_trust_domain_is_none() {
    for (names, why) in [
        (vec![], "no URI"),
        (vec![dns("prod.example")], "no URI"),
        (vec![uri("spiffe://prod.example/a"), uri("spiffe://prod.example/b")], "2 URIs"),
        (vec![uri("spiffe://prod.example/a"), uri("https://prod.example/a")], "2 URIs"),
        (vec![uri("spiffe://prod.example/a"), uri("spiffe://prod.example/a")], "2 URIs"),
        (vec![uri("spiffe://test.example/a")], "another trust domain"),
        (vec![uri("spiffe://prod.example.evil/a")], "another trust domain"),
        (vec![uri("spiffe://prod.example@evil/a")], "another trust domain"),
        (vec![uri("spiffe://prod.example:443/a")], "another trust domain"),
        (vec![uri("spiffe://PROD.example/a")], "another trust domain"),
        (vec![uri("spiffe://prod.example./a")], "another trust domain"),
        (vec![uri("spiffe://prod%2eexample/a")], "another trust domain"),
        (vec![uri("SPIFFE://prod.example/a")], "begin with"),
        (vec![uri("https://prod.example/a")], "begin with"),
        (vec![uri("spiffe:/prod.example/a")], "begin with"),
        (vec![uri("spiffe://prod.example")], "nobody in it"),
        (vec![uri("spiffe://prod.example/")], "single slashes"),
        (vec![uri("spiffe://prod.example/a/")], "single slashes"),
        (vec![uri("spiffe://prod.example//a")], "single slashes"),
        (vec![uri("spiffe://prod.example/a/../b")], "single slashes"),
        (vec![uri("spiffe://prod.example/%61")], "single slashes"),
        (vec![uri("spiffe://prod.example/a?b")], "single slashes"),
        (vec![uri("spiffe://prod.example/a#b")], "single slashes"),
        (vec![uri("spiffe://prod.example/a\0b")], "single slashes"),
        (vec![uri("spiffe://prod.example/*")], "single slashes"),
    ] {
        let refused = named(&spiffe(), &names).unwrap_err();
        assert!(refused.contains(why), "{names:?}: {refused}");
    }
    let long = format!("spiffe://prod.example/{}", "a".repeat(2_048));
    assert!(named(&spiffe(), &[uri(&long)]).is_err());
}

#[test]
fn only_a_leaf_whose_key_signs_names_anybody() {
    let id = [uri("spiffe://prod.example/a")];
    let refused = |change: fn(&mut CertificateParams)| {
        spiffe().authenticate(&certificate(&id, change)).unwrap_err().to_string()
    };
    assert!(refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).contains("an authority"));
    assert!(refused(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)).contains("sign certificates"));
    assert!(refused(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)).contains("revocation"));
    assert!(refused(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]).contains("not for signatures"));
    assert!(refused(|p| p.key_usages.clear()).contains("does not say"));
    // Others are not held to what SPIFFE wants.
    let plain = certificate(&[dns("api.example")], |p| p.key_usages.clear());
    assert!(x509(NameKind::Dns).authenticate(&plain).is_ok());
}

#[test]
fn other_names_stand_below_the_name_of_their_bundle() {
    let names = [dns("api.example"), uri("urn:service:api/1")];
    assert_eq!(named(&x509(NameKind::Dns), &names).unwrap(), "x509://corp/dns/api.example");
    assert_eq!(named(&x509(NameKind::Uri), &names).unwrap(), "x509://corp/uri/urn%3Aservice%3Aapi%2F1");
    // A SPIFFE ID by this way is no SPIFFE principal.
    let other = named(&x509(NameKind::Uri), &[uri("spiffe://prod.example/a")]).unwrap();
    assert_eq!(other, "x509://corp/uri/spiffe%3A%2F%2Fprod.example%2Fa");
}

#[test]
fn what_looks_like_a_dns_name_is_none() {
    for bad in
        ["API.example", "api.example.", "*.example", "api.example\0.evil", "api%2eexample", "api..example"]
    {
        assert!(named(&x509(NameKind::Dns), &[dns(bad)]).unwrap_err().contains("is not taken"), "{bad}");
    }
    let two = named(&x509(NameKind::Dns), &[dns("a.example"), dns("b.example")]).unwrap_err();
    assert!(two.contains("2 DNS names"), "{two}");
}

#[test]
fn a_subject_counts_part_by_part_and_no_value_holds_a_separator() {
    let subject = |parts: &[(DnType, &str)]| {
        let der = certificate(&[], |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, value) in parts {
                params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
            }
        });
        x509(NameKind::Subject)
            .authenticate(&der)
            .map(|it| it.principal.to_string())
            .map_err(|e| e.to_string())
    };
    let two = subject(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "api")]).unwrap();
    assert_eq!(two, "x509://corp/subject/O=Example,CN=api");
    let one = subject(&[(DnType::OrganizationName, "Example,CN=api")]).unwrap();
    assert_eq!(one, "x509://corp/subject/O=Example%2CCN%3Dapi");
    assert!(subject(&[]).unwrap_err().contains("empty"));
    assert!(subject(&[(DnType::CommonName, "api\0")]).unwrap_err().contains("no plain text"));
}

#[test]
fn what_is_no_certificate_is_refused() {
    assert!(spiffe().authenticate(b"").is_err());
    let mut der = certificate(&[uri("spiffe://prod.example/a")], |_| {});
    der.push(0);
    assert!(spiffe().authenticate(&der).unwrap_err().to_string().contains("behind"));
}

#[test]
fn a_trust_domain_is_lower_case_and_nothing_else() {
    for bad in ["", "A.example", "spiffe://a", "a/b", "a:1", "a%2e", "."] {
        assert!(bad.parse::<TrustDomain>().is_err(), "{bad}");
    }
    assert_eq!("prod_1.example-x".parse::<TrustDomain>().unwrap().to_string(), "prod_1.example-x");
}
