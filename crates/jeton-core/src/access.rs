//! Who may use which identity for what: role assignments, and the words of a decision. Deny by default.
//!
//! An assignment binds uids, so a name that is made again inherits nothing.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    AssignmentName, Directory, Identity, Permission, Principal, PrincipalPattern, Role, Target, Uid, Wall,
};

mod bucket;
mod scope;
mod snapshot;

pub use scope::{ScopeError, ScopeName};
pub use snapshot::AccessSnapshot;

/// A stored role assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleAssignment {
    /// Immutable.
    pub uid: Uid,
    /// Unique.
    pub name: AssignmentName,
    /// Who.
    pub member: Member,
    /// May do what.
    pub role: Role,
    /// With which identities.
    pub scope: AssignmentScope,
    /// For which targets; none where the role uses no tokens.
    pub targets: TargetRule,
    /// Keep the tokens of the named targets warm, used or not.
    pub keep_warm: bool,
    /// From when on it says nothing any more.
    pub expires_at: Option<Wall>,
    /// No token is handed out with more life left.
    pub max_token_lifetime: Option<Duration>,
    /// What each caller may ask by this assignment beside hits, in place of the broker's settings.
    #[serde(default, skip_serializing_if = "CallerLimits::are_usual")]
    pub limits: CallerLimits,
    /// When it was created.
    pub created_at: Wall,
}

/// What one caller may ask beside hits; what is absent is as the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerLimits {
    /// Misses and new keys, a second.
    pub misses_per_second: Option<u32>,
    /// Misses and new keys at once.
    pub miss_burst: Option<u32>,
    /// Refreshes forced by reports of rejected tokens, a minute.
    pub forced_refreshes_per_minute: Option<u32>,
    /// Tokens watched.
    pub max_watches: Option<u32>,
    /// Requests that wait for an authority.
    pub max_waiting: Option<u32>,
}

impl CallerLimits {
    /// Whether the settings alone say what a caller may.
    pub fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Who has a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Member {
    /// A workload, by uid.
    Workload(Uid),
    /// One exact principal.
    Principal(Principal),
    /// All principals below a prefix.
    Pattern(PrincipalPattern),
}

/// With which identities.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentScope {
    /// One identity, by uid.
    Identity(Uid),
    /// All identities whose id begins with this dotted prefix; `payments.` for `identities/payments.*`. To an administrator it is
    /// the workloads whose ids begin so, too.
    Group(Arc<str>),
    /// `*`: everything. Only roles of the admin plane have it.
    All,
}

impl AssignmentScope {
    /// Whether an identity is reached.
    pub fn covers(&self, identity: &Identity) -> bool {
        match self {
            Self::Identity(uid) => *uid == identity.uid,
            Self::Group(prefix) => identity.name.id().starts_with(prefix.as_ref()),
            Self::All => true,
        }
    }

    /// In the words in which it is written.
    pub fn shown(&self, directory: &Directory) -> String {
        match self {
            Self::Identity(uid) => {
                directory.identity(*uid).map_or_else(|| format!("identity uid {uid}"), |i| i.name.to_string())
            }
            Self::Group(prefix) => format!("identities/{prefix}*"),
            Self::All => "*".into(),
        }
    }
}

impl Member {
    /// In the words in which it is written.
    pub fn shown(&self, directory: &Directory) -> String {
        match self {
            Self::Workload(uid) => {
                directory.workload(*uid).map_or_else(|| format!("workload uid {uid}"), |w| w.name.to_string())
            }
            Self::Principal(principal) => principal.to_string(),
            Self::Pattern(pattern) => pattern.to_string(),
        }
    }
}

impl RoleAssignment {
    /// Whether it has said its last.
    pub fn expired(&self, now: Wall) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// For which targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetRule {
    /// `*`.
    Any,
    /// Canonical texts.
    Only(Vec<Arc<str>>),
}

impl TargetRule {
    /// Whether a target is granted.
    pub fn covers(&self, target: &Target) -> bool {
        match self {
            Self::Any => true,
            Self::Only(texts) => texts.iter().any(|text| text.as_ref() == target.as_str()),
        }
    }
}

/// The answer to "may this caller have this token?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, by this assignment.
    Allow(Arc<RoleAssignment>),
    /// No.
    Deny(Denial),
}

/// Why not. For the operator; callers learn only that access was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// No assignment of the member reaches the identity.
    NoAssignment,
    /// Assignments reach the identity, but none the target.
    TargetNotGranted {
        /// One that reaches the identity.
        nearest: AssignmentName,
    },
    /// An assignment would allow it, had it not expired.
    Expired {
        /// Which.
        assignment: AssignmentName,
        /// When it ended.
        at: Wall,
    },
    /// The identity is not there.
    UnknownIdentity,
    /// The caller has no workload, or its workload no system-assigned identity, and the request named none.
    NoSystemIdentity,
    /// The identity is disabled or being deleted.
    IdentityNotActive,
    /// On the admin plane: no role of the caller has this permission there.
    NotPermitted(Permission),
    /// An administrator of a part would make another administrator.
    RoleNotGiven(Role),
    /// An administrator would give something to itself.
    GivenToItself,
    /// Whoever sees a workload's secret can call as that workload.
    SecretNotShown,
    /// The broker's own user alone says which file the broker seals with.
    SealingNotGiven,
}

impl Denial {
    /// What all are called in metrics.
    pub const NAMES: [&str; 11] = [
        "no_assignment",
        "target_not_granted",
        "expired",
        "unknown_identity",
        "no_system_identity",
        "identity_not_active",
        "not_permitted",
        "role_not_given",
        "given_to_itself",
        "secret_not_shown",
        "sealing_not_given",
    ];

    /// Its place among the names.
    pub const fn index(&self) -> usize {
        match self {
            Self::NoAssignment => 0,
            Self::TargetNotGranted { .. } => 1,
            Self::Expired { .. } => 2,
            Self::UnknownIdentity => 3,
            Self::NoSystemIdentity => 4,
            Self::IdentityNotActive => 5,
            Self::NotPermitted(_) => 6,
            Self::RoleNotGiven(_) => 7,
            Self::GivenToItself => 8,
            Self::SecretNotShown => 9,
            Self::SealingNotGiven => 10,
        }
    }
}

/// The caller: what the door says, and the workload that the principal belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The authenticated principal.
    pub principal: &'a Principal,
    /// Its workload, if it has one.
    pub workload: Option<Uid>,
}
