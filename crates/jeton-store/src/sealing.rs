//! Sealing: AES-256-GCM under data keys, which are wrapped by the sealing key.
//!
//! The associated data names the place of a value (table, ids, version, schema). A blob that is moved to another row, or an older
//! blob under a newer version, does not open.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::fill,
};
use rustix::process::geteuid;
use zeroize::{Zeroize, Zeroizing};

const KEY_BYTES: usize = 32;
const ROOT: u32 = 0;

/// The key that wraps all data keys. Kept in a file of its own, away from the data.
pub struct SealingKey {
    key: DataKey,
    id: String,
}

/// Why a sealing key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealingKeyError {
    /// The file cannot be read or written.
    #[error("the sealing key file {path} cannot be used: {source}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no sealing key.
    #[error(
        "{path} is no sealing key: expected exactly 32 random bytes, as `head -c 32 /dev/urandom` gives them"
    )]
    Malformed {
        /// Which file.
        path: String,
    },
    /// Others can read the file.
    #[error("{path} can be read by others (mode {mode:o}): `chmod 600 {path}`")]
    Exposed {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
}

/// A value that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DoesNotOpen;

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) nonce: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
}

impl SealingKey {
    /// Reads the key from its file.
    pub fn load(path: &Path) -> Result<Self, SealingKeyError> {
        let shown = path.display().to_string();
        let failed = |source| SealingKeyError::File { path: shown.clone(), source };
        let there = fs::metadata(path).map_err(failed)?;
        let mode = there.mode() & 0o777;
        if exposed(mode, there.uid(), geteuid().as_raw()) {
            return Err(SealingKeyError::Exposed { path: shown, mode });
        }
        let bytes = Zeroizing::new(fs::read(path).map_err(failed)?);
        Self::from_bytes(&bytes).ok_or(SealingKeyError::Malformed { path: shown })
    }

    /// Makes a new key and its file, which must not be there.
    pub fn create(path: &Path) -> Result<Self, SealingKeyError> {
        let failed = |source| SealingKeyError::File { path: path.display().to_string(), source };
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        fill(&mut *bytes).map_err(|_| failed(io::Error::other("the random generator failed")))?;
        // Whole or not at all: half a key would lock its data away.
        let next = path.with_extension(format!("new{}", std::process::id()));
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next).map_err(failed)?;
        let written = file.write_all(&*bytes).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| fs::hard_link(&next, path));
        fs::remove_file(&next).map_err(failed)?;
        linked.map_err(failed)?;
        Self::from_bytes(&*bytes).ok_or_else(|| failed(io::Error::other("the key cannot be used")))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = DataKey::from_bytes(bytes)?;
        let named = Zeroizing::new([b"jeton sealing key id\0".as_slice(), bytes].concat());
        let id = digest(&SHA256, &named).as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
        Some(Self { key, id })
    }

    /// Tells keys apart without telling anything of them: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn wrap(&self, place: &[u8], bytes: &DataKeyBytes) -> Option<Sealed> {
        self.key.seal(place, &**bytes)
    }

    pub(crate) fn unwrap(&self, place: &[u8], wrapped: &Sealed) -> Result<DataKey, DoesNotOpen> {
        let bytes = Zeroizing::new(self.key.open(place, wrapped)?);
        DataKey::from_bytes(&bytes).ok_or(DoesNotOpen)
    }

    /// The same data key, wrapped by another sealing key.
    pub(crate) fn rewrap(&self, place: &[u8], wrapped: &Sealed, by: &Self) -> Result<Sealed, DoesNotOpen> {
        let bytes = Zeroizing::new(self.key.open(place, wrapped)?);
        by.key.seal(place, &bytes).ok_or(DoesNotOpen)
    }
}

/// A data key before it is wrapped.
pub(crate) type DataKeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Whether a file's mode lets others read what is ours alone. What root hands over to another user (a credential of systemd, a mounted
/// secret of Kubernetes) is read by its group.
fn exposed(mode: u32, owner: u32, own: u32) -> bool {
    let handed_over = owner == ROOT && own != ROOT;
    mode & if handed_over { 0o037 } else { 0o077 } != 0
}

/// Seals the values of one owner, or of one day.
pub(crate) struct DataKey(LessSafeKey);

