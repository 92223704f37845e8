//! What the kernel says of the process at the other end of a unix socket, shown to be of that process and of no other.

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::PeerPidfd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd,
};

use super::Refusal;

/// A process, while it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its program; none: this process may not look at that of another user (CAP_SYS_PTRACE).
    pub(crate) executable: Option<PathBuf>,
    /// Its control groups: that of the unified hierarchy, or those of the others where that one is not used.
    pub(crate) cgroups: Vec<String>,
}

impl Process {
    /// The peer of a connected socket. None: the kernel is too old to hold on to a process (before Linux 6.5), so what belongs to its
    /// number may be another's. A peer that is gone is refused.
    pub(crate) fn of(socket: BorrowedFd<'_>, pid: Option<i32>) -> Result<Option<Self>, Refusal> {
        let held = match getsockopt(&socket, PeerPidfd) {
            Ok(held) => held,
            Err(Errno::ENOPROTOOPT) => return Ok(None),
            Err(Errno::EINVAL | Errno::ESRCH | Errno::ENODATA) => return Err(gone()),
            Err(error) => return Err(Refusal(format!("its process cannot be held: {error}"))),
        };
        // No number: it is of a process namespace that cannot be seen from here.
        let Some(pid) = pid.filter(|pid| *pid > 0) else { return Ok(None) };
        let process = Self::read(pid);
        // A number is given to another only when its process has ended: so that was read of the peer.
        if has_ended(&held) { Err(gone()) } else { process.map(Some).map_err(|e| Refusal(e.to_string())) }
    }

    fn read(pid: i32) -> io::Result<Self> {
        let executable = match fs::read_link(format!("/proc/{pid}/exe")) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            found => Some(found?),
        };
        Ok(Self { executable, cgroups: cgroups(&fs::read_to_string(format!("/proc/{pid}/cgroup"))?) })
    }
}

fn gone() -> Refusal {
    Refusal("its process has ended".into())
}

/// A process that has ended makes its descriptor readable. What cannot be told counts as an end.
fn has_ended(held: &OwnedFd) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(held.as_fd(), PollFlags::IN)];
    !matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Lines of `hierarchy:controllers:path`; the unified hierarchy is 0 and has no controllers.
fn cgroups(text: &str) -> Vec<String> {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let unified = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
    match unified {
        Some(path) => vec![path.to_owned()],
        None => text.lines().filter_map(path).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_counts_and_where_it_is_not_used_the_others_do() {
        assert_eq!(cgroups("0::/system.slice/api.service\n"), ["/system.slice/api.service"]);
        assert_eq!(cgroups("1:name=x:/mine\n0::/a:b\n"), ["/a:b"]);
        assert_eq!(cgroups("4:memory:/pod/1\n0::/\n"), ["/pod/1", "/"]);
        assert!(cgroups("").is_empty());
    }
}
