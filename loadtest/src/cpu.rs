//! Processors: who uses how much, and who runs where.

use std::{fs, time::Duration};

use anyhow::Context;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

/// Pins a process (its main thread, before it starts others) or the calling thread to processors.
pub(crate) fn pin(process: Option<u32>, cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    let pid = process.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    sched_setaffinity(pid, &set).with_context(|| format!("running on processors {cores:?}"))
}

/// User and system time of a process so far.
pub(crate) fn used(process: u32) -> anyhow::Result<Duration> {
    // In nanoseconds, thread by thread; /proc/PID/stat counts in hundredths of a second.
    let folder = format!("/proc/{process}/task");
    let mut nanos = 0_u64;
    for thread in fs::read_dir(&folder).with_context(|| folder.clone())? {
        let path = thread?.path().join("schedstat");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// The same with that of threads that have ended, in hundredths of a second.
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
    fn user_and_system_time_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 10 20 30 40 250 50 6 7 20 0 3 0 100 1000 200";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a"), None);
        assert!(used_by_all(std::process::id()).is_ok());
    }
}
