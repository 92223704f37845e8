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
