//! One record is one line, and holds the hash of the line before.

use aws_lc_rs::digest::{SHA256, digest};
use jeton_core::Wall;
use serde::{Deserialize, Serialize};

use crate::{AuditKey, AuditPublicKey};

/// SHA-256 of a line, without its newline.
pub(crate) type Hash = [u8; 32];

/// Longest line that is one. What is written is far below: every field is bounded.
pub(crate) const MAX_LINE: usize = 64 * 1024;

pub(crate) const HEAD: &str = "log.head";
const BEFORE_SIGNATURE: &str = r#","sig":""#;
const SIGNATURE_DIGITS: usize = 128;

/// The end of a chain: the last record's number and hash. Nought: there is none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

/// What every line says of its place, and what the log's own records say.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) prev: String,
    pub(crate) at: String,
    pub(crate) kind: String,
    /// Of a head: by which key.
    pub(crate) key: Option<String>,
    /// Of `log.pruned`: the last record that was removed.
    pub(crate) through: Option<u64>,
    /// Of `log.lost`: how many events.
    pub(crate) lost: Option<u64>,
    /// Of `log.gap`: what is missing.
    pub(crate) detail: Option<String>,
    /// Of a head: the last `log.gap` before it, so that a start knows of it without reading everything.
    pub(crate) gap: Option<u64>,
}

/// What the log says of itself.
#[derive(Debug, Serialize)]
#[serde(tag = "kind")]
pub(crate) enum Own {
    /// A broker begins to write.
    #[serde(rename = "log.opened")]
    Opened { version: &'static str },
    /// A kill had left a half line.
    #[serde(rename = "log.repaired")]
    Repaired { bytes_cut: u64 },
    /// At the start something that was signed was missing. The numbers go on behind it.
    #[serde(rename = "log.gap")]
    Gap { detail: String },
    /// The oldest segments are removed.
    #[serde(rename = "log.pruned")]
    Pruned { through: u64 },
    /// Frequent events came faster than they could be written.
    #[serde(rename = "log.lost")]
    Lost { lost: u64 },
}

impl Own {
    pub(crate) fn body(&self) -> String {
        // Numbers and texts: that cannot fail.
        serde_json::to_string(self).unwrap_or_else(|_| r#"{"kind":"log.unknown"}"#.into())
    }
}

impl Link {
    /// The line of the next record. `body` is a JSON object with at least one member.
    pub(crate) fn next_line(&self, at: Wall, body: &str) -> String {
        let (seq, prev, at) = (self.seq + 1, hex(&self.hash), at.rfc3339());
        let rest = body.strip_prefix('{').unwrap_or(body);
        format!(r#"{{"seq":{seq},"prev":"{prev}","at":"{at}",{rest}"#)
    }

    /// The chain with that line at its end.
    pub(crate) fn then(&self, line: &str) -> Self {
        Self { seq: self.seq + 1, hash: hash(line.as_bytes()) }
    }

    /// The line of a head: everything in front of the signature is signed, and through `prev` everything before it.
    pub(crate) fn head_line(&self, at: Wall, key: &AuditKey, gap: Option<u64>) -> String {
        let gap = gap.map_or_else(String::new, |gap| format!(r#","gap":{gap}"#));
        let body = format!(r#"{{"kind":"{HEAD}","key":"{}"{gap}}}"#, key.public().id());
        let line = self.next_line(at, &body);
        let signed = line.strip_suffix('}').unwrap_or(&line);
        let signature = hex(&key.sign(signed.as_bytes()));
        format!(r#"{signed}{BEFORE_SIGNATURE}{signature}"}}"#)
    }
}

impl Record {
    /// None: the line is no record.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > MAX_LINE { None } else { serde_json::from_slice(line).ok() }
    }

    /// A line that ends a chain: its link.
    pub(crate) fn link(&self, line: &[u8]) -> Link {
        Link { seq: self.seq, hash: hash(line) }
    }

    pub(crate) fn is_head(&self) -> bool {
        self.kind == HEAD
    }
}

/// Whether a head's line carries the signature of this key, byte for byte as it was written.
pub(crate) fn is_signed(line: &[u8], key: &AuditPublicKey) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    let signature = text.strip_suffix(r#""}"#).and_then(|text| text.rsplit_once(BEFORE_SIGNATURE));
    let Some((signed, signature)) = signature else { return false };
    signature.len() == SIGNATURE_DIGITS
        && from_hex(signature).is_some_and(|signature| key.verifies(signed.as_bytes(), &signature))
}

pub(crate) fn hash(line: &[u8]) -> Hash {
    let digest = digest(&SHA256, line);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

/// Lower case alone: two spellings of one signature would be two lines that both hold.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = || pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_holds_as_it_was_written_and_in_no_other_way() {
        let key = AuditKey::generate().unwrap();
        let link = Link::default().then("first");
        let line = link.head_line(Wall::from_secs(1), &key, Some(1));
        let record = Record::parse(line.as_bytes()).unwrap();
        assert!(record.is_head() && record.seq == 2 && record.prev == hex(&link.hash));
        assert!(is_signed(line.as_bytes(), key.public()));
        assert!(!is_signed(line.as_bytes(), AuditKey::generate().unwrap().public()));
        for at in 0..line.len() {
            let mut other = line.clone().into_bytes();
            other[at] ^= 1;
            assert!(!is_signed(&other, key.public()), "byte {at}");
        }
        assert!(!is_signed(line.to_uppercase().as_bytes(), key.public()));
    }

    #[test]
    fn hexadecimal_has_one_spelling() {
        assert_eq!(from_hex(&hex(&[0, 0xab, 255])), Some(vec![0, 0xab, 255]));
        for other in ["AB", "a", "0x", "+1"] {
            assert_eq!(from_hex(other), None, "{other}");
        }
    }
}
