//! A subject as a text: its parts in their order, `CN=api,O=Example`. Values are percent-encoded, so that no value can hold what separates
//! parts.

use x509_parser::{
    asn1_rs::Tag,
    x509::{AttributeTypeAndValue, X509Name},
};

/// The short names of RFC 4514 section 3; others are written as numbers.
const SHORT: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// The parts as they stand in the certificate, the most general first as a rule.
pub(super) fn encoded(subject: &X509Name<'_>) -> Result<String, String> {
    let mut parts = vec![];
    for relative in subject.iter() {
        let values: Result<Vec<_>, _> = relative.iter().map(attribute).collect();
        parts.push(values?.join("+"));
    }
    if parts.is_empty() { Err("its subject is empty".into()) } else { Ok(parts.join(",")) }
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Result<String, String> {
    let oid = attribute.attr_type().to_id_string();
    let name = SHORT.iter().find(|(id, _)| *id == oid).map_or(oid.as_str(), |(_, short)| short);
    let value = attribute.attr_value();
    // In older encodings one text has several forms.
    let text = match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(value.data).ok(),
        _ => None,
    };
    let text = text
        .filter(|text| !text.is_empty() && !text.contains(char::is_control))
        .ok_or_else(|| format!("the {name} of its subject is no plain text"))?;
    Ok(format!("{name}={}", super::encoded(text)))
}
