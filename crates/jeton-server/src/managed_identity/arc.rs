//! Azure Arc's challenge: a caller gets the path of a file, and comes again with what is in it. So it is on this machine, and one whom
//! the folder's mode lets in.

use std::{
    collections::HashMap,
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, header};
use rand::Rng;
use tokio::time::Instant;

use super::{
    guard::one,
    refusal::{Kind, Refusal},
};

/// The folder that clients insist on.
pub(super) const FOLDER: &str = "/var/opt/azcmagent/tokens";
/// How our files begin, so that those of an agent beside us are left alone.
const PREFIX: &str = "jeton-";
const SUFFIX: &str = ".key";
/// From the challenge to the answer.
const VALIDITY: Duration = Duration::from_secs(60);
const MAX_OPEN: usize = 256;

/// The challenges that are open.
#[derive(Debug)]
pub struct Challenges {
    folder: PathBuf,
    open: Mutex<HashMap<[u8; 32], Challenge>>,
}

/// The file goes with it.
#[derive(Debug)]
struct Challenge {
    file: PathBuf,
    until: Instant,
}

impl Drop for Challenge {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.file);
    }
}

impl Challenges {
    /// `folder`: where the files are put. What an earlier process left there is removed.
    pub fn new(folder: &str) -> Self {
        let folder = PathBuf::from(if folder.is_empty() { FOLDER } else { folder });
        remove_left(&folder);
        Self { folder, open: Mutex::default() }
    }

    /// Whether the request brings what is in a file of ours. Each counts once. Otherwise the refusal is a challenge.
    pub(super) async fn met(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let shown = one(headers, header::AUTHORIZATION.as_str()).and_then(|value| value.split_once(' '));
        if let Some((scheme, key)) = shown
            && scheme.eq_ignore_ascii_case("basic")
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let challenge = open.remove(&of(key));
            return match challenge.filter(|challenge| challenge.until > Instant::now()) {
                Some(_) => Ok(()),
                None => Err(Refusal::new(
                    Kind::Unproven,
                    "the key is not that of an open challenge: each counts once, for a minute",
                )),
            };
        }
        Err(self.challenge().await)
    }

    /// The file is written on a thread that may wait for a disk: anybody can ask for one, and those who are served must not wait with it.
    async fn challenge(&self) -> Refusal {
        let (name, key) = {
            let mut random = rand::rng();
            (random.random::<u128>(), [random.random::<u128>(), random.random::<u128>()])
        };
        let key = format!("{:032x}{:032x}", key[0], key[1]);
        let file = self.folder.join(format!("{PREFIX}{name:032x}{SUFFIX}"));
        // From here on the file goes with it, also where its caller goes away.
        let challenge = Challenge { file: file.clone(), until: Instant::now() + VALIDITY };
        let (at, text) = (file.clone(), key.clone());
        let written = tokio::task::spawn_blocking(move || write(&at, &text)).await;
        if let Err(error) = written.unwrap_or_else(|died| Err(io::Error::other(died))) {
            return self.not_written(&error);
        }
        self.remember(of(&key), challenge);
        let realm = format!("Basic realm={}", file.display());
        let text =
            "read the file that WWW-Authenticate names, and send what is in it as Authorization: Basic";
        Refusal { challenge: Some(realm), ..Refusal::new(Kind::Unproven, text) }
    }

    fn remember(&self, key: [u8; 32], challenge: Challenge) {
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, challenge| challenge.until > now);
        if open.len() >= MAX_OPEN {
            // Its caller has had longer than the others: nobody can keep the others out by asking and not answering.
            let oldest = open.iter().min_by_key(|(_, challenge)| challenge.until).map(|(key, _)| *key);
            oldest.map(|key| open.remove(&key));
        }
        open.insert(key, challenge);
    }

    fn not_written(&self, error: &io::Error) -> Refusal {
        let folder = self.folder.display();
        tracing::warn!(%folder, %error, "the key file of a challenge cannot be written: make the folder writable to the broker");
        let text = format!(
            "the broker cannot put a key file into {folder} ({error}): make the folder, and let the broker's user write there and its callers read"
        );
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Refusal::new(if full { Kind::Unavailable } else { Kind::Refused }, text)
    }
}

fn of(key: &str) -> [u8; 32] {
    digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// Without a newline, which most clients would send along. Whoever is of the folder's group may read it.
fn write(file: &Path, key: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o640).open(file)?.write_all(key.as_bytes())
}

fn remove_left(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        // Another broker on this machine may be about to be answered.
        let made = entry.metadata().and_then(|data| data.modified());
        let old = made.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > VALIDITY));
        if ours && old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn authorized(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    async fn challenged(challenges: &Challenges) -> PathBuf {
        let refusal = challenges.met(&HeaderMap::new()).await.unwrap_err();
        let realm = refusal.challenge.unwrap();
        realm.strip_prefix("Basic realm=").unwrap().into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_the_file_opens_once_and_for_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let challenges = Challenges::new(folder.path().to_str().unwrap());
        let file = challenged(&challenges).await;
        let key = fs::read_to_string(&file).unwrap();
        assert!(key.len() == 64 && !key.ends_with('\n'), "{key:?}");
        assert!(file.extension().is_some_and(|end| end == "key"));
        assert!(challenges.met(&authorized("Basic 00")).await.is_err());
        assert!(challenges.met(&authorized(&format!("Basic {key}"))).await.is_ok());
        assert!(!file.exists(), "the file goes with its challenge");
        assert!(challenges.met(&authorized(&format!("Basic {key}"))).await.is_err(), "once");
        let late = fs::read_to_string(challenged(&challenges).await).unwrap();
        tokio::time::advance(VALIDITY + Duration::from_secs(1)).await;
        assert!(challenges.met(&authorized(&format!("Basic {late}"))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn open_challenges_are_bounded_and_their_files_end_with_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agent.key"), "another's").unwrap();
        let challenges = Challenges::new(folder.path().to_str().unwrap());
        let first = challenged(&challenges).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MAX_OPEN {
            challenged(&challenges).await;
        }
        assert_eq!(files(folder.path()), MAX_OPEN + 1);
        assert!(!first.exists(), "the oldest makes room, so nobody is kept out");
        tokio::time::advance(VALIDITY + Duration::from_secs(1)).await;
        challenged(&challenges).await;
        assert_eq!(files(folder.path()), 2, "those that are over are gone");
        drop(challenges);
        assert_eq!(files(folder.path()), 1, "the agent's stays");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_said_and_is_permanent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let refusal = Challenges::new(file.to_str().unwrap()).met(&HeaderMap::new()).await.unwrap_err();
        assert_eq!(refusal.kind, Kind::Refused);
        assert!(refusal.message.contains(file.to_str().unwrap()), "{}", refusal.message);
    }
}
