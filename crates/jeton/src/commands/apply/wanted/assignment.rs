//! Role assignments of a file.

use jeton_core::{
    AssignmentName, Clock, Principal, PrincipalPattern, Role, RoleError, ScopeName, SystemClock, Target, Wall,
};
use prost_types::Timestamp;

use super::{
    super::file::{Assignment, Workload},
    Check,
};
use crate::commands::{full, scope};

impl Check<'_> {
    /// Checks one, and puts it into the words in which the broker says what it has.
    pub(super) fn assignment(&mut self, it: &mut Assignment) {
        if it.name.is_empty() {
            let text = format!("{} on {}", it.member, it.identity);
            self.wrong(&text, "a role assignment needs a name, such as roleAssignments/checkout-billing");
        } else {
            it.name = full(&it.name, "roleAssignments/");
            self.parse::<AssignmentName>(&it.name.clone(), &it.name);
        }
        let name = it.name.clone();
        let role = self.role(&name, &mut it.role);
        self.member(&name, &it.member);
        it.identity = scope(&it.identity);
        let reach = it.identity.parse::<ScopeName>();
        let authority = self.authority_of(&it.identity);
        match &reach {
            Err(error) => self.wrong(&name, error),
            Ok(ScopeName::Identity(_)) if authority.is_none() => {
                self.wrong(&name, format_args!("{:?} is neither there nor in the file", it.identity));
            }
            Ok(ScopeName::All) if role == Some(Role::TokenUser) => {
                self.wrong(
                    &name,
                    "'*' is for roles of the admin plane; token-user needs an identity or a dotted group",
                );
            }
            Ok(_) => {}
        }
        if role.is_some_and(Role::is_administrative) {
            if !it.targets.is_empty() || it.keep_warm || it.max_token_lifetime_seconds.is_some() {
                let what = "targets, keep_warm and max_token_lifetime_seconds are for token-user alone";
                self.wrong(&name, what);
            }
        } else {
            if it.keep_warm && (!matches!(reach, Ok(ScopeName::Identity(_))) || it.targets == ["*"]) {
                self.wrong(&name, "keep_warm needs one identity and exact targets");
            }
            self.targets(&name, &mut it.targets, authority.as_deref());
        }
        self.lifetime(&name, it.max_token_lifetime_seconds);
        self.expiry(&name, &mut it.expires);
    }

    fn role(&mut self, subject: &str, role: &mut String) -> Option<Role> {
        if role.is_empty() {
            *role = Role::TokenUser.to_string();
        }
        role.parse().map_err(|error: RoleError| self.wrong(subject, error)).ok()
    }

    fn lifetime(&mut self, subject: &str, seconds: Option<i64>) {
        if seconds.is_some_and(|s| s < 1) {
            self.wrong(subject, "max_token_lifetime_seconds must be at least 1");
        }
    }

    /// One that has passed may stay as it is there; a new one says nothing.
    fn expiry(&mut self, subject: &str, expires: &mut String) {
        if expires.is_empty() {
            return;
        }
        let Ok(at) = expires.parse::<Timestamp>() else {
            let text = format!("expires {expires:?} is not a time such as 2027-01-31T00:00:00Z");
            return self.wrong(subject, text);
        };
        *expires = at.to_string();
        let there = self.present.state.role_assignments.iter();
        let as_it_is = there.clone().any(|p| p.name == subject && p.expires == *expires);
        if !as_it_is && Wall::from_secs(at.seconds) <= SystemClock.now().wall {
            self.wrong(subject, format_args!("expires {expires} lies in the past"));
        }
    }

    fn member(&mut self, subject: &str, member: &str) {
        if member.starts_with("workloads/") {
            let mut all = self.named.workloads.iter().chain(&self.present.state.workloads);
            if all.all(|w| w.name != member) {
                self.wrong(subject, format_args!("{member} is neither there nor in the file"));
            }
        } else if member.ends_with('/') {
            self.parse::<PrincipalPattern>(subject, member);
        } else {
            self.parse::<Principal>(subject, member);
        }
    }

    fn authority_of(&self, identity: &str) -> Option<String> {
        let wanted = self.named.identities.iter().find(|it| it.name == identity).map(|it| &it.authority);
        let system = || {
            let own = |w: &&Workload| {
                format!("identities/{}-system", w.name.trim_start_matches("workloads/")) == identity
            };
            self.named
                .workloads
                .iter()
                .find(own)
                .map(|w| &w.system_identity_authority)
                .filter(|a| !a.is_empty())
        };
        self.present.identities.get(identity).or(wanted).or_else(system).cloned()
    }

    fn targets(&mut self, subject: &str, targets: &mut Vec<String>, authority: Option<&str>) {
        if targets.is_empty() {
            self.wrong(subject, "say for what: targets = [\"*\"], or scopes and resources");
        }
        // Those of a group are compared as they are written, and those at a new authority with nothing.
        let profile = authority.and_then(|name| self.present.profiles.get(name));
        if let Some(profile) = profile.filter(|_| *targets != ["*"]) {
            for text in targets.iter_mut() {
                match Target::named(text, profile) {
                    Ok(target) => *text = target.to_string(),
                    Err(error) => self.problems.push(format!("{subject}: {error}")),
                }
            }
        }
        targets.sort();
        targets.dedup();
    }
}
