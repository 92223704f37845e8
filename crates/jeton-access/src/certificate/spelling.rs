//! How names are spelled: in one way each.

/// Longest DNS name (RFC 1035 section 2.3.4).
const MAX_DNS_NAME: usize = 253;

/// A host's name in the one spelling that counts. DNS takes "API.example." for the same host; whoever decides by names must not have to.
pub(super) fn dns_name(name: &str) -> Result<&str, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(allowed) && !l.starts_with('-') && !l.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= MAX_DNS_NAME && name.split('.').all(label) && !numeric {
        return Ok(name);
    }
    Err(format!(
        "the DNS name {} is not taken: lower-case letters, digits and '-' between single dots, no wildcard, no dot at the end",
        name.escape_debug()
    ))
}

/// A text as one segment of a principal. Nothing but the unreserved characters of RFC 3986 stands for itself, so two texts never become
/// one.
pub(super) fn encoded(text: &str) -> String {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match unreserved(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dns_name_has_one_spelling() {
        for good in ["api", "api.example", "a-1.example", "xn--bcher-kva.example"] {
            assert_eq!(dns_name(good), Ok(good));
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in [
            "",
            "API.example",
            "api.example.",
            ".example",
            "api..example",
            "*.example",
            "a\0.example",
            "a%2e.example",
            "-a.example",
            "a-.example",
            "a_b.example",
            "10.0.0.1",
            "b\u{fc}cher.example",
            "a b",
            &long,
        ] {
            assert!(dns_name(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn two_texts_are_never_encoded_alike(one in ".{0,12}", other in ".{0,12}") {
            prop_assert_eq!(encoded(&one) == encoded(&other), one == other);
            prop_assert!(encoded(&one).bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
        }
    }
}
