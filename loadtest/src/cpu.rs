//! Processors: who uses how much, and who runs where.

use std::{collections::HashMap, fs, iter::Sum, time::Duration};

use anyhow::Context;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Parses the number of a processor that this process can have.
pub(crate) fn core(text: &str) -> Result<usize, String> {
    let there =
        there().map_err(|error| format!("which processors there are cannot be found out: {error:#}"))?;
    let number = text.parse().ok().filter(|core| there.contains(core));
    number.ok_or_else(|| {
        let there: Vec<_> = there.iter().map(usize::to_string).collect();
        format!("there is no such processor for this program; give one of {}", there.join(", "))
    })
}

/// The processors that the system lets this process have: also those that it was not started on, as by taskset.
fn there() -> anyhow::Result<Vec<usize>> {
    // On a thread of its own, which takes along what was set.
    let asking = std::thread::spawn(|| -> anyhow::Result<_> {
        pin(None, &(0..CpuSet::MAX_CPU).collect::<Vec<_>>())?;
        let set = sched_getaffinity(None)?;
        Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    });
    asking.join().expect("the asking thread does not panic")
}

/// Pins a process (its main thread, before it starts others) or the calling thread to processors.
pub(crate) fn pin(process: Option<u32>, cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    let pid = process.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    sched_setaffinity(pid, &set).with_context(|| format!("running on processors {cores:?}"))
}

/// What threads had of processors so far, by the kernel's scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// They ran.
    pub(crate) ran: Duration,
    /// They could have run, and others did.
    pub(crate) waited: Duration,
}

impl Share {
    /// They had something to do.
    pub(crate) fn active(self) -> Duration {
        self.ran + self.waited
    }

    /// What came since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }

    /// In nanoseconds: two of the three numbers of a `schedstat`.
    fn read(schedstat: &str) -> Option<Self> {
        let mut numbers = schedstat.split_whitespace().map(|n| n.parse().ok().map(Duration::from_nanos));
        Some(Self { ran: numbers.next()??, waited: numbers.next()?? })
    }
}

impl std::ops::Add for Share {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { ran: self.ran + other.ran, waited: self.waited + other.waited }
    }
}

impl Sum for Share {
    fn sum<I: Iterator<Item = Self>>(shares: I) -> Self {
        shares.fold(Self::default(), |all, share| all + share)
    }
}

/// The shares of a process's threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Threads(HashMap<u32, Share>);

impl Threads {
    /// What came since; a thread that ended meanwhile took its part along.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (thread, share) in &mut self.0 {
            *share = share.since(before.0.get(thread).copied().unwrap_or_default());
        }
        self
    }

    /// Of all together.
    pub(crate) fn total(&self) -> Share {
        self.0.values().copied().sum()
    }

    /// Of the one that had the most to do.
    pub(crate) fn busiest(&self) -> Share {
        self.0.values().copied().max_by_key(|share| share.active()).unwrap_or_default()
    }
}

#[cfg(test)]
impl FromIterator<Share> for Threads {
    fn from_iter<I: IntoIterator<Item = Share>>(shares: I) -> Self {
        Self((0..).zip(shares).collect())
    }
}

/// What the threads had that a process has now.
pub(crate) fn used(process: u32) -> anyhow::Result<Threads> {
    let folder = format!("/proc/{process}/task");
    let mut all = HashMap::new();
    for thread in fs::read_dir(&folder).with_context(|| folder.clone())? {
        let thread = thread?;
        let text = fs::read_to_string(thread.path().join("schedstat")).ok();
        if let (Some(share), Some(id)) = (
            text.and_then(|text| Share::read(&text)),
            thread.file_name().to_str().and_then(|name| name.parse().ok()),
        ) {
            all.insert(id, share);
        }
    }
    Ok(Threads(all))
}

/// The calling thread's share; nothing where the kernel does not tell.
pub(crate) fn used_by_this_thread() -> Share {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Share::read(&text).unwrap_or_default()
}

/// User and system time of a process with that of threads that have ended, in hundredths of a second.
pub(crate) fn used_by_all(process: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    ticks(&text)
        .map(|ticks| Duration::from_millis(10 * ticks))
        .with_context(|| format!("{file} is not understood"))
}

/// utime and stime, the 14th and 15th field; the second is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// How many processors a process may use.
pub(crate) fn allowed(process: u32) -> Option<usize> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let count = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some(to.parse::<usize>().ok()? + 1 - from.parse::<usize>().ok()?),
        None => part.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_is_not_there_is_refused_with_those_that_are() {
        let there = there().unwrap();
        for number in &there {
            assert_eq!(core(&number.to_string()), Ok(*number));
        }
        let absent = there.iter().max().unwrap() + 1;
        for wrong in [absent.to_string(), "99999".into(), "-1".into(), "x".into()] {
            let said = core(&wrong).unwrap_err();
            assert!(said.contains(&format!("give one of {}", there[0])), "{said}");
        }
    }

    #[test]
    fn what_ran_and_what_waited_is_told_apart() {
        let share =
            |ran, waited| Share { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) };
        assert_eq!(Share::read("7 5 3\n"), Some(share(7, 5)));
        assert_eq!(Share::read("7"), None);
        assert_eq!(share(9, 4).since(share(7, 5)), share(2, 0));
        assert!(used(std::process::id()).unwrap().total().ran > Duration::ZERO);
    }

    #[test]
    fn threads_are_compared_each_with_itself() {
        let share = |ran| Share { ran: Duration::from_secs(ran), waited: Duration::from_secs(1) };
        let before = Threads(HashMap::from([(1, share(100)), (2, share(3)), (3, share(9))]));
        let after = Threads(HashMap::from([(1, share(101)), (2, share(7)), (4, share(2))]));
        let since = after.since(&before);
        assert_eq!(since.total(), Share { ran: Duration::from_secs(7), waited: Duration::from_secs(1) });
        assert_eq!(since.busiest(), Share { ran: Duration::from_secs(4), waited: Duration::ZERO });
    }

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 10 20 30 40 250 50 6 7 20 0 3 0 100 1000 200";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a"), None);
        assert!(used_by_all(std::process::id()).is_ok());
    }
}
