//! Who exists: the immutable snapshot of identities, workloads and authorities that the request path reads.
//!
//! The lifecycle is its one owner and publishes a new one after each commit. The maps share structure, so a change among
//! 100,000 identities copies a few nodes and not the world.

use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use crate::{
    Authority, AuthorityName, Identity, IdentityName, Principal, Published, SecretDigest, Uid, Wall,
    Workload, WorkloadName, WorkloadSecret,
};

/// The directory as the request path holds it.
pub type SharedDirectory = Published<Directory>;

/// One state of the registry.
#[derive(Clone, Default, Debug)]
pub struct Directory {
    identities: imbl::HashMap<Uid, Arc<Identity>>,
    identity_names: imbl::OrdMap<IdentityName, Uid>,
    /// By what authorities call them. Two authorities may use one id.
    identity_ids: imbl::OrdSet<(AuthoritysId, Uid)>,
    workloads: imbl::HashMap<Uid, Arc<Workload>>,
    workload_names: imbl::OrdMap<WorkloadName, Uid>,
    principals: imbl::HashMap<Principal, Uid>,
    secrets: imbl::HashMap<SecretDigest, Arc<Place>>,
    authorities: imbl::HashMap<Uid, Arc<Authority>>,
    authority_names: imbl::OrdMap<AuthorityName, Uid>,
}

/// What an authority calls a client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum AuthoritysId {
    Client(Arc<str>),
    /// Graph: the object id of the service principal.
    Object(Arc<str>),
}

/// Whose a secret is, and when it was used: shared by all states of the registry, because a use changes none of them.
#[derive(Debug)]
struct Place {
    workload: Uid,
    used: AtomicI64,
}

/// Uses are told apart to the hour. More would say when a service is at work, and no one needs it to find a secret that nobody uses.
const USED_MILLIS: i64 = 3_600_000;
const NEVER: i64 = i64::MIN;

impl Directory {
    /// By uid.
    pub fn identity(&self, uid: Uid) -> Option<&Arc<Identity>> {
        self.identities.get(&uid)
    }

    /// By name.
    pub fn identity_named(&self, name: &IdentityName) -> Option<&Arc<Identity>> {
        self.identity_names.get(name).and_then(|uid| self.identities.get(uid))
    }

    /// All that have this client id at their authorities.
    pub fn identities_of_client(&self, id: &str) -> impl Iterator<Item = &Arc<Identity>> {
        self.called(AuthoritysId::Client(id.into()))
    }

    /// All whose service principals have this object id in their directories.
    pub fn identities_of_object(&self, id: &str) -> impl Iterator<Item = &Arc<Identity>> {
        self.called(AuthoritysId::Object(id.into()))
    }

    fn called(&self, id: AuthoritysId) -> impl Iterator<Item = &Arc<Identity>> {
        let from = (id.clone(), Uid::new(Wall::default(), [0; 10]));
        let same = self.identity_ids.range(from..).take_while(move |(found, _)| *found == id);
        same.filter_map(|(_, uid)| self.identities.get(uid))
    }

