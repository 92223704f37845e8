//! Roles: fixed sets of permissions. What a role gives, it gives on the scope of its assignment and nowhere else.
//!
//! Those who say what identities are and those who say who may use them are separate: neither role has the other's permissions, and
//! none that administers anything has that of using tokens.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a member of a role assignment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Gets tokens. The one role of the data plane.
    TokenUser,
    /// Makes, rotates, disables and removes identities; on everything, authorities too.
    IdentityOperator,
    /// Says who may do what.
    AccessAdministrator,
    /// Sees everything, role assignments and denials included.
    Auditor,
    /// Sees identities, workloads, authorities and how the broker is doing.
    Reader,
}

/// One thing that a role may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Get tokens.
    UseTokens,
    /// See identities and what is known of their tokens.
    ReadIdentities,
    /// Make, change and remove identities.
    ChangeIdentities,
    /// See workloads.
    ReadWorkloads,
    /// Make, change and remove workloads: who belongs to one has its roles.
    ChangeWorkloads,
    /// See authorities. They belong to no group: whoever may see some identity may see them all.
    ReadAuthorities,
    /// Add, change and remove authorities. On everything only.
    ChangeAuthorities,
    /// See role assignments, and why something was denied.
    ReadAssignments,
    /// Make and take back role assignments.
    ChangeAssignments,
    /// See how the broker is doing.
    ReadStatus,
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; the roles are {roles}", roles = Role::NAMES.join(", "))]
pub struct RoleError(String);

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TokenUser, Self::IdentityOperator, Self::AccessAdministrator, Self::Auditor, Self::Reader];

    /// Their names.
    pub const NAMES: [&str; 5] = {
        let [a, b, c, d, e] = Self::ALL;
        [a.as_str(), b.as_str(), c.as_str(), d.as_str(), e.as_str()]
    };

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenUser => "token-user",
            Self::IdentityOperator => "identity-operator",
            Self::AccessAdministrator => "access-administrator",
            Self::Auditor => "auditor",
            Self::Reader => "reader",
        }
    }

    /// What it allows.
    pub const fn permissions(self) -> &'static [Permission] {
        use Permission::*;
        match self {
            Self::TokenUser => &[UseTokens],
            Self::IdentityOperator => &[
                ReadIdentities,
                ChangeIdentities,
                ReadWorkloads,
                ReadAuthorities,
                ChangeAuthorities,
                ReadStatus,
            ],
            Self::AccessAdministrator => &[
                ReadIdentities,
                ReadWorkloads,
                ChangeWorkloads,
                ReadAuthorities,
                ReadAssignments,
                ChangeAssignments,
                ReadStatus,
            ],
            Self::Auditor => &[ReadIdentities, ReadWorkloads, ReadAuthorities, ReadAssignments, ReadStatus],
            Self::Reader => &[ReadIdentities, ReadWorkloads, ReadAuthorities, ReadStatus],
        }
    }

    /// Whether it allows this.
    pub fn allows(self, permission: Permission) -> bool {
        self.permissions().contains(&permission)
    }

    /// Whether it is one of the admin plane.
    pub fn is_administrative(self) -> bool {
        self != Self::TokenUser
    }

    /// Whether only who administers the access to everything may give it. A delegate makes no further delegates.
    pub fn is_given_from_above(self) -> bool {
        matches!(self, Self::IdentityOperator | Self::AccessAdministrator)
    }

    /// The one that allows this and the least beside it.
    pub fn least_with(permission: Permission) -> Self {
        let with = Self::ALL.into_iter().filter(|role| role.allows(permission));
        // Every permission is some role's; a test goes through them all.
        with.min_by_key(|role| role.permissions().len()).unwrap_or(Self::AccessAdministrator)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(crate::name::shorten(text)))
    }
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::UseTokens,
        Self::ReadIdentities,
        Self::ChangeIdentities,
        Self::ReadWorkloads,
        Self::ChangeWorkloads,
        Self::ReadAuthorities,
        Self::ChangeAuthorities,
        Self::ReadAssignments,
        Self::ChangeAssignments,
        Self::ReadStatus,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UseTokens => "tokens.use",
            Self::ReadIdentities => "identities.read",
            Self::ChangeIdentities => "identities.change",
            Self::ReadWorkloads => "workloads.read",
            Self::ChangeWorkloads => "workloads.change",
            Self::ReadAuthorities => "authorities.read",
            Self::ChangeAuthorities => "authorities.change",
            Self::ReadAssignments => "assignments.read",
            Self::ChangeAssignments => "assignments.change",
            Self::ReadStatus => "status.read",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_as_it_is_written_and_an_error_lists_them_all() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""), "stored under its name");
        }
        let error = "owner".parse::<Role>().unwrap_err().to_string();
        assert!(Role::ALL.iter().all(|role| error.contains(role.as_str())), "{error}");
    }

    #[test]
    fn using_tokens_changing_identities_and_changing_access_are_three_roles() {
        for role in Role::ALL {
            let powers = [Permission::UseTokens, Permission::ChangeIdentities, Permission::ChangeAssignments];
            assert!(powers.into_iter().filter(|p| role.allows(*p)).count() <= 1, "{role}");
            assert!(!(role.allows(Permission::ChangeIdentities) && role.allows(Permission::ChangeWorkloads)));
        }
        for role in [Role::Auditor, Role::Reader] {
            assert!(role.permissions().iter().all(|p| p.as_str().ends_with(".read")), "{role}");
        }
    }

    #[test]
    fn every_permission_is_some_roles_and_the_least_role_has_it() {
        for permission in Permission::ALL {
            assert!(Role::least_with(permission).allows(permission), "{permission}");
        }
        assert_eq!(Role::least_with(Permission::ReadStatus), Role::Reader);
        assert_eq!(Role::least_with(Permission::ReadAssignments), Role::Auditor);
    }
}
