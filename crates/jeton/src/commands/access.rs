//! `jeton access`

use std::io::{IsTerminal, Write};

use jeton_core::{Clock, Role, SystemClock, TargetRequest, Wall};
use jeton_proto::v1::{self, access_service_client::AccessServiceClient, revoke_tokens_request::Scope};
use prost_types::{Duration, Timestamp};
use tonic::transport::Channel;

use super::{Common, PAGE, full, scope, shown};
use crate::exit::Misuse;

const ROLES: [&str; 5] = Role::NAMES;
const COLLECTION: &str = "roleAssignments/";
const COLUMNS: [&str; 8] =
    ["name", "member", "role", "identity", "targets", "expires", "longest token", "limits"];
const LIMITS: [&str; 5] =
    ["misses_per_second", "miss_burst", "forced_refreshes_per_minute", "max_watches", "max_waiting"];

/// `jeton access`
#[derive(Debug, clap::Args)]
pub(crate) struct AccessArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Let a workload or a principal use an identity, or administer identities
    Assign(Assign),
    /// Show all that fit
    List {
        /// Only those of this member
        #[arg(long, default_value = "")]
        member: String,
        /// Only those on this identity or group, or on '*'
        #[arg(long, default_value = "")]
        identity: String,
        /// Only those with this role
        #[arg(long, value_parser = ROLES)]
        role: Option<String>,
    },
    /// Take an assignment back; the next request is refused
    Remove {
        /// The assignment
        name: String,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Say why somebody may or may not have a token
    Explain(Explain),
    /// Take back tokens: drop them here, and revoke them at authorities that do that
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("scope").required(true).args(["identity", "authority", "all"]))]
struct Revoke {
    /// Those of this identity
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    identity: Option<String>,
    /// Those of all identities at this authority
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    authority: Option<String>,
    /// All that there are
    #[arg(long)]
    all: bool,
    /// Do not ask whether all are meant
    #[arg(long)]
    yes: bool,
    /// Repeating a change with the same id changes nothing more
    #[arg(long, default_value = "")]
    request_id: String,
}

#[derive(Debug, clap::Args)]
struct Assign {
    /// workloads/NAME, a principal, or a pattern of principals that ends at a '/'
    #[arg(long)]
    member: String,
    /// identities/NAME, a dotted group such as identities/payments.*, or '*' for an administrator of everything
    #[arg(long)]
    identity: String,
    /// For what a token-user may ask: scope:NAME, resource:URI, '*', or as callers spell it where that is one thing; repeatable
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,
    /// token-user uses identities, the others administer them; docs/roles.md says what each may do
    #[arg(long, default_value = "token-user", value_parser = ROLES)]
    role: String,
    /// The assignment's id; one is made if absent
    #[arg(long, default_value = "")]
    id: String,
    /// Keep the tokens fresh although nobody asks
    #[arg(long)]
    keep_warm: bool,
    /// When it ends, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<Timestamp>,
    /// Hand out no token that lives longer than this
    #[arg(long, value_name = "SECONDS")]
    max_token_lifetime: Option<i64>,
    /// A limit of each caller's, in place of the broker's: misses_per_second, miss_burst, forced_refreshes_per_minute, max_watches or max_waiting; repeatable
    #[arg(long = "limit", value_name = "LIMIT=N", value_parser = limit)]
    limits: Vec<(String, u32)>,
    /// Repeating a change with the same id changes nothing more
    #[arg(long, default_value = "")]
    request_id: String,
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// The correlation id of a denial
    #[arg(long, value_name = "ID", conflicts_with_all = ["principal", "identity"], required_unless_present = "principal", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    correlation: Option<String>,
    /// Who would ask
    #[arg(long)]
    principal: Option<String>,
    /// For which identity; the caller's own if absent
    #[arg(long, default_value = "")]
    identity: String,
    /// For what: a scope, scope:NAME or resource:URI
    #[arg(long)]
    target: Option<String>,
    /// A scope; repeatable
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A resource; repeatable
    #[arg(long = "resource", value_name = "URI")]
    resources: Vec<String>,
}

type Client = AccessServiceClient<Channel>;

