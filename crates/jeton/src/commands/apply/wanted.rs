//! What a person wrote, in the words in which the broker says what it has: whole names, defaults filled in, targets, times and
//! paths in their one spelling. So a second run finds nothing to change. What cannot be done is said here, all of it, before
//! anything is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    str::FromStr,
};

use jeton_core::{AuthorityName, IdentityName, Principal, Profile, WorkloadName};

use super::file::{Authority, Identity, StateFile, Workload};
use crate::{
    commands::{absolute, full},
    exit::Misuse,
};

mod assignment;

/// What the broker has.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// As a file would say it.
    pub(crate) state: StateFile,
    /// Of each authority.
    pub(crate) profiles: BTreeMap<String, Profile>,
    /// The authority of every identity, also of those that no file makes.
    pub(crate) identities: BTreeMap<String, String>,
}

/// The file, checked against what is there.
pub(crate) fn checked(mut file: StateFile, present: &Present, prune: bool) -> Result<StateFile, Misuse> {
    file.authorities.iter_mut().for_each(|a| a.name = full(&a.name, "authorities/"));
    file.workloads.iter_mut().for_each(|w| w.name = full(&w.name, "workloads/"));
    for it in &mut file.identities {
        it.name = full(&it.name, "identities/");
        it.authority = full(&it.authority, "authorities/");
    }
    let named = file.clone();
    let mut check = Check { present, named: &named, prune, problems: vec![] };
    check.names();
    file.authorities.iter_mut().for_each(|it| check.authority(it));
    file.workloads.iter_mut().for_each(|it| check.workload(it));
    file.identities.iter().for_each(|it| check.identity(it));
    file.role_assignments.iter_mut().for_each(|it| check.assignment(it));
    check.principals(&file.workloads);
    match check.problems.as_slice() {
        [] => Ok(file),
        problems => {
            Err(Misuse(format!("the file has {} error(s)\n  {}", problems.len(), problems.join("\n  "))))
        }
    }
}

struct Check<'a> {
    present: &'a Present,
    /// The file with whole names.
    named: &'a StateFile,
    prune: bool,
    problems: Vec<String>,
}

