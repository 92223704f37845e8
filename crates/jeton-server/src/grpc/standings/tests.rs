//! Orders, searches and pages, among a hundred thousand.

use std::time::Instant;

use jeton_core::{Credential, CredentialKind, CredentialState, IdentityKind, Operation, OperationKind};
use jeton_engine::{IssueError, IssueErrorClass};

use super::*;

const MANY: u32 = 100_000;

fn uid(n: u32) -> Uid {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&n.to_be_bytes());
    Uid::new(Wall::from_secs(1), random)
}

fn identity(n: u32) -> Identity {
    Identity {
        uid: uid(n),
        name: format!("identities/team-{}.service-{n:06}", n % 97).parse().unwrap(),
        display_name: format!("Service {n}"),
        labels: Default::default(),
        kind: IdentityKind::Created,
        workload: None,
        authority: uid(u32::MAX - n % 3),
        state: IdentityState::Active,
        client_id: Some(format!("client-{n:x}").into()),
        registration: None,
        credentials: vec![Credential {
            uid: uid(n),
            kind: CredentialKind::Secret { expires_at: Some(Wall::from_secs(1_000_000 - i64::from(n))) },
            state: CredentialState::Current,
            remote_id: None,
            created_at: Wall::from_secs(1),
        }],
        operation: None,
        created_at: Wall::from_secs(1),
        updated_at: Wall::from_secs(1),
        version: 1,
    }
}

fn standing(n: u32, failing: Option<u64>) -> Standing {
    let error = IssueError {
        class: IssueErrorClass::Transient,
        retry_after: None,
        code: None,
        message: "why".into(),
    };
    Standing {
        tokens: 1,
        failing: failing.map(|left| (Duration::from_secs(left), error)),
        next_refresh: Some(Wall::from_secs(2_000 + i64::from(n))),
        last_used: Wall::from_secs(3_000 + i64::from(n)),
    }
}

/// All are well but for four.
fn world(many: u32) -> (Directory, HashMap<Uid, Standing>) {
    let mut directory = Directory::default();
    let mut standings = HashMap::new();
    for n in 0..many {
        let mut identity = identity(n);
        match n {
            7 => identity.state = IdentityState::Failed,
            8 => {
                let mut operation = Operation::new(OperationKind::Rotate, Wall::from_secs(1));
                (operation.attempts, operation.last_error) = (4, Some("no".into()));
                identity.operation = Some(operation);
            }
            _ => {}
        }
        directory.put_identity(Arc::new(identity));
        let failing = match n {
            5 => Some(90),
            6 => Some(0),
            _ => None,
        };
        standings.insert(uid(n), standing(n, failing));
    }
    (directory, standings)
}

fn wanted(order: IdentityOrder) -> Wanted {
    Wanted {
        query: String::new(),
        state: None,
        authority: None,
        only: None,
        order,
        descending: false,
        skip: 0,
        size: 5,
    }
}

fn shown(world: &(Directory, HashMap<Uid, Standing>), wanted: &Wanted) -> (usize, Vec<u32>) {
    let mut rows = rows(&world.0, world.1.clone(), wanted, |_| true);
    let number = |row: &Row<'_>| row.identity.name.as_str().rsplit('-').next().unwrap().parse().unwrap();
    (rows.len(), page(&mut rows, wanted).iter().map(number).collect())
}

#[test]
fn the_worst_are_first_and_every_order_goes_both_ways() {
    let world = world(1_000);
    let of = |order| shown(&world, &wanted(order)).1;
    assert_eq!(of(IdentityOrder::Worst), [6, 5, 7, 8, 999], "starved, starving, failed, failing, ends first");
    assert_eq!(of(IdentityOrder::Unspecified), of(IdentityOrder::Worst));
    assert_eq!(of(IdentityOrder::Name)[..2], [0, 97]);
    assert_eq!(of(IdentityOrder::Credential)[..2], [999, 998]);
    assert_eq!(of(IdentityOrder::NextRefresh)[..2], [0, 1]);
    assert_eq!(of(IdentityOrder::LastUse)[..2], [0, 1]);
    let last_first = Wanted { descending: true, ..wanted(IdentityOrder::LastUse) };
    assert_eq!(shown(&world, &last_first).1[..2], [999, 998]);
}

#[test]
fn what_is_searched_is_found_in_names_display_names_and_client_ids_in_either_case() {
    let world = world(1_000);
    let found =
        |query: &str| shown(&world, &Wanted { query: query.to_lowercase(), ..wanted(IdentityOrder::Name) });
    assert_eq!(found("TEAM-96.SERVICE-0009"), (1, vec![969]));
    assert_eq!(found("Service 42").0, 11, "42, and 420 to 429");
    assert_eq!(found("CLIENT-3E7"), (1, vec![999]));
    assert_eq!(found("nothing"), (0, vec![]));
    let failed = Wanted { state: Some(IdentityState::Failed), ..wanted(IdentityOrder::Name) };
    assert_eq!(shown(&world, &failed), (1, vec![7]));
}

#[test]
fn pages_together_are_the_whole_list_once_and_one_beyond_its_end_is_empty() {
    let world = world(103);
    let mut seen = vec![];
    for skip in (0..=105).step_by(5) {
        seen.extend(shown(&world, &Wanted { skip, ..wanted(IdentityOrder::Worst) }).1);
    }
    let mut whole = seen.clone();
    whole.sort_unstable();
    assert_eq!(whole, (0..103).collect::<Vec<_>>());
    assert_eq!(seen[..5], [6, 5, 7, 8, 102]);
    assert!(shown(&world, &Wanted { skip: usize::MAX, ..wanted(IdentityOrder::Worst) }).1.is_empty());
}

/// `cargo test --profile fast -p jeton-server --lib hundred_thousand -- --nocapture` prints how long each takes.
#[test]
#[allow(clippy::print_stdout, reason = "figures for whoever asks")]
fn among_a_hundred_thousand_the_worst_is_found_and_the_last_page_too() {
    let world = world(MANY);
    let last = MANY as usize - 5;
    let looks = [
        ("worst first", wanted(IdentityOrder::Worst), MANY as usize, 6),
        (
            "the last page by name",
            Wanted { skip: last, ..wanted(IdentityOrder::Name) },
            MANY as usize,
            99_521,
        ),
        ("a search", Wanted { query: "service 99999".into(), ..wanted(IdentityOrder::Worst) }, 1, 99_999),
    ];
    for (what, wanted, total, first) in looks {
        let standings = world.1.clone();
        let began = Instant::now();
        let mut rows = rows(&world.0, standings, &wanted, |_| true);
        let found = page(&mut rows, &wanted)[0].identity.name.as_str().ends_with(&format!("-{first:06}"));
        let took = began.elapsed();
        println!("{what}: {} ms", took.as_millis());
        assert!(found && rows.len() == total, "{what}");
    }
}
