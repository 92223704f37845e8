//! What needs an operator while the broker goes on with what it has: said once in the log, and shown in `jeton status` until it is over.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// All alarms, by their subject. Whoever raises one clears it; subjects come from the configuration, so there are few.
#[derive(Debug, Clone, Default)]
pub struct Alarms(Arc<Mutex<BTreeMap<String, Alarm>>>);

impl Alarms {
    /// Raises an alarm, or changes what it says.
    pub fn raise(&self, subject: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let alarm = Alarm { message: message.into(), remedy: remedy.into() };
        if self.lock().get(subject) != Some(&alarm) {
            tracing::error!(subject, remedy = alarm.remedy, "{}", alarm.message);
            self.lock().insert(subject.to_owned(), alarm);
        }
    }

    /// It is over.
    pub fn clear(&self, subject: &str) {
        if self.lock().remove(subject).is_some() {
            tracing::info!(subject, "in order again");
        }
    }

    /// Those that are raised now.
    pub fn raised(&self) -> Vec<(String, Alarm)> {
        self.lock().iter().map(|(subject, alarm)| (subject.clone(), alarm.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Alarm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
