//! What the kernel says of this process. Elsewhere than on Linux it says nothing.

use std::{fs, time::Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::{Snapshot, instrument};

/// Reads it into a snapshot. `started`: when the process did.
pub(crate) fn observe(snapshot: &mut Snapshot, started: Instant) {
    snapshot.value(&instrument::PROCESS_UPTIME, [], started.elapsed().as_secs_f64());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    for (name, instrument) in
        [("VmRSS", &instrument::PROCESS_MEMORY), ("VmSize", &instrument::PROCESS_MEMORY_VIRTUAL)]
    {
        if let Some(kibibytes) = of(name) {
            snapshot.count(instrument, [], kibibytes * 1_024);
        }
    }
    if let Some(threads) = of("Threads") {
        snapshot.count(&instrument::PROCESS_THREADS, [], threads);
    }
    // Of all threads, those that ended included; /proc/self/status has those of the first thread alone.
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let switches = &instrument::PROCESS_CONTEXT_SWITCHES;
        snapshot.count(switches, ["voluntary"], usage.voluntary_context_switches().unsigned_abs());
        snapshot.count(switches, ["involuntary"], usage.involuntary_context_switches().unsigned_abs());
    }
    if let Some((user, system)) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| times(&stat)) {
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        snapshot.value(&instrument::PROCESS_CPU, ["user"], user as f64 / ticks);
        snapshot.value(&instrument::PROCESS_CPU, ["system"], system as f64 / ticks);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One is that of the reading.
        snapshot.count(&instrument::PROCESS_DESCRIPTORS, [], open.count().saturating_sub(1) as u64);
    }
}

/// In user and in kernel mode, in ticks (proc(5)). The name in parentheses may hold anything.
fn times(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Value};

    #[test]
    fn the_times_stand_behind_a_name_that_may_hold_anything() {
        let stat = "1 (a) b (c) S 2 3 4 5 6 7 8 9 10 11 12 13 14 15";
        assert_eq!(times(stat), Some((12, 13)));
        assert_eq!(times("1 (a"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn context_switches_are_those_of_all_threads_also_when_they_have_ended() {
        const SLEEPS: u64 = 50;
        let before = voluntary_switches();
        let sleeper = || (0..SLEEPS).for_each(|_| std::thread::sleep(std::time::Duration::from_millis(1)));
        std::thread::spawn(sleeper).join().expect("it sleeps");
        assert!(voluntary_switches() >= before + SLEEPS);
    }

    fn voluntary_switches() -> u64 {
        let mut snapshot = Snapshot::default();
        observe(&mut snapshot, Instant::now());
        let of = |family: &&Family| family.instrument.name == instrument::PROCESS_CONTEXT_SWITCHES.name;
        let points = &snapshot.families().find(of).expect("the family").points;
        match points.iter().find(|point| point.attributes == ["voluntary"]).map(|point| &point.value) {
            Some(Value::Whole(switches)) => *switches,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn everything_is_there_on_linux() {
        let mut snapshot = Snapshot::default();
        observe(&mut snapshot, Instant::now());
        let names: Vec<_> = snapshot.families().map(|family| family.instrument.name).collect();
        let known = crate::INSTRUMENTS.iter().map(|i| i.name).filter(|name| name.starts_with("process."));
        assert!(known.into_iter().all(|name| names.contains(&name)), "{names:?}");
    }
}
