//! Places for connections: so many in all, so many for a principal, and so many for an address whose principal is not known yet.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use jeton_core::Principal;

use super::{DoorSettings, Peer, accept::Counters};

/// On whose account a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Account {
    Principal(Principal),
    Address(IpAddr),
    /// A neighbour on this machine who has not said who it is. Nobody is kept out for that.
    Local,
}

impl Account {
    fn of(peer: &Peer, principal: Option<&Principal>) -> Self {
        match (principal, peer) {
            (Some(principal), _) => Self::Principal(principal.clone()),
            (None, Peer::Tcp { remote }) if !remote.ip().to_canonical().is_loopback() => {
                Self::Address(remote.ip().to_canonical())
            }
            (None, _) => Self::Local,
        }
    }

    fn most(&self, settings: &DoorSettings) -> usize {
        match self {
            Self::Principal(_) => settings.max_connections_per_principal,
            Self::Address(_) => settings.max_connections_per_address,
            Self::Local => usize::MAX,
        }
    }
}

/// The counts of a door.
#[derive(Debug)]
pub(crate) struct Places {
    held: Mutex<HashMap<Account, usize>>,
    settings: Arc<DoorSettings>,
    counters: Arc<Counters>,
}

/// A connection's place, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    account: Account,
    places: Arc<Places>,
}

impl Places {
    pub(crate) fn new(settings: Arc<DoorSettings>, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { held: Mutex::default(), settings, counters })
    }

    /// None: whoever it is has all of its places in use.
    pub(crate) fn take(self: &Arc<Self>, peer: &Peer, principal: Option<&Principal>) -> Option<Place> {
        let account = Account::of(peer, principal);
        self.add(&account).then(|| {
            self.counters.open.fetch_add(1, Relaxed);
            Place { account, places: Arc::clone(self) }
        })
    }

    fn add(&self, account: &Account) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(account).copied().unwrap_or(0);
        let free = count < account.most(&self.settings);
        if free {
            held.insert(account.clone(), count + 1);
        }
        free
    }

    fn remove(&self, account: &Account) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(account) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(account)),
        }
    }
}

impl Place {
    /// The connection is known to be this principal's now. False: that one has all of its places in use.
    pub(crate) fn becomes(&mut self, principal: &Principal) -> bool {
        let account = Account::Principal(principal.clone());
        let free = account == self.account || self.places.add(&account);
        if free && account != self.account {
            self.places.remove(&std::mem::replace(&mut self.account, account));
        }
        free
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.counters.open.fetch_sub(1, Relaxed);
        self.places.remove(&self.account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Arc<Places> {
        let settings = DoorSettings {
            max_connections_per_principal: 2,
            max_connections_per_address: 3,
            ..DoorSettings::default()
        };
        Places::new(Arc::new(settings), Arc::default())
    }

    fn from(text: &str) -> Peer {
        Peer::Tcp { remote: text.parse().unwrap() }
    }

    #[test]
    fn an_address_has_its_cap_until_the_principal_is_known_and_loopback_has_none() {
        let (places, far) = (places(), from("192.0.2.1:1"));
        let mut held: Vec<_> = (0..3).map(|_| places.take(&far, None).unwrap()).collect();
        assert!(places.take(&far, None).is_none());
        assert!(places.take(&from("[::ffff:192.0.2.1]:9"), None).is_none(), "the same address");
        assert!(places.take(&from("192.0.2.2:1"), None).is_some());
        assert!(held[0].becomes(&"spiffe://prod.example/a".parse().unwrap()));
        assert!(places.take(&far, None).is_some(), "what is known does not count for its address");
        let near: Vec<_> = (0..10).map(|_| places.take(&from("127.0.0.1:1"), None).unwrap()).collect();
        assert_eq!(places.counters.open.load(Relaxed), 3 + 10);
        drop((held, near));
        assert_eq!(places.counters.open.load(Relaxed), 0);
        assert!(places.held.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_principal_has_its_cap_wherever_it_comes_from() {
        let (places, who) = (places(), "spiffe://prod.example/a".parse().unwrap());
        let mut held: Vec<_> =
            (1..=3).map(|n| places.take(&from(&format!("192.0.2.{n}:1")), None).unwrap()).collect();
        assert!(held[0].becomes(&who) && held[1].becomes(&who));
        assert!(!held[2].becomes(&who));
        assert!(held[0].becomes(&who), "it is counted already");
        drop(held.remove(0));
        assert!(held[1].becomes(&who));
    }
}
