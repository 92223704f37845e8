//! Who must not get through whatever else it shows: a request that somebody else had a service send (SSRF), one that came by a proxy,
//! one for another host.

use std::net::SocketAddr;

use http::{HeaderMap, Method, header, request::Parts};

use super::{Flavour, flavour::Proof, refusal::Refusal};

/// The hosts for which requests are taken.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// Lower case. None: all; a unix socket has no name that could be taken from it.
    named: Option<Vec<String>>,
}

impl Hosts {
    /// A unix socket's.
    pub fn any() -> Self {
        Self { named: None }
    }

    /// Those of a TCP listener: its own address, and what else it is known as.
    pub fn of(flavour: Flavour, address: SocketAddr, also: &[String]) -> Self {
        let port = address.port();
        let mut named = vec![address.to_string()];
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            named.extend(["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}")));
        }
        named
            .extend(flavour.known_hosts().iter().flat_map(|host| [(*host).to_owned(), format!("{host}:80")]));
        named.extend(also.iter().map(|host| host.to_ascii_lowercase()));
        if port == 80 {
            // The port of the scheme is left out.
            let bare: Vec<_> =
                named.iter().filter_map(|host| host.strip_suffix(":80").map(str::to_owned)).collect();
            named.extend(bare);
        }
        Self { named: Some(named) }
    }

    fn take(&self, host: &str) -> bool {
        let Some(named) = &self.named else { return true };
        named.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

/// Refuses what must not get through. Nothing of it is looked at before.
pub(super) fn guard(flavour: Flavour, hosts: &Hosts, head: &Parts) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::invalid(text));
    if let Some(name) = head.headers.keys().find(|name| is_forwarding(name.as_str())) {
        return invalid(format!(
            "the request came by way of another (header {name}): ask this endpoint directly, without a proxy (NO_PROXY=127.0.0.1,localhost)"
        ));
    }
    let host = one(&head.headers, header::HOST.as_str()).unwrap_or_default();
    let target = head.uri.authority().map(|authority| authority.as_str());
    if !hosts.take(host) || !target.is_none_or(|target| hosts.take(target)) {
        return invalid(
            "the Host header is not this endpoint's: ask it under the address that it listens on".into(),
        );
    }
    let form = flavour == Flavour::CloudShell && head.method == Method::POST;
    if head.method != Method::GET && !form {
        return invalid(format!("the method is {}: ask with GET", head.method));
    }
    if has_body(&head.headers) && !form {
        return invalid("the request has a body: what it asks for stands in the query".into());
    }
    Ok(())
}

/// Whether the header that marks a deliberate request is there. The secret of the others is looked at by who knows secrets.
pub(super) fn proves(proof: Proof, headers: &HeaderMap) -> bool {
    match proof {
        Proof::Secret(_) => true,
        Proof::Header(name, value) => one(headers, name) == Some(value),
    }
}

/// A header that is there once.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn is_forwarding(name: &str) -> bool {
    matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = Request::get(uri);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn imds() -> Hosts {
        Hosts::of(Flavour::Imds, "127.0.0.1:7422".parse().unwrap(), &["metadata.example:80".into()])
    }

    #[test]
    fn only_the_endpoints_own_names_are_taken() {
        let takes =
            |uri: &str, host: &str| guard(Flavour::Imds, &imds(), &head(uri, &[("host", host)])).is_ok();
        for host in ["127.0.0.1:7422", "localhost:7422", "LOCALHOST:7422", "[::1]:7422", "169.254.169.254"] {
            assert!(takes("/x", host), "{host}");
        }
        assert!(takes("http://169.254.169.254/x", "169.254.169.254"), "as a proxy is asked");
        assert!(takes("/x", "metadata.example:80"));
        for host in
            ["", "127.0.0.1", "localhost", "evil.example:7422", "127.0.0.1:7423", "127.0.0.1:7422.evil"]
        {
            assert!(!takes("/x", host), "{host}");
        }
        assert!(!takes("http://example.org/x", "127.0.0.1:7422"), "no proxy for anybody else");
        let app = Hosts::of(Flavour::AppService, "127.0.0.1:7421".parse().unwrap(), &[]);
        let other = head("/x", &[("host", "169.254.169.254")]);
        assert!(guard(Flavour::AppService, &app, &other).is_err());
        let standard = Hosts::of(Flavour::Imds, "169.254.169.254:80".parse().unwrap(), &[]);
        assert!(guard(Flavour::Imds, &standard, &other).is_ok());
    }

    #[test]
    fn what_was_forwarded_or_has_a_body_is_refused() {
        let with = |name: &str, value: &str| {
            guard(Flavour::Imds, &imds(), &head("/x", &[("host", "127.0.0.1:7422"), (name, value)]))
        };
        for name in ["X-Forwarded-For", "x-forwarded-host", "Forwarded", "Via", "X-Real-IP"] {
            assert!(with(name, "10.0.0.1").is_err(), "{name}");
        }
        assert!(with("content-length", "1").is_err() && with("transfer-encoding", "chunked").is_err());
        assert!(with("content-length", "0").is_ok());
        assert!(with("content-type", "application/x-www-form-urlencoded").is_ok(), "some send it on a GET");
        let two = head("/x", &[("host", "127.0.0.1:7422"), ("host", "127.0.0.1:7422")]);
        assert!(guard(Flavour::Imds, &imds(), &two).is_err());
    }

    #[test]
    fn the_header_must_be_there_once_and_exactly() {
        let proves = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("Metadata", *value)).collect();
            proves(Flavour::Imds.proof(), &head("/x", &headers).headers)
        };
        assert!(proves(&["true"]));
        for wrong in [&[][..], &["True"], &["true "], &["1"], &["true", "true"]] {
            assert!(!proves(wrong), "{wrong:?}");
        }
    }
}