/// Runs the command.
pub(crate) async fn run(arguments: AccessArguments) -> anyhow::Result<()> {
    let output = arguments.common.output;
    let mut client = Client::new(arguments.common.broker.admin_plane().await?);
    match arguments.verb {
        Verb::Assign(assign) => {
            let request = v1::CreateRoleAssignmentRequest {
                assignment_id: assign.id,
                member: assign.member,
                role: assign.role,
                identity: scope(&assign.identity),
                targets: assign.targets,
                keep_warm: assign.keep_warm,
                expire_time: assign.expires,
                max_token_lifetime: assign.max_token_lifetime.map(|seconds| Duration { seconds, nanos: 0 }),
                limits: limits(&assign.limits)?,
                request_id: assign.request_id,
            };
            let made = client
                .create_role_assignment(request)
                .await?
                .into_inner()
                .role_assignment
                .unwrap_or_default();
            output.one(&shown::assignment(&made), facts)
        }
        Verb::List { member, identity, role } => {
            let identity = scope(&identity);
            let role = role.unwrap_or_default();
            let wanted = v1::ListRoleAssignmentsRequest { member, identity, role, ..Default::default() };
            let all = list(&mut client, wanted).await?;
            let shown: Vec<_> = all.iter().map(shown::assignment).collect();
            output.many(&shown, &COLUMNS, |a| {
                let facts = facts(a);
                let of = |name: &&str| facts.iter().find(|(n, _)| n == name).map(|(_, text)| text.clone());
                COLUMNS.iter().filter_map(of).collect()
            })
        }
        Verb::Remove { name, request_id } => {
            client
                .delete_role_assignment(v1::DeleteRoleAssignmentRequest {
                    name: full(&name, COLLECTION),
                    request_id,
                })
                .await?;
            Ok(())
        }
        Verb::Revoke(revoke) => {
            let done = client.revoke_tokens(revocation(revoke)?).await?.into_inner().revocation;
            output.one(&shown::revocation(&done.unwrap_or_default()), revocation_facts)
        }
        Verb::Explain(explain) => {
            let explained = client.explain(request(explain)).await?.into_inner();
            output.one(&shown::explanation(&explained), |e| {
                let text = |name: &str| e[name].as_str().unwrap_or_default().to_owned();
                let answer = if e["allowed"] == true {
                    format!("allowed by {}", text("role_assignment"))
                } else {
                    "denied".into()
                };
                let near = e["near_misses"].as_array().into_iter().flatten().map(|miss| {
                    let part = |name: &str| miss[name].as_str().unwrap_or_default();
                    ("nearly", format!("{} {}", part("role_assignment"), part("problem")))
                });
                let mut facts = vec![("answer", answer), ("reason", text("reason"))];
                facts.extend(near);
                facts.extend(text("remedy").lines().map(|command| ("remedy", command.to_owned())));
                facts.extend([
                    ("principal", text("principal")),
                    ("method", text("method")),
                    ("identity", text("identity")),
                    ("target", text("target")),
                    ("denied at", text("denied_time")),
                ]);
                facts
            })
        }
    }
}

/// `LIMIT=N`
fn limit(text: &str) -> Result<(String, u32), String> {
    let wrong = || {
        format!(
            "{text:?} is no limit: say one of {} with a number, such as miss_burst=100",
            LIMITS.join(", ")
        )
    };
    let (name, most) = text.split_once('=').ok_or_else(wrong)?;
    let most = most.parse().map_err(|_| wrong())?;
    if LIMITS.contains(&name) { Ok((name.to_owned(), most)) } else { Err(wrong()) }
}

fn limits(given: &[(String, u32)]) -> Result<Option<v1::CallerLimits>, Misuse> {
    let twice = |name: &&&str| given.iter().filter(|(given, _)| given == **name).count() > 1;
    if let Some(name) = LIMITS.iter().find(twice) {
        return Err(Misuse(format!("--limit {name} is given more than once: say which number is meant")));
    }
    let of = |name: &str| given.iter().find(|(given, _)| given == name).map(|(_, most)| *most);
    let limits = v1::CallerLimits {
        misses_per_second: of(LIMITS[0]),
        miss_burst: of(LIMITS[1]),
        forced_refreshes_per_minute: of(LIMITS[2]),
        max_watches: of(LIMITS[3]),
        max_waiting: of(LIMITS[4]),
    };
    Ok((!given.is_empty()).then_some(limits))
}

fn revocation(revoke: Revoke) -> anyhow::Result<v1::RevokeTokensRequest> {
    let named = match (revoke.identity, revoke.authority) {
        (Some(identity), _) => Scope::Identity(full(&identity, "identities/")),
        (_, Some(authority)) => Scope::Authority(full(&authority, "authorities/")),
        (None, None) => Scope::Everything(true),
    };
    if matches!(named, Scope::Everything(_)) && !revoke.yes && !confirmed()? {
        return Err(Misuse("nothing was taken back: say --yes if all tokens are meant".into()).into());
    }
    Ok(v1::RevokeTokensRequest { scope: Some(named), request_id: revoke.request_id })
}

/// Asks whoever sits at the terminal.
fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let question =
        b"Every token of every identity is taken back, and all callers ask for new ones. Go on? [y/N] ";
    std::io::stderr().write_all(question)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How far tokens were taken back.
