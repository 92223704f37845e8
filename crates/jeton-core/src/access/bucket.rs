//! The assignments of one member in one scope, in the order of their making: usually one.

use std::sync::Arc;

use super::RoleAssignment;
use crate::Uid;

/// Many share structure, so that one more among thousands copies a few nodes and not all of them.
#[derive(Clone, Debug)]
pub(super) enum Bucket {
    One(Arc<RoleAssignment>),
    Many(imbl::OrdMap<Uid, Arc<RoleAssignment>>),
}

impl Bucket {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<RoleAssignment>> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn with(self, assignment: Arc<RoleAssignment>) -> Self {
        let mut many = match self {
            Self::One(one) => imbl::OrdMap::unit(one.uid, one),
            Self::Many(many) => many,
        };
        many.insert(assignment.uid, assignment);
        Self::Many(many)
    }

    /// None: nothing is left.
    pub(super) fn without(self, uid: Uid) -> Option<Self> {
        match self {
            Self::One(one) => (one.uid != uid).then_some(Self::One(one)),
            Self::Many(mut many) => {
                many.remove(&uid);
                (!many.is_empty()).then_some(Self::Many(many))
            }
        }
    }
}
