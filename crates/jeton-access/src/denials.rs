//! The latest denials, by correlation id: what the operator may know and the caller may not.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use jeton_core::{Denial, Principal, Wall, metrics::Counter};

use crate::Access;

/// A denial, with everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Who asked.
    pub principal: Principal,
    /// What was called on the admin plane; none: a token was asked for.
    pub method: Option<&'static str>,
    /// For which identity, as asked; on the admin plane, on what.
    pub identity: String,
    /// For which target, canonical where it could be resolved, else as asked. None on the admin plane.
    pub target: String,
    /// Why not.
    pub denial: Denial,
    /// When.
    pub at: Wall,
}

#[derive(Debug)]
pub(crate) struct Denials {
    most: usize,
    ring: Mutex<Ring>,
    /// Since the start: where tokens are asked for, and on the admin plane.
    counts: [[Counter; Denial::NAMES.len()]; 2],
}

#[derive(Debug, Default)]
struct Ring {
    order: VecDeque<String>,
    by_id: HashMap<String, Denied>,
}

impl Denials {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ring: Mutex::default(), counts: Default::default() }
    }

    pub(crate) fn remember(&self, id: String, denied: Denied) {
        self.counts[usize::from(denied.method.is_some())][denied.denial.index()].add();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.order.len() >= self.most
            && let Some(oldest) = ring.order.pop_front()
        {
            ring.by_id.remove(&oldest);
        }
        ring.order.push_back(id.clone());
        ring.by_id.insert(id, denied);
    }

    fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let of = |(plane, counts): (&'static str, &[Counter; Denial::NAMES.len()])| {
            Denial::NAMES
                .into_iter()
                .zip(counts)
                .map(move |(name, n)| (plane, name, n.get()))
                .collect::<Vec<_>>()
        };
        ["data", "admin"].into_iter().zip(&self.counts).flat_map(of).collect()
    }

    pub(crate) fn find(&self, id: &str) -> Option<Denied> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(id).cloned()
    }
}

impl Access {
    /// Denials since the start: on which plane (`data`, `admin`), why, and how many.
    pub fn denial_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.shared.denials.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_denial_is_counted_on_its_plane_under_its_name() {
        let denials = Denials::new(1);
        let denied = |method, denial| Denied {
            principal: Principal::loopback_dev(),
            method,
            identity: String::new(),
            target: String::new(),
            denial,
            at: Wall::from_secs(1),
        };
        denials.remember("1".into(), denied(None, Denial::UnknownIdentity));
        denials.remember("2".into(), denied(Some("A/B"), Denial::SecretNotShown));
        denials.remember("3".into(), denied(Some("A/B"), Denial::SecretNotShown));
        let counted: Vec<_> = denials.counts().into_iter().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counted, [("data", "unknown_identity", 1), ("admin", "secret_not_shown", 2)]);
    }
}
