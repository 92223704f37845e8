//! Every few seconds: how much there was to do, and what is wrong that was not, or is over.

use std::{collections::BTreeMap, sync::Arc};

use jeton_authority::AuthorityClient;
use jeton_proto::v1;
use jeton_server::{Event, EventKind, History, Severity, Totals, grpc::Broker};
use tokio::time::MissedTickBehavior;

/// What the broker does not know of itself.
pub(crate) struct Around {
    pub(crate) authorities: AuthorityClient,
    /// Open connections of all doors.
    pub(crate) connections: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Looks until it is dropped.
pub(crate) async fn run(broker: Broker, around: Around) {
    let mut tick = tokio::time::interval(History::INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Troubles::default();
    loop {
        tick.tick().await;
        let now = broker.clock.now();
        broker.history.push(now, totals(&broker, &around));
        for (kind, severity, message) in known.changed(broker.troubles()) {
            broker.events.record(Event::new(now.wall, kind, severity, message));
        }
    }
}

fn totals(broker: &Broker, around: &Around) -> Totals {
    let counts = broker.engine.counts();
    let ended = || counts.authorities.iter().flat_map(|(_, of)| &of.ended);
    // What was not sent, because of a Retry-After or the budget, did not fail.
    let sent = |how: &str| !matches!(how, "issued" | "held" | "over_budget");
    let denied = broker.access.denial_counts();
    let calls = around.authorities.calls();
    Totals {
        fresh: counts.fresh,
        stale: counts.stale,
        missed: counts.missed,
        denied: denied.iter().filter(|(plane, ..)| *plane == "data").map(|(.., count)| count).sum(),
        refreshed: ended().filter(|(_, how, _)| *how == "issued").map(|(.., count)| count).sum(),
        failed: ended().filter(|(_, how, _)| sent(how)).map(|(.., count)| count).sum(),
        calls: calls.iter().flat_map(|call| &call.took.counts).sum(),
        waiting: counts.waiting,
        connections: (around.connections)(),
    }
}

/// What was wrong when it was looked last, by subject.
#[derive(Default)]
struct Troubles(BTreeMap<String, String>);

impl Troubles {
    /// What is new, and what is over.
    fn changed(&mut self, now: Vec<v1::Problem>) -> Vec<(EventKind, Severity, String)> {
        let now: BTreeMap<_, _> =
            now.into_iter().map(|it| (it.subject, format!("{}; {}", it.message, it.remedy))).collect();
        let over = self.0.keys().filter(|subject| !now.contains_key(*subject));
        let over = over.map(|it| (EventKind::AlarmCleared, Severity::Info, format!("{it}: in order again")));
        // Words that change while it goes on (how much, how long) are no news.
        let new = now.iter().filter(|(subject, _)| !self.0.contains_key(*subject));
        let new = new.map(|(it, text)| (EventKind::AlarmRaised, Severity::Error, format!("{it}: {text}")));
        let changed = over.chain(new).collect();
        self.0 = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_is_told_once_and_once_more_when_it_is_over() {
        let trouble = |subject: &str, message: &str| v1::Problem {
            subject: subject.into(),
            message: message.into(),
            remedy: "mend it".into(),
            starves_in: None,
        };
        let mut known = Troubles::default();
        let told = known.changed(vec![trouble("registry", "disk full")]);
        let text = "registry: disk full; mend it".to_owned();
        assert_eq!(told, [(EventKind::AlarmRaised, Severity::Error, text)]);
        assert_eq!(known.changed(vec![trouble("registry", "still full")]), []);
        let told = known.changed(vec![trouble("audit log", "gone")]);
        let kinds: Vec<_> = told.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [EventKind::AlarmCleared, EventKind::AlarmRaised]);
    }
}