    /// All, in the order of their names, from the first name after `after`.
    pub fn identities_after<'a>(
        &'a self,
        after: Option<&IdentityName>,
    ) -> impl Iterator<Item = &'a Arc<Identity>> + use<'a> {
        from(&self.identity_names, after).filter_map(|uid| self.identities.get(uid))
    }

    /// How many there are.
    pub fn identity_count(&self) -> usize {
        self.identities.len()
    }

    /// By uid.
    pub fn workload(&self, uid: Uid) -> Option<&Arc<Workload>> {
        self.workloads.get(&uid)
    }

    /// By name.
    pub fn workload_named(&self, name: &WorkloadName) -> Option<&Arc<Workload>> {
        self.workload_names.get(name).and_then(|uid| self.workloads.get(uid))
    }

    /// The workload to which a principal belongs.
    pub fn workload_of(&self, principal: &Principal) -> Option<&Arc<Workload>> {
        let uid = self.principals.get(principal).copied().or_else(|| principal.secret_of())?;
        self.workloads.get(&uid)
    }

    /// The workload whose secret this is, if it counts now. A look-up, without a lock.
    pub fn workload_by_secret(&self, digest: &SecretDigest, now: Wall) -> Option<&Arc<Workload>> {
        let place = self.secrets.get(digest)?;
        let workload = self.workloads.get(&place.workload)?;
        workload.secrets.iter().find(|secret| secret.digest == *digest)?.counts(now).then_some(())?;
        let hour = now.as_millis().div_euclid(USED_MILLIS) * USED_MILLIS;
        if place.used.load(Relaxed) < hour {
            place.used.store(hour, Relaxed);
        }
        Some(workload)
    }

    /// The hour in which a secret was used last since the process started.
    pub fn secret_used(&self, digest: &SecretDigest) -> Option<Wall> {
        let used = self.secrets.get(digest)?.used.load(Relaxed);
        (used != NEVER).then(|| Wall::from_millis(used))
    }

    /// All, in the order of their names, from the first name after `after`.
    pub fn workloads_after<'a>(
        &'a self,
        after: Option<&WorkloadName>,
    ) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
        from(&self.workload_names, after).filter_map(|uid| self.workloads.get(uid))
    }

    /// By uid.
    pub fn authority(&self, uid: Uid) -> Option<&Arc<Authority>> {
        self.authorities.get(&uid)
    }

    /// By name.
    pub fn authority_named(&self, name: &AuthorityName) -> Option<&Arc<Authority>> {
        self.authority_names.get(name).and_then(|uid| self.authorities.get(uid))
    }

    /// All, in the order of their names, from the first name after `after`.
    pub fn authorities_after<'a>(
        &'a self,
        after: Option<&AuthorityName>,
    ) -> impl Iterator<Item = &'a Arc<Authority>> + use<'a> {
        from(&self.authority_names, after).filter_map(|uid| self.authorities.get(uid))
    }

    /// Adds or replaces.
    pub fn put_identity(&mut self, identity: Arc<Identity>) {
        if let Some(before) = self.identities.get(&identity.uid).cloned() {
            ids(&before).for_each(|id| drop(self.identity_ids.remove(&(id, before.uid))));
        }
        ids(&identity).for_each(|id| drop(self.identity_ids.insert((id, identity.uid))));
        self.identity_names.insert(identity.name.clone(), identity.uid);
        self.identities.insert(identity.uid, identity);
    }

    /// Removes, if it is there.
    pub fn remove_identity(&mut self, uid: Uid) -> Option<Arc<Identity>> {
        let identity = self.identities.remove(&uid)?;
        self.identity_names.remove(&identity.name);
        ids(&identity).for_each(|id| drop(self.identity_ids.remove(&(id, uid))));
        Some(identity)
    }

    /// Adds or replaces; principals that the workload lost are free again.
    pub fn put_workload(&mut self, workload: Arc<Workload>) {
        let before = self.secrets.clone();
        self.remove_workload(workload.uid);
        for WorkloadSecret { digest, .. } in &workload.secrets {
            let new = || Arc::new(Place { workload: workload.uid, used: AtomicI64::new(NEVER) });
            self.secrets.insert(*digest, before.get(digest).cloned().unwrap_or_else(new));
        }
        for principal in &workload.principals {
            self.principals.insert(principal.clone(), workload.uid);
        }
        self.workload_names.insert(workload.name.clone(), workload.uid);
        self.workloads.insert(workload.uid, workload);
    }

    /// Removes, if it is there.
    pub fn remove_workload(&mut self, uid: Uid) -> Option<Arc<Workload>> {
        let workload = self.workloads.remove(&uid)?;
        self.workload_names.remove(&workload.name);
        for principal in &workload.principals {
            self.principals.remove(principal);
        }
        workload.secrets.iter().for_each(|secret| drop(self.secrets.remove(&secret.digest)));
        Some(workload)
    }

    /// Adds or replaces.
    pub fn put_authority(&mut self, authority: Arc<Authority>) {
        self.authority_names.insert(authority.name.clone(), authority.uid);
        self.authorities.insert(authority.uid, authority);
    }

    /// Removes, if it is there.
    pub fn remove_authority(&mut self, uid: Uid) -> Option<Arc<Authority>> {
        let authority = self.authorities.remove(&uid)?;
        self.authority_names.remove(&authority.name);
        Some(authority)
    }
}

