//! The `groups` claim: what makes the tokens of a large tenant large.

use serde_json::Value;
use uuid::{Builder, Uuid};

use crate::state::sha256_hex;

/// A token names no more groups than this; the real one then names a place where to ask for them.
pub(super) const MOST_GROUPS: usize = 200;
/// The claim without its members, and each of its members, in base64: `"groups":[],` and a quoted id with its comma.
const CLAIM_BYTES: usize = 14;
const GROUP_BYTES: usize = 52;

/// The groups that make a token of `bytes` one of at least `wanted`: for one principal always the same. None if it is large enough.
pub(super) fn filling(bytes: usize, wanted: usize, principal: &str) -> Option<Value> {
    let lacking = wanted.checked_sub(bytes).filter(|lacking| *lacking > 0)?;
    let count = lacking.saturating_sub(CLAIM_BYTES).div_ceil(GROUP_BYTES).clamp(1, MOST_GROUPS);
    Some((0..count).map(|n| group(principal, n).to_string()).collect())
}

fn group(principal: &str, n: usize) -> Uuid {
    let digest = sha256_hex(&format!("{principal} group {n}"));
    // Hexadecimal digits are a number.
    let id = u128::from_str_radix(&digest[..32], 16).unwrap_or_default();
    Builder::from_random_bytes(id.to_be_bytes()).into_uuid()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entra::Signer;

    #[test]
    fn groups_fill_a_token_up_to_its_size_and_no_further_than_one_more() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path()).unwrap();
        let plain = json!({"aud": "api", "oid": "principal"});
        let bare = signer.sign(&plain, "JWT").unwrap().len();
        for wanted in [bare + 1, bare + 66, bare + 67, 1_600, 2_000, 10_000] {
            let mut claims = plain.clone();
            claims["groups"] = filling(bare, wanted, "principal").unwrap();
            let size = signer.sign(&claims, "JWT").unwrap().len();
            assert!((wanted..wanted + CLAIM_BYTES + GROUP_BYTES).contains(&size), "{size} for {wanted}");
        }
        assert_eq!(filling(bare, bare, "principal"), None);
        assert_eq!(filling(0, 1_000_000, "principal").unwrap().as_array().unwrap().len(), MOST_GROUPS);
    }

    #[test]
    fn a_principal_is_always_in_the_same_groups() {
        assert_eq!(filling(0, 500, "a"), filling(0, 500, "a"));
        assert_ne!(filling(0, 500, "a"), filling(0, 500, "b"));
    }
}
