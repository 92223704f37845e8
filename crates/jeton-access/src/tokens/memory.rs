//! What tokens proved, for at most a minute. A token itself is not kept: it is known by its SHA-256.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jeton_core::Wall;

use crate::Authenticated;

/// A token, so that nobody can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

/// What was found out about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Whom it proves; or why whoever issued it takes it back.
    pub(crate) verdict: Result<Authenticated, String>,
    /// Which issuer's keys it was verified with, and which of their revisions: with the next one it is forgotten.
    pub(crate) issuer: usize,
    pub(crate) revision: u64,
    /// From when until when it counts. The beginning matters too: a wall clock that is set back must not prolong it.
    pub(crate) since: Wall,
    pub(crate) until: Wall,
}

/// A bounded map that is read without a lock.
#[derive(Debug)]
pub(crate) struct Memory {
    findings: papaya::HashMap<TokenHash, Finding, foldhash::fast::RandomState>,
    most: usize,
}

impl Finding {
    /// The longest time that something is remembered.
    pub(crate) const LONGEST: Duration = Duration::from_secs(60);

    fn counts(&self, now: Wall) -> bool {
        self.since <= now && now < self.until
    }
}

impl Memory {
    pub(crate) fn new(most: usize) -> Self {
        Self { findings: papaya::HashMap::default(), most }
    }

    /// One look-up.
    pub(crate) fn find<R>(
        &self,
        token: &TokenHash,
        now: Wall,
        found: impl FnOnce(&Finding) -> Option<R>,
    ) -> Option<R> {
        self.findings.pin().get(token).filter(|finding| finding.counts(now)).and_then(found)
    }

    /// Without room, what is over is forgotten; if that is not much, everything: each costs one verification to come back.
    pub(crate) fn remember(&self, token: TokenHash, finding: Finding, now: Wall) {
        let findings = self.findings.pin();
        if findings.len() >= self.most {
            findings.retain(|_, finding| finding.counts(now));
            if findings.len() > self.most / 4 * 3 {
                findings.clear();
            }
        }
        findings.insert(token, finding);
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::Principal;

    use super::*;

    const NOW: Wall = Wall::from_secs(1_767_225_600);

    fn finding(since: Wall, until: Wall) -> Finding {
        let verdict = Ok(Authenticated { principal: Principal::loopback_dev(), until: None });
        Finding { verdict, issuer: 0, revision: 0, since, until }
    }

    fn found(memory: &Memory, token: &str, now: Wall) -> bool {
        memory.find(&TokenHash::of(token), now, |_| Some(())).is_some()
    }

    #[test]
    fn a_finding_counts_from_its_beginning_to_its_end_and_not_when_the_clock_was_set_back() {
        let memory = Memory::new(10);
        memory.remember(TokenHash::of("a"), finding(NOW, NOW + Finding::LONGEST), NOW);
        assert!(found(&memory, "a", NOW) && found(&memory, "a", NOW + Duration::from_secs(59)));
        assert!(!found(&memory, "a", NOW + Finding::LONGEST) && !found(&memory, "a", NOW.shifted(-1)));
        assert!(!found(&memory, "b", NOW));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_first_what_is_over() {
        let memory = Memory::new(8);
        let later = NOW + Duration::from_secs(30);
        for n in 0..6 {
            memory.remember(TokenHash::of(&n.to_string()), finding(NOW, later), NOW);
        }
        for n in 6..8 {
            memory.remember(TokenHash::of(&n.to_string()), finding(NOW, NOW + Finding::LONGEST), NOW);
        }
        memory.remember(TokenHash::of("8"), finding(later, later + Finding::LONGEST), later);
        assert_eq!(memory.findings.pin().len(), 3);
        assert!(found(&memory, "6", later) && found(&memory, "8", later) && !found(&memory, "0", later));
        for n in 9..1_000 {
            memory.remember(TokenHash::of(&n.to_string()), finding(later, later + Finding::LONGEST), later);
            assert!(memory.findings.pin().len() <= 8);
        }
    }
}
