//! Lists with filters and pages. A page goes on after the last name that was seen, so what is added or removed meanwhile does
//! not shift it.

use std::{collections::BTreeMap, sync::Arc};

use jeton_core::{Directory, Identity, IdentityKind, IdentityName, IdentityState, Uid};

/// Most entries of a page.
const MAX_PAGE: usize = 1000;
/// Entries of a page when nobody says.
const DEFAULT_PAGE: usize = 100;

/// A part of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// In the order of their names.
    pub items: Vec<T>,
    /// Whether there are more.
    pub more: bool,
}

/// Which identities.
#[derive(Debug, Clone, Default)]
pub struct IdentityFilter {
    /// Only those of this authority.
    pub authority: Option<Uid>,
    /// Only those in this state.
    pub state: Option<IdentityState>,
    /// Only those of this kind.
    pub kind: Option<IdentityKind>,
    /// Only those of this workload.
    pub workload: Option<Uid>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
}

impl IdentityFilter {
    /// A page of what fits, after a name.
    pub fn page(
        &self,
        directory: &Directory,
        after: Option<&IdentityName>,
        size: usize,
    ) -> Page<Arc<Identity>> {
        page(directory.identities_after(after).filter(|identity| self.fits(identity)).cloned(), size)
    }

    /// Whether an identity is one of them.
    pub fn fits(&self, identity: &Identity) -> bool {
        self.authority.is_none_or(|authority| identity.authority == authority)
            && self.state.is_none_or(|state| identity.state == state)
            && self.kind.is_none_or(|kind| identity.kind == kind)
            && self.workload.is_none_or(|workload| identity.workload == Some(workload))
            && self.labels.iter().all(|(key, value)| identity.labels.get(key) == Some(value))
    }
}

/// Entries of a page of this size; 0: as many as usual.
pub fn page_of(size: usize) -> usize {
    if size == 0 { DEFAULT_PAGE } else { size.min(MAX_PAGE) }
}

/// The first items of a list; 0: as many as usual.
pub fn page<T>(mut items: impl Iterator<Item = T>, size: usize) -> Page<T> {
    let size = page_of(size);
    let taken: Vec<T> = items.by_ref().take(size).collect();
    Page { more: items.next().is_some(), items: taken }
}
