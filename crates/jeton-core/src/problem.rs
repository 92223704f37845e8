//! One thing that is wrong with a configuration. A section collects all of its problems, so that they can be mended in one go.

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, relative to its section (`max_entries`).
    pub key: String,
    /// What is wrong with its value, and what values are right.
    pub message: String,
}

impl Problem {
    /// A problem with one key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// The same problem, seen from the section that contains this one.
    pub fn within(self, section: &str) -> Self {
        Self { key: format!("{section}.{}", self.key), message: self.message }
    }
}