impl DataKey {
    /// A new one, with its bytes.
    pub(crate) fn generate() -> Option<(Self, DataKeyBytes)> {
        let mut bytes = DataKeyBytes::default();
        fill(&mut *bytes).ok()?;
        Some((Self::from_bytes(&*bytes)?, bytes))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, bytes).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// Seals under a random nonce.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Option<Sealed> {
        let mut nonce = [0_u8; NONCE_LEN];
        fill(&mut nonce).ok()?;
        // Room for the tag from the start: a buffer that grows leaves its old place behind, with what was in it.
        let mut bytes = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(plain);
        let sealed = self.0.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place),
            &mut bytes,
        );
        if sealed.is_err() {
            bytes.zeroize();
            return None;
        }
        Some(Sealed { nonce: nonce.to_vec(), bytes })
    }

    pub(crate) fn open(&self, place: &[u8], sealed: &Sealed) -> Result<Vec<u8>, DoesNotOpen> {
        let nonce = Nonce::try_assume_unique_for_key(&sealed.nonce).map_err(|_| DoesNotOpen)?;
        let mut bytes = Zeroizing::new(sealed.bytes.clone());
        let plain = self.0.open_in_place(nonce, Aad::from(place), &mut bytes).map_err(|_| DoesNotOpen)?;
        // Of its exact length, so that nobody has to move it on.
        Ok(plain.to_vec())
    }
}

/// The associated data of a place: its parts, each with its length, so that no two places read the same.
pub(crate) fn place(parts: &[&[u8]]) -> Vec<u8> {
    let framed = |part: &&[u8]| {
        (part.len() as u32).to_be_bytes().into_iter().chain(part.iter().copied()).collect::<Vec<_>>()
    };
    parts.iter().flat_map(framed).collect()
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key() -> SealingKey {
        SealingKey::from_bytes(&[7; 32]).unwrap()
    }

    #[test]
    fn a_value_opens_in_its_own_place_alone() {
        let (data_key, bytes) = DataKey::generate().unwrap();
        let wrapped = key().wrap(b"here", &bytes).unwrap();
        let sealed = data_key.seal(b"row 1", b"canary").unwrap();
        let opened = data_key.open(b"row 1", &sealed).unwrap();
        assert_eq!(opened, b"canary");
        assert_eq!(
            (sealed.bytes.capacity(), opened.capacity()),
            (sealed.bytes.len(), 6),
            "nothing was moved"
        );
        assert_eq!(data_key.open(b"row 2", &sealed), Err(DoesNotOpen));
        assert!(key().unwrap(b"here", &wrapped).unwrap().open(b"row 1", &sealed).is_ok());
        assert!(key().unwrap(b"there", &wrapped).is_err());
    }

    #[test]
    fn a_data_key_that_is_wrapped_anew_opens_with_the_other_sealing_key_alone_and_in_its_place() {
        let (old, new) = (key(), SealingKey::from_bytes(&[8; 32]).unwrap());
        let (data_key, bytes) = DataKey::generate().unwrap();
        let sealed = data_key.seal(b"row", b"canary").unwrap();
        let before = old.wrap(b"here", &bytes).unwrap();
        let after = old.rewrap(b"here", &before, &new).unwrap();
        assert_eq!(new.unwrap(b"here", &after).unwrap().open(b"row", &sealed).unwrap(), b"canary");
        assert!(old.unwrap(b"here", &after).is_err() && new.unwrap(b"here", &before).is_err());
        assert!(new.unwrap(b"there", &after).is_err());
        assert_eq!(old.rewrap(b"there", &before, &new), Err(DoesNotOpen));
    }

    #[test]
    fn no_two_places_read_the_same() {
        assert_ne!(place(&[b"ab", b"c"]), place(&[b"a", b"bc"]));
    }

    #[test]
    fn a_group_reads_what_root_hands_over_to_another_user_and_nothing_else() {
        assert!(!exposed(0o440, 0, 65532), "a mounted secret");
        for (mode, owner, own) in [(0o440, 65532, 65532), (0o440, 0, 0), (0o444, 0, 65532), (0o460, 0, 65532)]
        {
            assert!(exposed(mode, owner, own), "{mode:o} of {owner} by {own}");
        }
        assert!(!exposed(0o600, 65532, 65532) && !exposed(0o400, 0, 65532));
    }

    #[test]
    fn a_key_file_that_others_can_read_or_of_another_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = SealingKey::create(&path).unwrap();
        assert_eq!(SealingKey::load(&path).unwrap().id(), made.id());
        assert!(SealingKey::create(&path).is_err(), "an existing key is never overwritten");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(SealingKey::load(&path), Err(SealingKeyError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(SealingKey::load(&path), Err(SealingKeyError::Malformed { .. })));
        assert!(!format!("{made:?}").contains("key: "));
    }
}