pub(super) fn revocation_facts(revocation: &serde_json::Value) -> Vec<(&'static str, String)> {
    let number = |name: &str| revocation[name].as_u64().unwrap_or_default().to_string();
    let until = revocation["valid_until"].as_str().unwrap_or("none that is known is valid any more");
    vec![
        ("tokens dropped", number("dropped")),
        ("revoked at their authority", number("revoked")),
        ("not revoked there", number("not_revoked")),
        ("handed-out tokens valid until", until.to_owned()),
    ]
}

fn request(explain: Explain) -> v1::ExplainRequest {
    let (mut scopes, mut resources) = (explain.scopes, explain.resources);
    if let Some(text) = explain.target {
        match TargetRequest::prefixed(&text) {
            Some(target) => {
                scopes.extend(target.scopes);
                resources.extend(target.resources);
            }
            None => scopes.extend(text.split_whitespace().map(str::to_owned)),
        }
    }
    v1::ExplainRequest {
        correlation_id: explain.correlation.unwrap_or_default(),
        principal: explain.principal.unwrap_or_default(),
        identity: full(&explain.identity, "identities/"),
        scopes,
        resources,
    }
}

/// Every page.
pub(super) async fn list(
    client: &mut Client,
    wanted: v1::ListRoleAssignmentsRequest,
) -> anyhow::Result<Vec<v1::RoleAssignment>> {
    let (mut all, mut page_token) = (vec![], String::new());
    loop {
        let request = v1::ListRoleAssignmentsRequest { page_size: PAGE, page_token, ..wanted.clone() };
        let page = client.list_role_assignments(request).await?.into_inner();
        all.extend(page.role_assignments);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}

fn facts(assignment: &serde_json::Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| assignment[name].as_str().unwrap_or_default().to_owned();
    let targets: Vec<_> =
        assignment["targets"].as_array().into_iter().flatten().filter_map(|t| t.as_str()).collect();
    let lifetime = assignment["max_token_lifetime_seconds"].as_f64().map(|s| format!("{s} s"));
    let limits = assignment["limits"].as_object().into_iter().flatten();
    let limits = limits.map(|(name, most)| format!("{name}={most}")).collect::<Vec<_>>().join(" ");
    vec![
        ("name", text("name")),
        ("member", text("member")),
        ("role", text("role")),
        ("identity", text("identity")),
        ("targets", targets.join(", ")),
        ("kept warm", if assignment["keep_warm"] == true { "yes".into() } else { String::new() }),
        ("expires", expires(text("expire_time"))),
        ("longest token", lifetime.unwrap_or_default()),
        ("limits", limits),
        ("uid", text("uid")),
    ]
}

/// One that ended says so: it stays until somebody takes it back.
fn expires(at: String) -> String {
    let millis =
        |at: Timestamp| at.seconds.saturating_mul(1000).saturating_add((at.nanos / 1_000_000).into());
    let ended = at.parse().is_ok_and(|at| Wall::from_millis(millis(at)) <= SystemClock.now().wall);
    if ended { format!("{at} (expired)") } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_given_twice_is_refused_and_named() {
        let given = |texts: &[&str]| limits(&texts.iter().map(|t| limit(t).unwrap()).collect::<Vec<_>>());
        let error = given(&["miss_burst=5", "max_waiting=2", "miss_burst=6"]).unwrap_err().to_string();
        assert!(error.contains("--limit miss_burst is given more than once"), "{error}");
        let both = given(&["miss_burst=5", "max_waiting=2"]).unwrap().unwrap();
        assert_eq!((both.miss_burst, both.max_waiting, both.max_watches), (Some(5), Some(2), None));
        assert_eq!(given(&[]).unwrap(), None);
    }

    #[test]
    fn the_list_shows_limits_and_longest_tokens_and_marks_what_expired() {
        let mut assignment = v1::RoleAssignment {
            expire_time: Some("2020-01-31T00:00:00Z".parse().unwrap()),
            max_token_lifetime: Some(Duration { seconds: 60, nanos: 0 }),
            limits: Some(v1::CallerLimits { miss_burst: Some(5), ..Default::default() }),
            ..Default::default()
        };
        let shown = |assignment: &v1::RoleAssignment, name: &str| {
            assert!(COLUMNS.contains(&name));
            let facts = facts(&shown::assignment(assignment));
            facts.into_iter().find(|(n, _)| *n == name).unwrap().1
        };
        assert_eq!(shown(&assignment, "expires"), "2020-01-31T00:00:00Z (expired)");
        assert_eq!(shown(&assignment, "longest token"), "60 s");
        assert_eq!(shown(&assignment, "limits"), "miss_burst=5");
        assignment.expire_time = Some("9999-01-31T00:00:00Z".parse().unwrap());
        assert_eq!(shown(&assignment, "expires"), "9999-01-31T00:00:00Z");
        assignment.expire_time = None;
        assert_eq!(shown(&assignment, "expires"), "");
        let all = facts(&shown::assignment(&assignment));
        assert!(COLUMNS.iter().all(|column| all.iter().any(|(name, _)| name == column)));
    }
}
