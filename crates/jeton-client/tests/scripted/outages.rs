//! Brokers that die, come back, move and hang.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use jeton_client::{Client, Error, Fault};
use tokio::task::JoinSet;

use crate::broker::{BILLING, Broker, HOUR, Instead, SCOPE, until};

/// Callers that ask every fifty milliseconds, and fail the test when one of them gets no token.
struct Callers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Callers {
    fn start(client: &Client) -> Self {
        let (mut tasks, stop, calls) =
            (JoinSet::new(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        for _ in 0..50 {
            let (client, stop, calls) = (client.clone(), Arc::clone(&stop), Arc::clone(&calls));
            tasks.spawn(async move {
                while !stop.load(SeqCst) {
                    client.token(BILLING, SCOPE).await.unwrap();
                    calls.fetch_add(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        Self { tasks, stop, calls }
    }

    async fn end(mut self) -> u64 {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.calls.load(SeqCst)
    }
}

/// Every caller has it within the second that is promised.
async fn seen(broker: &Broker, client: &Client) {
    let secret = broker.refresh(BILLING);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret);
}

#[tokio::test(start_paused = true)]
async fn no_call_fails_while_the_broker_is_killed_and_what_it_refreshed_is_seen_once_it_is_back() {
    let broker = Broker::start();
    let client = broker.client();
    let callers = Callers::start(&client);
    until("it is watched", || broker.watched() == [BILLING]).await;
    for away in [10, 1_000, 100_000].map(Duration::from_millis) {
        broker.kill();
        tokio::time::sleep(away).await;
        let secret = broker.refresh(BILLING);
        broker.restart();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(client.token(BILLING, SCOPE).await.unwrap().secret(), secret, "away for {away:?}");
        assert_eq!(broker.watched(), [BILLING]);
        seen(&broker, &client).await;
    }
    assert!(callers.end().await > 1_000);
    assert_eq!(broker.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_moves_or_ends_the_stream_is_followed_with_all_keys() {
    let broker = Broker::start();
    let client = broker.client();
    let names: Vec<_> = (0..300).map(|n| format!("identities/n{n:03}")).collect();
    for name in &names {
        client.token(name, SCOPE).await.unwrap();
    }
    let callers = Callers::start(&client);
    let mut all = names.clone();
    all.insert(0, BILLING.to_owned());
    until("all are watched", || broker.watched() == all).await;
    for n in 0..5 {
        if n % 2 == 0 {
            broker.drain()
        } else {
            broker.end_streams()
        }
        until("all are watched again", || broker.watched() == all).await;
        seen(&broker, &client).await;
    }
    callers.end().await;
    assert_eq!((broker.opened(), broker.asked()), (6, 301));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_needs_the_broker_waits_for_its_return_within_its_time() {
    let broker = Broker::start();
    let client = broker.builder().timeout(Duration::from_secs(10)).build().unwrap();
    broker.kill();
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.token(BILLING, SCOPE).await }
    });
    tokio::time::sleep(Duration::from_secs(8)).await;
    broker.restart();
    calling.await.unwrap().unwrap();
    assert_eq!(broker.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_broker_and_no_valid_token_says_so_in_time_and_the_next_one_works() {
    let broker = Broker::start();
    let client = broker.builder().timeout(Duration::from_secs(10)).build().unwrap();
    client.token(BILLING, SCOPE).await.unwrap();
    let start = broker.now();
    broker.kill();
    // Up to its floor the token is handed out, and not after it.
    tokio::time::sleep(HOUR - Duration::from_secs(31)).await;
    client.token(BILLING, SCOPE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = broker.now();
    let error = client.token(BILLING, SCOPE).await.unwrap_err();
    assert!(broker.now() - before <= Duration::from_secs(10), "since {start:?}");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient() && error.fault() == Fault::Connection, "{error}");
    broker.restart();
    broker.refresh(BILLING);
    client.token(BILLING, SCOPE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_costs_the_time_allowed_and_no_more() {
    let broker = Broker::start();
    let client = broker.builder().timeout(Duration::from_secs(3)).build().unwrap();
    broker.instead_of_tokens(Some(Instead::Hang));
    let before = broker.now();
    let error = client.token(BILLING, SCOPE).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && error.is_transient(), "{error}");
    assert_eq!((broker.now() - before).as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_takes_nobody_along_and_one_that_joins_late_has_its_own_time() {
    let broker = Broker::start();
    let client = broker.builder().timeout(Duration::from_secs(10)).build().unwrap();
    broker.instead_of_tokens(Some(Instead::Hang));
    let call = |client: Client| tokio::spawn(async move { client.token(BILLING, SCOPE).await });
    let (first, second) = (call(client.clone()), call(client.clone()));
    until("they ask", || broker.asked() == 1).await;
    first.abort();
    tokio::time::sleep(Duration::from_secs(9)).await;
    let late = call(client.clone());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(second.await.unwrap(), Err(Error::TimedOut { .. })));
    broker.instead_of_tokens(None);
    late.await.unwrap().unwrap();
    assert!(broker.asked() <= 3);
}

/// Whatever holds the task up or ends it: with its runtime it ends for certain.
#[test]
fn a_client_whose_task_is_gone_serves_what_it_has_and_hangs_nobody() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    let (client, broker) = first.block_on(async {
        let broker = Broker::start();
        let client = broker.client();
        client.token(BILLING, SCOPE).await.unwrap();
        (client, broker)
    });
    drop(first);
    let second = runtime();
    second.block_on(async {
        assert_eq!(broker.asked(), 1);
        let error = client.token("identities/other", SCOPE).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    });
}
