//! An immutable value that is replaced whole and read without a lock.

use std::{fmt, sync::Arc};

use arc_swap::{ArcSwap, Guard};

/// A shared, replaceable snapshot. One owner publishes; everybody else reads.
pub struct Published<T>(Arc<ArcSwap<T>>);

impl<T> Published<T> {
    /// With a first value.
    pub fn new(first: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// The present value, for a short look. Do not hold the guard over an await.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// The present value, to keep.
    pub fn snapshot(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Replaces the value; whoever reads from now on sees the new one.
    pub fn publish(&self, next: T) {
        self.0.store(Arc::new(next));
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
