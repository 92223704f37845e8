//! Programs and containers that share a unix socket, told apart by what the kernel says of their processes.

use std::{os::fd::BorrowedFd, path::Path};

use jeton_core::{Principal, Problem};
use serde::{Deserialize, Serialize};

use super::{Authenticate, Peer, Refusal, peer::UnixPeer, process::Process};
use crate::seldom::Seldom;

/// Names the peers that fit all of its selectors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixPeerRule {
    /// The last part of the principal: `unix://NODE/peer/NAME`.
    pub name: String,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The path of the program, as its own mount namespace has it. By itself it proves little: whoever may start the program can hand it
    /// a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The control group; with a `/` at its end, all below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// Local peers by the first rule that fits, and by their user where none does.
#[derive(Debug)]
pub struct UnixPeers {
    users: UnixPeer,
    rules: Vec<UnixPeerRule>,
    log: Seldom,
}

impl UnixPeerRule {
    /// Everything that is wrong with rules; keys are relative to the section that holds them.
    pub fn validate(rules: &[Self]) -> Vec<Problem> {
        let wrong = |n: usize, text: &str| Problem::new("unix_peers", format!("entry {}: {text}", n + 1));
        let mut problems = vec![];
        for (n, rule) in rules.iter().enumerate() {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let fits = !rule.name.is_empty() && rule.name.len() <= 128 && rule.name.chars().all(allowed);
            if !fits || matches!(rule.name.as_str(), "." | "..") {
                problems.push(wrong(n, "name must be 1 to 128 letters, digits, '-', '.' and '_'"));
            }
            if rule.uid.is_none() && rule.gid.is_none() && !rule.looks() {
                problems.push(wrong(n, "give at least one of uid, gid, executable and cgroup"));
            }
            for path in [&rule.executable, &rule.cgroup].into_iter().flatten() {
                if !path.starts_with('/') {
                    problems.push(wrong(n, "executable and cgroup begin with '/'"));
                }
            }
        }
        problems
    }

    /// Whether more is to be known than the socket tells.
    fn looks(&self) -> bool {
        self.executable.is_some() || self.cgroup.is_some()
    }

    fn fits(&self, uid: u32, gid: u32, process: Option<&Process>) -> bool {
        let program = |wanted: &String| {
            process.and_then(|it| it.executable.as_deref()).is_some_and(|found| found == Path::new(wanted))
        };
        let group = |wanted: &String| {
            process.is_some_and(|it| {
                it.cgroups.iter().any(|found| match wanted.ends_with('/') {
                    true => found.starts_with(wanted.as_str()),
                    false => found == wanted,
                })
            })
        };
        self.uid.is_none_or(|wanted| wanted == uid)
            && self.gid.is_none_or(|wanted| wanted == gid)
            && self.executable.as_ref().is_none_or(program)
            && self.cgroup.as_ref().is_none_or(group)
    }
}

impl UnixPeers {
    /// `node` tells this machine from others.
    pub fn new(node: &str, rules: Vec<UnixPeerRule>) -> Self {
        Self { users: UnixPeer { node: node.to_owned() }, rules, log: Seldom::default() }
    }
}

