//! The configuration while the broker runs: read again at SIGHUP, and when its file changes. What can be changed is changed; what cannot
//! is named, and counts after a restart. A configuration that is not valid changes nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jeton_server::Alarms;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};

use crate::{
    config::{Faults, Settings, Sources},
    log::Filter,
    supervisor::{self, State},
};

/// How often the file is looked at, as often as those of certificates.
const INTERVAL: Duration = Duration::from_secs(2);
/// The subject of the alarm.
const SUBJECT: &str = "the configuration";
/// The one setting that counts at once. The files that others name are followed by whoever uses them.
const LOG_FILTER: &str = "log.filter";

/// Reads and checks the sources.
pub(crate) type Load = fn(&Sources) -> Result<Settings, Faults>;

/// From now on SIGHUP ends nobody.
pub(crate) fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// What is needed to read the configuration again.
pub(crate) struct Reload {
    pub(crate) sources: Sources,
    pub(crate) load: Load,
    pub(crate) filter: Filter,
    pub(crate) alarms: Alarms,
    /// As they count now.
    pub(crate) settings: Settings,
}

/// What a reading came to.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// The keys whose new values count.
    applied: Vec<String>,
    /// The keys whose new values wait for a restart.
    waiting: Vec<String>,
}

impl Reload {
    /// Goes on for as long as it is kept.
    pub(crate) async fn follow(mut self, mut hangups: Signal) {
        let mut file = File::new(self.sources.config.clone());
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                _ = ticks.tick() => false,
                _ = hangups.recv() => true,
            };
            // Files may lie on a disk that does not answer.
            let looked = tokio::task::spawn_blocking(move || {
                if file.is_due(told) {
                    self.read();
                }
                (self, file)
            });
            let Ok(kept) = looked.await else { return };
            (self, file) = kept;
        }
    }

    fn read(&mut self) {
        supervisor::tell(&State::Reloading);
        let status = match (self.load)(&self.sources) {
            Err(faults) => {
                let remedy = "mend it: `jeton check-config` says whether it is valid. The configuration from before counts";
                self.alarms.raise(SUBJECT, faults.to_string(), remedy);
                "Serving; the configuration was changed and is not valid".to_owned()
            }
            Ok(next) => {
                self.alarms.clear(SUBJECT);
                self.take(next).said()
            }
        };
        supervisor::tell(&State::Ready(&status));
    }

    fn take(&mut self, next: Settings) -> Read {
        let changed = self.settings.changed(&next);
        let (applied, waiting): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| key == LOG_FILTER);
        if !applied.is_empty() {
            self.filter.replace(&next.log);
            self.settings.log.filter = next.log.filter;
        }
        Read { applied, waiting }
    }
}

impl Read {
    /// Says it in the log, and in short for the supervisor.
    fn said(&self) -> String {
        let (applied, waiting) = (self.applied.join(", "), self.waiting.join(", "));
        if waiting.is_empty() {
            tracing::info!(applied, "the configuration was read again");
            return "Serving".into();
        }
        tracing::warn!(
            applied,
            waiting,
            "the configuration was read again; some of what changed counts after a restart"
        );
        format!("Serving; after a restart counts {waiting}")
    }
}

/// The configuration file.
#[derive(Debug)]
struct File {
    path: Option<PathBuf>,
    /// As it was read last.
    read: Option<Arc<[u8]>>,
    /// As it was when it was looked at last.
    seen: Option<Arc<[u8]>>,
}

impl File {
    fn new(path: Option<PathBuf>) -> Self {
        let mut file = Self { path, read: None, seen: None };
        file.seen = file.look();
        file.read = file.seen.clone();
        file
    }

    fn look(&self) -> Option<Arc<[u8]>> {
        std::fs::read(self.path.as_ref()?).ok().map(Arc::from)
    }

    /// Whether it is to be read: somebody says so, or there is something new, and the same as at the look before. While somebody writes, it
    /// is let be.
    fn is_due(&mut self, told: bool) -> bool {
        let now = self.look();
        let rests = now == self.seen;
        self.seen = now;
        let due = told || (rests && self.seen != self.read);
        if due {
            self.read = self.seen.clone();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_let_be_until_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jeton.toml");
        std::fs::write(&path, "a").unwrap();
        let mut file = File::new(Some(path.clone()));
        assert!(!file.is_due(false));
        std::fs::write(&path, "ab").unwrap();
        assert!(!file.is_due(false));
        std::fs::write(&path, "abc").unwrap();
        assert!(!file.is_due(false));
        assert!(file.is_due(false), "it rests");
        assert!(!file.is_due(false), "and is read once");
        std::fs::remove_file(&path).unwrap();
        assert!(!file.is_due(false) && file.is_due(false), "one that is gone is to be heard of");
        std::fs::write(&path, "abcd").unwrap();
        assert!(file.is_due(true), "whoever says so does not wait");
        assert!(!file.is_due(false), "and is not told twice");
        assert!(!File::new(None).is_due(false));
    }

    #[test]
    fn the_filter_counts_at_once_and_every_other_key_waits_until_it_is_as_before() {
        let settings = Settings::default();
        let (sources, filter, alarms) = (Sources::default(), Filter::default(), Alarms::default());
        let mut reload = Reload { sources, load: |_| unreachable!(), filter, alarms, settings };
        let mut next = Settings::default();
        next.log.filter = "debug".into();
        next.door.max_age_ms += 1;
        next.data.tls.cert_file = "a.pem".into();
        let read = reload.take(next);
        assert_eq!(read.applied, ["log.filter"]);
        assert_eq!(read.waiting, ["data.tls.cert_file", "door.max_age_ms"]);
        let read = reload.take(Settings::default());
        assert_eq!((read.applied.len(), read.waiting.len()), (1, 0));
    }
}
