//! Lines that a peer can cause come a few times a minute: a few about one subject, not many about all. The next one that comes says how
//! many were left out.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const WHILE: Duration = Duration::from_secs(60);
const ABOUT_ONE: usize = 3;
const ABOUT_ALL: usize = 30;

/// Counts lines by their kind. What it keeps is bounded by how many kinds there are.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    since: Instant,
    /// The hashes of the subjects of those that came since then.
    came: Vec<u64>,
    left_out: u64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Whether it may come now; with how many did not come before it, if any did not.
    pub(crate) fn line(&self, kind: &'static str, subject: impl Hash, line: impl FnOnce(Option<u64>)) {
        if let Some(left_out) = self.comes(kind, subject, Instant::now()) {
            line((left_out > 0).then_some(left_out));
        }
    }

    fn comes(&self, kind: &'static str, subject: impl Hash, now: Instant) -> Option<u64> {
        let subject = foldhash::fast::FixedState::default().hash_one(subject);
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(kind).or_insert_with(|| Kind { since: now, came: vec![], left_out: 0 });
        if now.duration_since(kind.since) >= WHILE {
            (kind.since, kind.came) = (now, vec![]);
        }
        let about_it = kind.came.iter().filter(|came| **came == subject).count();
        if kind.came.len() >= ABOUT_ALL || about_it >= ABOUT_ONE {
            kind.left_out += 1;
            return None;
        }
        kind.came.push(subject);
        Some(std::mem::take(&mut kind.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_come_about_each_subject_in_a_minute_and_the_next_says_how_many_did_not() {
        let (seldom, begun) = (Seldom::new(), Instant::now());
        let come =
            |subject: u32, seconds| seldom.comes("refused", subject, begun + Duration::from_secs(seconds));
        assert_eq!([come(1, 0), come(1, 1), come(1, 2)], [Some(0); 3]);
        assert_eq!([come(1, 3), come(1, 59)], [None; 2]);
        assert_eq!(come(2, 59), Some(2), "another subject");
        assert_eq!(come(1, 60), Some(0), "another minute");
        assert_eq!(seldom.comes("full", 1, begun), Some(0), "another kind");
    }

    #[test]
    fn endless_subjects_make_no_endless_lines_and_take_no_memory() {
        let (seldom, now) = (Seldom::new(), Instant::now());
        let came = (0..100_000).filter(|subject| seldom.comes("refused", subject, now).is_some()).count();
        assert_eq!(came, ABOUT_ALL);
        assert_eq!(seldom.comes("refused", 1, now + WHILE), Some(100_000 - ABOUT_ALL as u64));
        let kinds = seldom.0.lock().unwrap();
        assert!(kinds.values().all(|kind| kind.came.len() <= ABOUT_ALL));
    }
}
