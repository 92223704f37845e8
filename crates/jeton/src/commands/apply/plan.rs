//! From what is there and what shall be there to the steps between, in the order in which they can be taken.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use serde_json::{Map, Value};

use super::file::{Assignment, Authority, Identity, StateFile, Workload};

/// One change.
#[derive(Debug)]
pub(crate) enum Step {
    CreateAuthority(Authority),
    RenameAuthority(Change<Authority>),
    CreateWorkload(Workload),
    UpdateWorkload(Change<Workload>),
    EnableSystemIdentity(Workload),
    DisableSystemIdentity(String),
    CreateIdentity(Identity),
    UpdateIdentity(Change<Identity>),
    CreateAssignment(Assignment),
    ReplaceAssignment(Change<Assignment>),
    RemoveAssignment(String),
    DeleteIdentity(String),
    DeleteWorkload(String),
}

/// Something as it is and as it shall be.
#[derive(Debug)]
pub(crate) struct Change<T> {
    from: T,
    pub(crate) to: T,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateAuthority(a) => write!(f, "+ {}", a.name),
            Self::CreateWorkload(w) => write!(f, "+ {}: {}", w.name, w.principals.join(", ")),
            Self::EnableSystemIdentity(w) => {
                write!(f, "+ system identity of {} at {}", w.name, w.system_identity_authority)
            }
            Self::DisableSystemIdentity(name) => write!(f, "- system identity of {name}"),
            Self::CreateIdentity(i) => write!(f, "+ {} at {}", i.name, i.authority),
            Self::CreateAssignment(a) if a.targets.is_empty() => {
                write!(f, "+ {}: {} is {} on {}", a.name, a.member, a.role, a.identity)
            }
            Self::CreateAssignment(a) => {
                write!(f, "+ {}: {} may use {} for {}", a.name, a.member, a.identity, a.targets.join(", "))
            }
            Self::RenameAuthority(change) => write!(f, "~ {}: {change}", change.to.name),
            Self::UpdateWorkload(change) => write!(f, "~ {}: {change}", change.to.name),
            Self::UpdateIdentity(change) => write!(f, "~ {}: {change}", change.to.name),
            Self::ReplaceAssignment(change) => write!(f, "~ {}: {change}", change.to.name),
            Self::RemoveAssignment(name) | Self::DeleteIdentity(name) | Self::DeleteWorkload(name) => {
                write!(f, "- {name}")
            }
        }
    }
}

/// Every member that differs, with its old and its new value.
impl<T: Serialize> fmt::Display for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = |value: &T| match serde_json::to_value(value) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let (from, to) = (members(&self.from), members(&self.to));
        let names: BTreeSet<_> =
            from.keys().chain(to.keys()).filter(|n| from.get(*n) != to.get(*n)).collect();
        let shown = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
        let parts = names.into_iter().map(|n| format!("{n} {} -> {}", shown(from.get(n)), shown(to.get(n))));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// The steps from one state to the other.
pub(crate) fn plan(present: &StateFile, wanted: &StateFile, prune: bool) -> Vec<Step> {
    let (mut present, mut steps) = (present.clone(), vec![]);
    for it in &wanted.authorities {
        match present.authorities.iter().find(|p| p.name == it.name) {
            None => steps.push(Step::CreateAuthority(it.clone())),
            Some(p) if p.display_name != it.display_name => {
                let to = Authority { display_name: it.display_name.clone(), ..p.clone() };
                steps.push(Step::RenameAuthority(Change { from: p.clone(), to }));
            }
            Some(_) => {}
        }
    }
    release(&mut present, wanted, &mut steps);
    for it in &wanted.workloads {
        workload(present.workloads.iter().find(|p| p.name == it.name), it, &mut steps);
    }
    for it in &wanted.identities {
        match present.identities.iter().find(|p| p.name == it.name) {
            None => steps.push(Step::CreateIdentity(it.clone())),
            Some(p) if p != it => {
                steps.push(Step::UpdateIdentity(Change { from: p.clone(), to: it.clone() }));
            }
            Some(_) => {}
        }
    }
    for it in &wanted.role_assignments {
        match present.role_assignments.iter().find(|p| p.name == it.name) {
            None => steps.push(Step::CreateAssignment(it.clone())),
            Some(p) if p != it => {
                steps.push(Step::ReplaceAssignment(Change { from: p.clone(), to: it.clone() }));
            }
            Some(_) => {}
        }
    }
    if prune {
        steps.extend(pruned(&present, wanted));
    }
    steps
}

/// A principal belongs to one workload, so one that moves leaves its old workload before it comes to the new one.
fn release(present: &mut StateFile, wanted: &StateFile, steps: &mut Vec<Step>) {
    for from in &mut present.workloads {
        let moves = |principal: &String| {
            wanted.workloads.iter().any(|w| w.name != from.name && w.principals.contains(principal))
        };
        let (gone, kept): (Vec<_>, Vec<_>) = from.principals.iter().cloned().partition(moves);
        if !gone.is_empty() {
            let to = Workload { principals: kept, ..from.clone() };
            steps.push(Step::UpdateWorkload(Change { from: from.clone(), to: to.clone() }));
            *from = to;
        }
    }
}

