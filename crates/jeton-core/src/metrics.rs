//! Counting where things happen: plain atomics, which whoever reports reads when it is asked. Nothing here knows how.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// From a hit to a call that waits for an authority: 10 us to 1 s are resolved, what is longer is told apart.
pub const CALL_MICROS: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// For what lasts minutes: late refreshes.
pub const LONG_MICROS: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
];

/// Goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// So many more.
    pub fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long something took, in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// What a histogram held when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    /// The upper bounds of the buckets, inclusive, in microseconds.
    pub bounds: &'static [u64],
    /// What fell into each, and above the last.
    pub counts: Vec<u64>,
    /// The sum.
    pub nanos: u64,
}

impl Histogram {
    /// With the upper bounds of its buckets, in microseconds, rising.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, nanos: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn record(&self, took: Duration) {
        self.record_many(took, 1);
    }

    /// So many things took so long each.
    pub fn record_many(&self, took: Duration, count: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos.div_ceil(1_000);
        let bucket = self.bounds.iter().position(|bound| micros <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(count, Relaxed);
        self.nanos.fetch_add(nanos.saturating_mul(count), Relaxed);
    }

    /// What it holds now.
    pub fn read(&self) -> Buckets {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        Buckets { bounds: self.bounds, counts, nanos: self.nanos.load(Relaxed) }
    }
}

/// One value for each of a bounded set of keys, made when the key is first met. What is beyond the bound shares one.
#[derive(Debug)]
pub struct PerKey<K, V> {
    most: usize,
    make: fn() -> V,
    known: Mutex<HashMap<K, Arc<V>>>,
    others: Arc<V>,
}

impl<K: Clone + Eq + Hash, V> PerKey<K, V> {
    /// With at most so many keys.
    pub fn new(most: usize, make: fn() -> V) -> Self {
        Self { most, make, known: Mutex::default(), others: Arc::new(make()) }
    }

    /// The key's value.
    pub fn of(&self, key: &K) -> Arc<V> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(key) {
            return Arc::clone(value);
        }
        if known.len() >= self.most {
            return Arc::clone(&self.others);
        }
        let value = Arc::new((self.make)());
        known.insert(key.clone(), Arc::clone(&value));
        value
    }

    /// All of them; none is the key of those that share one.
    pub fn all(&self) -> Vec<(Option<K>, Arc<V>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = known.iter().map(|(key, value)| (Some(key.clone()), Arc::clone(value)));
        keys.chain([(None, Arc::clone(&self.others))]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_bucket_and_what_is_over_it_in_the_next() {
        let histogram = Histogram::new(&[10, 100]);
        for (nanos, bucket) in [(0, 0), (10_000, 0), (10_001, 1), (100_000, 1), (100_001, 2), (u64::MAX, 2)] {
            let before = histogram.read().counts[bucket];
            histogram.record(Duration::from_nanos(nanos));
            assert_eq!(histogram.read().counts[bucket], before + 1, "{nanos}");
        }
    }

    #[test]
    fn many_of_one_length_are_as_each_for_itself() {
        let (one, many) = (Histogram::new(CALL_MICROS), Histogram::new(CALL_MICROS));
        (0..7).for_each(|_| one.record(Duration::from_micros(33)));
        many.record_many(Duration::from_micros(33), 7);
        assert_eq!(one.read(), many.read());
        assert_eq!(one.read().nanos, 7 * 33_000);
    }

    #[test]
    fn the_bounds_rise_and_resolve_ten_microseconds_to_a_second() {
        for bounds in [CALL_MICROS, LONG_MICROS] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
        let within = CALL_MICROS.iter().filter(|bound| (10..=1_000_000).contains(*bound)).count();
        assert!(within >= 16 && CALL_MICROS[0] == 10, "{within}");
    }

    #[test]
    fn keys_beyond_the_bound_share_one_value_and_nothing_is_lost() {
        let counts = PerKey::<u32, Counter>::new(2, Counter::default);
        (0..10).for_each(|key| counts.of(&key).add());
        let all = counts.all();
        assert_eq!(all.len(), 3);
        assert_eq!(all.iter().map(|(_, count)| count.get()).sum::<u64>(), 10);
        assert_eq!(all.iter().find(|(key, _)| key.is_none()).unwrap().1.get(), 8);
    }
}
