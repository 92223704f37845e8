//! What a user would otherwise look tokens up in, with the same keys.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use benches::World;
use jeton_core::{Now, TokenKey};

type Value = Arc<u64>;

/// Jeton, or one of the others.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    /// Of the key with this number.
    pub(crate) look_up: Box<dyn Fn(usize, Now) -> usize + Sync + 'a>,
    /// Puts another value there.
    pub(crate) swap: Box<dyn Fn(usize) + Sync + 'a>,
}

/// Jeton first, then papaya, then the others.
pub(crate) fn contenders(world: &World) -> Vec<Contender<'_>> {
    vec![jeton(world), papaya(world), locked(world), dashmap(world), moka(world)]
}

/// A swap is what a refresh does.
fn jeton(world: &World) -> Contender<'_> {
    let refresh = |n: usize| {
        let report = world.engine.report_rejected(&world.keys[n], world.principal.clone(), |_| true);
        report.expect("the budget bounds nothing");
    };
    Contender {
        name: "jeton: decide and look up",
        look_up: Box::new(|n, now| world.hit(n, now)),
        swap: Box::new(refresh),
    }
}

fn papaya(world: &World) -> Contender<'_> {
    let map: Arc<papaya::HashMap<TokenKey, Value>> = Arc::new(entries(world).collect());
    let written = Arc::clone(&map);
    Contender {
        name: "papaya alone",
        look_up: Box::new(move |n, _| map.pin().get(&world.keys[n]).map_or(0, |v| **v as usize)),
        swap: Box::new(move |n| {
            written.pin().insert(world.keys[n].clone(), value());
        }),
    }
}

fn locked(world: &World) -> Contender<'_> {
    let map: Arc<RwLock<HashMap<TokenKey, Value>>> = Arc::new(RwLock::new(entries(world).collect()));
    let written = Arc::clone(&map);
    Contender {
        name: "RwLock<HashMap>",
        look_up: Box::new(move |n, _| {
            map.read().expect("no panic").get(&world.keys[n]).map_or(0, |v| **v as usize)
        }),
        swap: Box::new(move |n| {
            written.write().expect("no panic").insert(world.keys[n].clone(), value());
        }),
    }
}

fn dashmap(world: &World) -> Contender<'_> {
    let map: Arc<dashmap::DashMap<TokenKey, Value>> = Arc::new(entries(world).collect());
    let written = Arc::clone(&map);
    Contender {
        name: "DashMap",
        look_up: Box::new(move |n, _| map.get(&world.keys[n]).map_or(0, |v| **v as usize)),
        swap: Box::new(move |n| {
            written.insert(world.keys[n].clone(), value());
        }),
    }
}

fn moka(world: &World) -> Contender<'_> {
    let cache = moka::sync::Cache::new(2 * world.keys.len() as u64);
    entries(world).for_each(|(key, value)| cache.insert(key, value));
    let written = cache.clone();
    Contender {
        name: "moka",
        look_up: Box::new(move |n, _| cache.get(&world.keys[n]).map_or(0, |v| *v as usize)),
        swap: Box::new(move |n| written.insert(world.keys[n].clone(), value())),
    }
}

fn entries(world: &World) -> impl Iterator<Item = (TokenKey, Value)> {
    world.keys.iter().map(|key| (key.clone(), value()))
}

fn value() -> Value {
    Arc::new(1)
}