fn ids(identity: &Identity) -> impl Iterator<Item = AuthoritysId> + use<> {
    let registration = identity.registration.as_ref();
    let object = registration.and_then(|r| r.service_principal_id.clone()).map(AuthoritysId::Object);
    identity.client_id.clone().map(AuthoritysId::Client).into_iter().chain(object)
}

fn from<'a, K: Ord + Clone>(
    names: &'a imbl::OrdMap<K, Uid>,
    after: Option<&K>,
) -> impl Iterator<Item = &'a Uid> + use<'a, K> {
    let start = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
    names.range((start, Bound::Unbounded)).map(|(_, uid)| uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdentityKind, IdentityState, Registration, Wall};

    fn workload(n: u8, name: &str, principals: &[&str]) -> Arc<Workload> {
        Arc::new(Workload {
            uid: Uid::new(Wall::from_secs(1), [n; 10]),
            name: name.parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            principals: principals.iter().map(|p| p.parse().unwrap()).collect(),
            system_identity: None,
            secrets: vec![],
            created_at: Wall::default(),
            updated_at: Wall::default(),
            version: 1,
        })
    }

    fn identity(n: u8, client: Option<&str>, object: Option<&str>) -> Arc<Identity> {
        let registration =
            Registration { service_principal_id: object.map(Into::into), ..Registration::default() };
        Arc::new(Identity {
            uid: Uid::new(Wall::from_secs(1), [n; 10]),
            name: format!("identities/i{n}").parse().unwrap(),
            display_name: String::new(),
            labels: Default::default(),
            kind: IdentityKind::Created,
            workload: None,
            authority: Uid::new(Wall::from_secs(1), [n; 10]),
            state: IdentityState::Active,
            client_id: client.map(Into::into),
            registration: Some(registration),
            credentials: vec![],
            operation: None,
            created_at: Wall::default(),
            updated_at: Wall::default(),
            version: 1,
        })
    }

    #[test]
    fn an_identity_is_found_by_the_ids_that_it_has_now_and_by_no_other() {
        let mut directory = Directory::default();
        directory.put_identity(identity(1, None, None));
        directory.put_identity(identity(1, Some("a"), Some("o")));
        directory.put_identity(identity(2, Some("a"), None));
        let found = |directory: &Directory, id: &str| {
            directory.identities_of_client(id).map(|i| i.name.id().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(&directory, "a"), ["i1", "i2"], "two authorities may call a client the same");
        assert_eq!(directory.identities_of_object("o").count(), 1);
        assert_eq!((found(&directory, "o").len(), directory.identities_of_object("a").count()), (0, 0));
        directory.put_identity(identity(1, Some("b"), None));
        assert_eq!(
            (found(&directory, "a").join(" "), found(&directory, "b").join(" ")),
            ("i2".into(), "i1".into())
        );
        assert_eq!(directory.identities_of_object("o").count(), 0);
        directory.remove_identity(identity(2, None, None).uid);
        assert!(found(&directory, "a").is_empty());
    }

    #[test]
    fn a_principal_that_a_workload_lost_belongs_to_nobody() {
        let mut directory = Directory::default();
        directory.put_workload(workload(1, "workloads/a", &["loopback://dev", "unix://n/uid/1"]));
        directory.put_workload(workload(1, "workloads/a", &["loopback://dev"]));
        assert!(directory.workload_of(&"unix://n/uid/1".parse().unwrap()).is_none());
        assert!(directory.workload_of(&"loopback://dev".parse().unwrap()).is_some());
    }

    #[test]
    fn listing_goes_on_after_the_last_name_seen() {
        let mut directory = Directory::default();
        for (n, name) in [(1, "workloads/c"), (2, "workloads/a"), (3, "workloads/b")] {
            directory.put_workload(workload(n, name, &[]));
        }
        let after = "workloads/a".parse().unwrap();
        let names: Vec<_> = directory.workloads_after(Some(&after)).map(|w| w.name.id().to_owned()).collect();
        assert_eq!(names, ["b", "c"]);
    }
}