fn workload(found: Option<&Workload>, it: &Workload, steps: &mut Vec<Step>) {
    let has = found.map_or("", |p| &p.system_identity_authority);
    // Its system-assigned identity has steps of its own.
    let to = Workload { system_identity_authority: has.to_owned(), ..it.clone() };
    match found {
        None => steps.push(Step::CreateWorkload(it.clone())),
        Some(p) if *p != to => steps.push(Step::UpdateWorkload(Change { from: p.clone(), to })),
        Some(_) => {}
    }
    if has != it.system_identity_authority {
        if !has.is_empty() {
            steps.push(Step::DisableSystemIdentity(it.name.clone()));
        }
        if !it.system_identity_authority.is_empty() {
            steps.push(Step::EnableSystemIdentity(it.clone()));
        }
    }
}

/// What is there and not in the file, what others need last.
fn pruned(present: &StateFile, wanted: &StateFile) -> Vec<Step> {
    let left = |names: fn(&StateFile) -> Vec<String>| {
        let kept = names(wanted);
        names(present).into_iter().filter(move |name| !kept.contains(name))
    };
    let assignments = left(|s| s.role_assignments.iter().map(|a| a.name.clone()).collect());
    let identities = left(|s| s.identities.iter().map(|i| i.name.clone()).collect());
    let workloads = left(|s| s.workloads.iter().map(|w| w.name.clone()).collect());
    assignments
        .map(Step::RemoveAssignment)
        .chain(identities.map(Step::DeleteIdentity))
        .chain(workloads.map(Step::DeleteWorkload))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(present: &StateFile, wanted: &StateFile, prune: bool) -> Vec<String> {
        plan(present, wanted, prune).iter().map(ToString::to_string).collect()
    }

    fn wanted() -> StateFile {
        toml::from_str(
            r#"
            [[workloads]]
            name = "workloads/checkout"
            principals = ["unix://n/uid/1000"]
            system_identity_authority = "authorities/contoso"
            [[identities]]
            name = "identities/billing"
            authority = "authorities/contoso"
            [[role_assignments]]
            name = "roleAssignments/checkout-billing"
            member = "workloads/checkout"
            role = "token-user"
            identity = "identities/billing"
            targets = ["resource:https://vault.example"]
            "#,
        )
        .unwrap()
    }

    #[test]
    fn what_is_there_already_needs_no_step() {
        assert!(shown(&wanted(), &wanted(), true).is_empty());
    }

    #[test]
    fn what_others_need_is_made_first() {
        let steps = shown(&StateFile::default(), &wanted(), false);
        let starts = [
            "+ workloads/checkout",
            "+ system identity of workloads/checkout",
            "+ identities/billing",
            "+ roleAssignments/checkout-billing",
        ];
        assert_eq!(steps.len(), starts.len());
        assert!(steps.iter().zip(starts).all(|(step, start)| step.starts_with(start)), "{steps:?}");
    }

    #[test]
    fn only_prune_removes_and_assignments_go_first() {
        assert!(shown(&wanted(), &StateFile::default(), false).is_empty());
        assert_eq!(
            shown(&wanted(), &StateFile::default(), true),
            ["- roleAssignments/checkout-billing", "- identities/billing", "- workloads/checkout"]
        );
    }

    #[test]
    fn a_change_shows_what_was_and_what_will_be() {
        let mut changed = wanted();
        changed.workloads[0].principals.clear();
        changed.workloads[0].labels.insert("team".into(), "shop".into());
        changed.role_assignments[0].targets = vec!["*".into()];
        assert_eq!(
            shown(&wanted(), &changed, false),
            [
                r#"~ workloads/checkout: labels none -> {"team":"shop"}, principals ["unix://n/uid/1000"] -> []"#,
                r#"~ roleAssignments/checkout-billing: targets ["resource:https://vault.example"] -> ["*"]"#,
            ]
        );
    }

    #[test]
    fn a_principal_that_moves_is_released_first_whatever_the_files_order() {
        let of = |name: &str, principals: &[&str]| Workload {
            name: name.into(),
            principals: principals.iter().map(ToString::to_string).collect(),
            ..Workload::default()
        };
        let state =
            |workloads: [Workload; 2]| StateFile { workloads: workloads.into(), ..StateFile::default() };
        let present = state([of("workloads/a", &["p"]), of("workloads/b", &["q"])]);
        let swapped = state([of("workloads/a", &["q"]), of("workloads/b", &["p"])]);
        assert_eq!(
            shown(&present, &swapped, false),
            [
                r#"~ workloads/a: principals ["p"] -> []"#,
                r#"~ workloads/b: principals ["q"] -> []"#,
                r#"~ workloads/a: principals [] -> ["q"]"#,
                r#"~ workloads/b: principals [] -> ["p"]"#,
            ]
        );
    }
}
