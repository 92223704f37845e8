//! How identities' tokens fare, and what an order to refresh does.

use jeton_engine::{
    IssueErrorClass, Refreshing,
    testing::{Script, key},
};

use crate::world::{MS, S, World};

#[tokio::test(start_paused = true)]
async fn an_order_to_refresh_is_one_request_for_a_key_and_the_token_is_served_until_another_comes() {
    let world = World::new().await;
    let it = key(1, "a");
    let old = world.token(&it).await.unwrap();
    world.source.script_all(Script { latency: S(5), ..Script::default() });
    for _ in 0..10 {
        assert_eq!(world.engine.refresh_identity(it.identity), Refreshing { under_way: 1, left: 0 });
    }
    world.clock.advance(S(1)).await;
    assert_eq!(world.engine.cached(&it).unwrap().token.issued_at, old.token.issued_at);
    world.clock.advance(S(5)).await;
    assert!(world.engine.cached(&it).unwrap().token.issued_at > old.token.issued_at);
    assert_eq!(world.source.requests(&it).len(), 2);
    assert_eq!(world.engine.refresh_identity(key(2, "a").identity), Refreshing::default());
}

#[tokio::test(start_paused = true)]
async fn an_order_to_refresh_goes_before_our_own_pause_and_never_before_the_authoritys() {
    let world = World::new().await;
    let it = key(1, "a");
    world.token(&it).await.unwrap();
    world.fail(IssueErrorClass::Permanent, None);
    world.engine.refresh_identity(it.identity);
    world.clock.advance(S(1)).await;
    let standing = world.engine.standing(it.identity).unwrap();
    let (left, error) = standing.failing.expect("it fails before its token is stale");
    assert!(left > S(60) && &*error.message == "scripted", "{left:?} {error:?}");
    let due = world.engine.cached(&it).unwrap().token.refresh_at;
    assert_eq!(
        standing.next_refresh,
        Some(due),
        "what is fresh is not tried again by itself before it is due"
    );
    world.fail(IssueErrorClass::Throttled, Some(S(30)));
    assert_eq!(world.engine.refresh_identity(it.identity).under_way, 1, "somebody may have mended it");
    world.clock.advance(S(1)).await;
    assert_eq!(world.engine.refresh_identity(it.identity), Refreshing { under_way: 0, left: 1 });
    assert_eq!(world.source.requests(&it).len(), 3);
    world.source.script_all(Script::default());
    world.clock.advance(S(31)).await;
    world.engine.refresh_identity(it.identity);
    world.clock.advance(S(1)).await;
    assert!(world.engine.standing(it.identity).unwrap().failing.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_order_to_refresh_very_many_tokens_begins_a_hundred() {
    let world = World::spacious(1).await;
    let keys: Vec<_> = (0..150).map(|n| key(1, &format!("scope-{n}"))).collect();
    world.load(&keys).await;
    let asked = world.source.all_requests().len();
    assert_eq!(world.engine.refresh_identity(keys[0].identity), Refreshing { under_way: 100, left: 50 });
    world.clock.advance(MS(500)).await;
    assert_eq!(world.source.all_requests().len(), asked + 100);
    let all = world.engine.standings();
    assert_eq!((all.len(), all[&keys[0].identity].tokens), (1, 150));
}