impl Authenticate for UnixPeers {
    fn authenticate(&self, peer: &Peer, socket: Option<BorrowedFd<'_>>) -> Result<Principal, Refusal> {
        let Peer::Unix { uid, gid, pid } = peer else { return self.users.authenticate(peer, socket) };
        let process = match socket.filter(|_| self.rules.iter().any(UnixPeerRule::looks)) {
            None => None,
            Some(socket) => Process::of(socket, *pid)?,
        };
        let hidden = |it: &Process| it.executable.is_none();
        if process.as_ref().is_some_and(hidden) && self.rules.iter().any(|rule| rule.executable.is_some()) {
            self.log.line("programs", uid, |left_out| {
                tracing::warn!(uid, left_out, "the programs of other users cannot be looked at without CAP_SYS_PTRACE: rules of unix_peers with `executable` do not fit them; give the broker that capability, or tell programs apart by `cgroup`");
            });
        }
        match self.rules.iter().find(|rule| rule.fits(*uid, *gid, process.as_ref())) {
            None => self.users.authenticate(peer, socket),
            Some(rule) => format!("unix://{}/peer/{}", self.users.node, rule.name)
                .parse()
                .map_err(|error: jeton_core::PrincipalError| Refusal(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        os::{
            fd::AsFd,
            unix::net::{UnixListener, UnixStream},
        },
        path::PathBuf,
        process::{Child, Command, Stdio},
    };

    use super::*;

    const SOCKET: &str = "JETON_TEST_CONNECTS_TO";

    /// What a child of the tests below does; by itself it does nothing.
    #[test]
    fn connects_and_stays() {
        let Ok(socket) = std::env::var(SOCKET) else { return };
        let _held = UnixStream::connect(socket).unwrap();
        let _ = std::io::stdin().read(&mut [0]);
    }

    struct Program {
        child: Child,
        connection: UnixStream,
        peer: Peer,
    }

    /// This very test program under another name, connected.
    fn program(folder: &Path, name: &str) -> (Program, PathBuf) {
        let (own, path, socket) =
            (std::env::current_exe().unwrap(), folder.join(name), folder.join("socket"));
        fs::hard_link(&own, &path).or_else(|_| fs::copy(&own, &path).map(drop)).unwrap();
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let child = Command::new(&path)
            .args(["--exact", "door::unix::tests::connects_and_stays"])
            .env(SOCKET, &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (connection, _) = listener.accept().unwrap();
        let ids = rustix::process::getuid().as_raw();
        let pid = i32::try_from(child.id()).unwrap();
        let peer = Peer::Unix { uid: ids, gid: rustix::process::getgid().as_raw(), pid: Some(pid) };
        (Program { child, connection, peer }, path.canonicalize().unwrap())
    }

    impl Program {
        fn known_as(&self, rules: &[UnixPeerRule]) -> Result<String, String> {
            let peers = UnixPeers::new("n1", rules.to_vec());
            let found = peers.authenticate(&self.peer, Some(self.connection.as_fd()));
            found.map(|principal| principal.to_string()).map_err(|refusal| refusal.to_string())
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.child.stdin.take().map(|mut stdin| stdin.write_all(b"."));
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn by_program(name: &str, path: &Path) -> UnixPeerRule {
        UnixPeerRule {
            name: name.into(),
            executable: Some(path.display().to_string()),
            ..UnixPeerRule::default()
        }
    }

    #[test]
    fn two_programs_of_one_user_are_two_principals() {
        let folder = tempfile::tempdir().unwrap();
        let ((api, api_path), (job, job_path)) =
            (program(folder.path(), "api"), program(folder.path(), "job"));
        let rules = [by_program("api", &api_path), by_program("job", &job_path)];
        assert_eq!(api.known_as(&rules).as_deref(), Ok("unix://n1/peer/api"));
        assert_eq!(job.known_as(&rules).as_deref(), Ok("unix://n1/peer/job"));
        let user = format!("unix://n1/uid/{}", rustix::process::getuid().as_raw());
        assert_eq!(api.known_as(&rules[1..]).as_ref(), Ok(&user), "no rule fits");
        let other_user = UnixPeerRule { uid: Some(4_000_000), ..rules[0].clone() };
        assert_eq!(api.known_as(&[other_user]).as_ref(), Ok(&user), "all selectors have to fit");
    }

    #[test]
    fn a_control_group_is_named_whole_or_with_all_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let (api, _) = program(folder.path(), "api");
        let Peer::Unix { pid, .. } = api.peer else { unreachable!() };
        let found = Process::of(api.connection.as_fd(), pid).unwrap().expect("Linux 6.5");
        let own = found.cgroups[0].clone();
        let rule = |cgroup: &str| {
            [UnixPeerRule { name: "pod".into(), cgroup: Some(cgroup.into()), ..UnixPeerRule::default() }]
        };
        assert_eq!(api.known_as(&rule(&own)).as_deref(), Ok("unix://n1/peer/pod"));
        assert_eq!(api.known_as(&rule("/")).as_deref(), Ok("unix://n1/peer/pod"));
        assert!(
            api.known_as(&rule(&format!("{}-other", own.trim_end_matches('/')))).unwrap().contains("/uid/")
        );
    }

    #[test]
    fn a_peer_whose_process_has_ended_is_refused_and_its_number_is_no_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (mut api, path) = program(folder.path(), "api");
        let rules = [by_program("api", &path)];
        api.child.kill().unwrap();
        api.child.wait().unwrap();
        // As if its number were another's already.
        let Peer::Unix { pid, .. } = &mut api.peer else { unreachable!() };
        *pid = Some(i32::try_from(std::process::id()).unwrap());
        assert_eq!(api.known_as(&rules), Err("its process has ended".into()));
        assert!(api.known_as(&[]).unwrap().contains("/uid/"), "a user needs no process");
    }

    #[test]
    fn a_rule_without_a_selector_or_with_a_name_that_is_none_is_an_error() {
        let rule = |name: &str| UnixPeerRule { name: name.into(), ..UnixPeerRule::default() };
        let rules = [rule("a/b"), UnixPeerRule { cgroup: Some("x".into()), ..rule("a") }];
        let said: Vec<_> = UnixPeerRule::validate(&rules).into_iter().map(|p| p.message).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(UnixPeerRule::validate(&[UnixPeerRule { uid: Some(0), ..rule("root") }]), []);
    }
}
