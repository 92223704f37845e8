//! An immutable value that is replaced whole and read without a lock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};

/// A shared, replaceable snapshot. One owner publishes; everybody else reads.
pub struct Published<T>(Arc<Shared<T>>);

struct Shared<T> {
    value: ArcSwap<T>,
    revision: AtomicU64,
}

impl<T> Published<T> {
    /// With a first value.
    pub fn new(first: T) -> Self {
        Self(Arc::new(Shared { value: ArcSwap::from_pointee(first), revision: AtomicU64::new(0) }))
    }

    /// The present value, for a short look. Do not hold the guard over an await.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.0.value.load()
    }

    /// The present value, to keep.
    pub fn snapshot(&self) -> Arc<T> {
        self.0.value.load_full()
    }

    /// Replaces the value; whoever reads from now on sees the new one.
    pub fn publish(&self, next: T) {
        self.0.value.store(Arc::new(next));
        self.0.revision.fetch_add(1, Ordering::Release);
    }

    /// Counts the values. What follows from a value that was loaded after reading a revision holds as long as the revision is still
    /// the same.
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Published<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}
