//! The latest denials, by correlation id: what the operator may know and the caller may not.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use jeton_core::{Denial, Principal, Wall};

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
}

#[derive(Debug, Default)]
struct Ring {
    order: VecDeque<String>,
    by_id: HashMap<String, Denied>,
}

impl Denials {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ring: Mutex::default() }
    }

    pub(crate) fn remember(&self, id: String, denied: Denied) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.order.len() >= self.most
            && let Some(oldest) = ring.order.pop_front()
        {
            ring.by_id.remove(&oldest);
        }
        ring.order.push_back(id.clone());
        ring.by_id.insert(id, denied);
    }

    pub(crate) fn find(&self, id: &str) -> Option<Denied> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(id).cloned()
    }
}
