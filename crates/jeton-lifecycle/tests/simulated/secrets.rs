//! Workload secrets: what is shown once proves its workload until it ends, and nothing else proves anything.

use std::sync::Arc;

use jeton_core::{Principal, Workload};
use jeton_lifecycle::{
    CreateWorkload, DEFAULT_OVERLAP, IdentityStore, LifecycleError, NewSecret, WorkloadPatch,
};
use secrecy::ExposeSecret;

use crate::world::{S, World};

async fn workload(world: &World, name: &str) -> Arc<Workload> {
    let (principals, display_name) = (vec![], String::new());
    let name = name.parse().unwrap();
    let create = CreateWorkload {
        name,
        principals,
        display_name,
        labels: Default::default(),
        request_id: String::new(),
    };
    world.lifecycle.create_workload(create).await.unwrap()
}

async fn rotate(world: &World, of: &Workload) -> NewSecret {
    world.lifecycle.rotate_secret(&of.name, DEFAULT_OVERLAP, "").await.unwrap()
}

fn shown(world: &World, secret: &NewSecret) -> Option<Principal> {
    world.lifecycle.principal_of_secret(secret.secret.expose_secret())
}

#[tokio::test(start_paused = true)]
async fn a_secret_proves_its_own_workload_and_nothing_that_looks_like_it_proves_any() {
    let world = World::new().await;
    let (one, two) = (workload(&world, "workloads/one").await, workload(&world, "workloads/two").await);
    let (first, second) = (rotate(&world, &one).await, rotate(&world, &two).await);
    let text = first.secret.expose_secret();
    assert!(text.starts_with("jws_") && text.len() == 68 && text != second.secret.expose_secret());
    assert_eq!(shown(&world, &first), Some(Principal::of_secret(one.uid)));
    assert_eq!(shown(&world, &second), Some(Principal::of_secret(two.uid)));
    let directory = world.lifecycle.directory();
    assert_eq!(directory.workload_of(&Principal::of_secret(one.uid)).unwrap().name, one.name);
    let flipped = format!("{}{}", &text[..67], if text.ends_with('0') { '1' } else { '0' });
    for wrong in ["", "jws_", &text[4..], &text[..67], &text.to_uppercase(), &flipped] {
        assert_eq!(world.lifecycle.principal_of_secret(wrong), None, "{wrong}");
    }
    for padded in [format!("{text}0"), format!(" {text}"), format!("{text}\n"), format!("jws_{text}")] {
        assert_eq!(world.lifecycle.principal_of_secret(&padded), None, "{padded}");
    }
    // What is kept is no secret, and not what proves anything.
    let kept = world.store.load().await.unwrap().workloads;
    let kept = format!("{}{kept:?}", serde_json::to_string(&kept).unwrap());
    assert!(!kept.contains(text) && !kept.contains(&text[4..]));
    let digest: String =
        one.secrets.iter().chain(&first.workload.secrets).map(|s| String::from(s.digest)).collect();
    assert_eq!(world.lifecycle.principal_of_secret(&format!("jws_{digest}")), None);
    assert!(!format!("{first:?}").contains(&text[4..]));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_counts_until_its_overlap_ends_and_a_revoked_one_no_longer() {
    let mut world = World::new().await;
    let it = workload(&world, "workloads/w").await;
    let first = rotate(&world, &it).await;
    let second = rotate(&world, &it).await;
    world.clock.suspend(DEFAULT_OVERLAP - S(1));
    // A longer overlap does not make one live longer that was to end.
    let third = world.lifecycle.rotate_secret(&it.name, DEFAULT_OVERLAP * 2, "").await.unwrap();
    assert!([&first, &second, &third].iter().all(|secret| shown(&world, secret).is_some()));
    world.clock.advance(S(1)).await;
    assert!(shown(&world, &first).is_none() && shown(&world, &second).is_some());
    world = world.restart().await;
    assert!(
        shown(&world, &first).is_none()
            && shown(&world, &second).is_some()
            && shown(&world, &third).is_some()
    );
    world.lifecycle.revoke_secret(&it.name, Some(third.uid), "").await.unwrap();
    assert!(shown(&world, &third).is_none() && shown(&world, &second).is_some());
    let unknown = world.lifecycle.revoke_secret(&it.name, Some(third.uid), "").await;
    assert!(matches!(unknown, Err(LifecycleError::NotFound(_))), "{unknown:?}");
    let fourth = world.lifecycle.rotate_secret(&it.name, S(0), "").await.unwrap();
    assert!(shown(&world, &second).is_none() && shown(&world, &fourth).is_some());
    assert_eq!(fourth.workload.secrets.len(), 1);
    world.lifecycle.revoke_secret(&it.name, None, "").await.unwrap();
    assert!(shown(&world, &fourth).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_secret_goes_with_its_workload_and_a_name_made_again_inherits_none() {
    let world = World::new().await;
    let it = workload(&world, "workloads/w").await;
    let secret = rotate(&world, &it).await;
    world.lifecycle.delete_workload(&it.name, "").await.unwrap();
    assert_eq!(shown(&world, &secret), None);
    let again = workload(&world, "workloads/w").await;
    assert_eq!(shown(&world, &secret), None);
    assert!(world.lifecycle.directory().workload_of(&Principal::of_secret(it.uid)).is_none());
    // Nobody else is given the principal of a secret.
    let patch =
        WorkloadPatch { principals: Some(vec![Principal::of_secret(again.uid)]), ..Default::default() };
    let refused = world.lifecycle.update_workload(&again.name, patch, "").await;
    assert!(matches!(refused, Err(LifecycleError::Invalid { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_shown_once_and_a_repeated_request_makes_no_other() {
    let world = World::new().await;
    let it = workload(&world, "workloads/w").await;
    let first = world.lifecycle.rotate_secret(&it.name, DEFAULT_OVERLAP, "r").await.unwrap();
    let again = world.lifecycle.rotate_secret(&it.name, DEFAULT_OVERLAP, "r").await;
    assert!(matches!(again, Err(LifecycleError::Precondition(_))), "{again:?}");
    assert!(shown(&world, &first).is_some());
    assert_eq!(world.lifecycle.directory().workload(it.uid).unwrap().secrets.len(), 1);
    for _ in 1..8 {
        rotate(&world, &it).await;
    }
    let full = world.lifecycle.rotate_secret(&it.name, DEFAULT_OVERLAP, "").await;
    assert!(matches!(full, Err(LifecycleError::Precondition(_))), "{full:?}");
    let long = world.lifecycle.rotate_secret(&it.name, DEFAULT_OVERLAP * 31, "").await;
    assert!(matches!(long, Err(LifecycleError::Invalid { .. })), "{long:?}");
}

#[tokio::test(start_paused = true)]
async fn a_use_is_noted_to_the_hour_and_kept_over_other_changes() {
    let world = World::new().await;
    let it = workload(&world, "workloads/w").await;
    let secret = rotate(&world, &it).await;
    let digest = secret.workload.secrets[0].digest;
    let used = || world.lifecycle.directory().secret_used(&digest);
    assert_eq!(used(), None);
    shown(&world, &secret);
    let first = used().unwrap();
    assert_eq!(first.as_millis() % 3_600_000, 0);
    world.clock.suspend(S(7_200));
    rotate(&world, &it).await;
    assert_eq!(used(), Some(first));
    shown(&world, &secret);
    assert_eq!(used().unwrap().saturating_since(first), S(7_200));
}