impl Check<'_> {
    fn wrong(&mut self, subject: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{subject}: {problem}"));
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&mut self, subject: &str, text: &str) {
        if let Err(error) = text.parse::<T>() {
            self.wrong(subject, error);
        }
    }

    fn names(&mut self) {
        let named = self.named;
        named.authorities.iter().for_each(|it| self.parse::<AuthorityName>("authorities", &it.name));
        named.workloads.iter().for_each(|it| self.parse::<WorkloadName>("workloads", &it.name));
        named.identities.iter().for_each(|it| self.parse::<IdentityName>("identities", &it.name));
        let mut seen = BTreeSet::new();
        let names = (named.authorities.iter().map(|it| &it.name))
            .chain(named.workloads.iter().map(|it| &it.name))
            .chain(named.identities.iter().map(|it| &it.name));
        let twice: Vec<_> = names.filter(|name| !seen.insert(*name)).collect();
        twice.into_iter().for_each(|name| self.wrong(name, "the file names it twice"));
        let mut seen = BTreeSet::new();
        for it in &named.role_assignments {
            if !it.name.is_empty() && !seen.insert(full(&it.name, "roleAssignments/")) {
                self.wrong(&it.name, "the file names it twice");
            }
        }
    }

    fn knows_authority(&mut self, subject: &str, name: &str) {
        let known = self.present.profiles.contains_key(name)
            || self.named.authorities.iter().any(|it| it.name == name);
        if !known {
            self.wrong(subject, format_args!("the authority {name:?} is neither there nor in the file"));
        }
    }

    fn authority(&mut self, it: &mut Authority) {
        let name = it.name.clone();
        if !it.ca_file.is_empty() {
            match absolute(Path::new(&it.ca_file)) {
                Ok(path) => it.ca_file = path,
                Err(error) => self.wrong(&name, error),
            }
        }
        if !matches!(it.kind.as_str(), "" | "entra" | "oidc") {
            self.wrong(&name, format_args!("kind {:?} is neither entra nor oidc", it.kind));
        }
        let Some(there) = self.present.state.authorities.iter().find(|p| p.name == name) else {
            if it.kind.is_empty() || it.url.is_empty() {
                self.wrong(
                    &name,
                    "is not there, and to make it the file must say its kind (entra or oidc) and url",
                );
            }
            return;
        };
        it.url = it.url.trim_end_matches('/').to_owned();
        for (member, wanted, has) in [
            ("kind", &it.kind, &there.kind),
            ("url", &it.url, &there.url),
            ("ca_file", &it.ca_file, &there.ca_file),
        ] {
            if !wanted.is_empty() && wanted != has {
                self.wrong(
                    &name,
                    format_args!("{member} is {has:?} and cannot become {wanted:?}: choose another name, or delete it first"),
                );
            }
        }
        if it.display_name.is_empty() {
            it.display_name.clone_from(&there.display_name);
        }
    }

    fn workload(&mut self, it: &mut Workload) {
        let name = it.name.clone();
        it.principals.iter().for_each(|principal| self.parse::<Principal>(&name, principal));
        it.principals.sort();
        it.principals.dedup();
        if it.system_identity_authority.is_empty() {
            // Leaving it out removes an identity, at its authority too.
            if let Some(there) = self.present.state.workloads.iter().find(|p| p.name == name && !self.prune) {
                it.system_identity_authority.clone_from(&there.system_identity_authority);
            }
        } else {
            it.system_identity_authority = full(&it.system_identity_authority, "authorities/");
            self.knows_authority(&name, &it.system_identity_authority);
        }
    }

    /// A principal belongs to one workload.
    fn principals(&mut self, workloads: &[Workload]) {
        let mut owners = BTreeMap::new();
        for (principal, name) in workloads.iter().flat_map(|w| w.principals.iter().map(move |p| (p, &w.name)))
        {
            if let Some(other) = owners.insert(principal, name) {
                self.wrong(name, format_args!("{principal} belongs to {other} in the same file"));
            }
        }
        for other in &self.present.state.workloads {
            let leaves = self.prune || workloads.iter().any(|w| w.name == other.name);
            for principal in other.principals.iter().filter(|_| !leaves) {
                if let Some(name) = owners.get(principal) {
                    self.wrong(
                        name,
                        format_args!("{principal} belongs to {}, which is not in the file", other.name),
                    );
                }
            }
        }
    }

    fn identity(&mut self, it: &Identity) {
        self.knows_authority(&it.name, &it.authority);
        let made_here = self.present.state.identities.iter().any(|p| p.name == it.name);
        match self.present.identities.get(&it.name) {
            Some(_) if !made_here => {
                self.wrong(&it.name, "is there, attached or system-assigned: no file makes it")
            }
            Some(authority) if *authority != it.authority => self.wrong(
                &it.name,
                format_args!(
                    "is at {authority} and cannot move to {}: delete it, or choose another name",
                    it.authority
                ),
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use jeton_core::{Uid, Wall, profile::TargetStyle};

    use super::*;

    fn present() -> Present {
        let made = jeton_lifecycle::testing::authority("contoso", Uid::new(Wall::default(), [1; 10]), true);
        let profile = Profile { target: TargetStyle::EntraDefault, ..made.profile.as_ref().clone() };
        let state = toml::from_str(
            r#"
            [[authorities]]
            name = "authorities/contoso"
            display_name = "Contoso"
            kind = "entra"
            url = "https://contoso.example"
            [[workloads]]
            name = "workloads/checkout"
            principals = ["unix://n/uid/1", "unix://n/uid/2"]
            system_identity_authority = "authorities/contoso"
            [[identities]]
            name = "identities/billing"
            authority = "authorities/contoso"
            [[role_assignments]]
            name = "roleAssignments/q"
            member = "workloads/checkout"
            role = "token-user"
            identity = "identities/billing"
            targets = ["resource:https://vault.example"]
            expires = "2027-01-31T00:00:00Z"
            "#,
        );
        let authority = "authorities/contoso".to_owned();
        let identities = ["identities/billing", "identities/checkout-system", "identities/attached"];
        Present {
            state: state.unwrap(),
            profiles: [(authority.clone(), profile)].into(),
            identities: identities.map(|name| (name.to_owned(), authority.clone())).into(),
        }
    }

    fn problems(file: &str) -> String {
        checked(toml::from_str(file).unwrap(), &present(), false).unwrap_err().to_string()
    }

    #[test]
    fn what_a_person_writes_is_what_is_there() {
        let file = r#"
            [[authorities]]
            name = "contoso"
            url = "https://contoso.example/"
            [[workloads]]
            name = "checkout"
            principals = ["unix://n/uid/2", "unix://n/uid/1"]
            [[identities]]
            name = "billing"
            authority = "contoso"
            [[role_assignments]]
            name = "q"
            member = "workloads/checkout"
            identity = "billing"
            targets = ["https://vault.example/.default"]
            expires = "2027-01-31T02:00:00+02:00"
            "#;
        let present = present();
        let file = checked(toml::from_str(file).unwrap(), &present, false).unwrap();
        assert_eq!(super::super::plan::plan(&present.state, &file, false).len(), 0, "{file:?}");
    }

    #[test]
    fn a_system_assigned_identity_goes_only_where_pruning_is_wanted() {
        let file: StateFile = toml::from_str("[[workloads]]\nname = \"checkout\"").unwrap();
        let kept = checked(file.clone(), &present(), false).unwrap();
        assert_eq!(kept.workloads[0].system_identity_authority, "authorities/contoso");
        assert_eq!(checked(file, &present(), true).unwrap().workloads[0].system_identity_authority, "");
    }

    #[test]
    fn what_cannot_be_done_is_said_all_at_once() {
        let file = r#"
            [[authorities]]
            name = "contoso"
            kind = "oidc"
            ca_file = "/nonexistent.pem"
            [[authorities]]
            name = "new"
            [[workloads]]
            name = "No Name"
            [[workloads]]
            name = "thief"
            principals = ["unix://n/uid/1", "nonsense"]
            system_identity_authority = "nowhere"
            [[identities]]
            name = "twice"
            authority = "contoso"
            [[identities]]
            name = "identities/twice"
            authority = "nowhere"
            [[identities]]
            name = "attached"
            authority = "contoso"
            [[role_assignments]]
            member = "workloads/nobody"
            identity = "nothing"
            role = "owner"
            targets = ["has space"]
            expires = "soon"
            "#;
        let said = problems(file);
        for part in [
            "authorities/contoso: kind is \"entra\" and cannot become \"oidc\"",
            "authorities/contoso: /nonexistent.pem cannot be read",
            "authorities/new: is not there, and to make it",
            "\"No Name\" is not a valid id",
            "workloads/thief: unix://n/uid/1 belongs to workloads/checkout, which is not in the file",
            "workloads/thief: the authority \"authorities/nowhere\" is neither there nor in the file",
            "identities/twice: the file names it twice",
            "identities/twice: the authority \"authorities/nowhere\"",
            "identities/attached: is there, attached or system-assigned",
            "a role assignment needs a name",
            "workloads/nobody is neither there nor in the file",
            "\"identities/nothing\" is neither there nor in the file",
            "\"owner\" is no role",
            "expires \"soon\" is not a time",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
