//! Thousands of sockets, and none left. Both ends of each are in the test's own process.

use std::{
    fs::File,
    io::ErrorKind,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use jeton_server::door::DoorSettings;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    alone::alone,
    floods::{asks, goes_on, percentile},
    support::{PATIENCE, closes, open, peer, request, strict},
};

const SILENT: usize = 5_000;
/// Of whatever else the process has open.
const SPARE: usize = 500;
/// What the scheduler takes of its own accord where both ends of thousands of connections are on a few cores.
const NOT_JUDGED: Duration = Duration::from_millis(10);
/// How long a good caller is watched before they come.
const QUIET: Duration = Duration::from_secs(2);

/// As the broker does at its start.
fn raise_the_limit() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap())
}

#[test]
fn five_thousand_silent_peers_are_closed_in_time_and_a_caller_is_served_meanwhile() {
    alone(async {
        // Two for each; fewer where the system does not allow as many.
        let silent = SILENT.min((raise_the_limit() - SPARE) / 2);
        // What `dev` allows its one principal of TCP.
        let bounds = DoorSettings { max_connections_per_principal: 8_000, ..DoorSettings::default() };
        let door = open(DoorSettings { max_connections: 8_000, ..bounds }).await;
        let begun = Instant::now();
        let quiet = asks(&door, || begun.elapsed() < QUIET).await;
        let (start, mut peers) = (Instant::now(), vec![]);
        for _ in 0..silent {
            peers.push(timeout(PATIENCE, TcpStream::connect(door.address)).await.unwrap().unwrap());
        }
        let (connected, begun) = (start.elapsed(), Instant::now());
        let deadline = begun + Duration::from_millis(DoorSettings::default().first_request_deadline_ms);
        let done = AtomicBool::new(false);
        let closing = async {
            for peer in &mut peers {
                assert!(closes(peer).await);
            }
            done.store(true, Relaxed);
            Instant::now().saturating_duration_since(deadline)
        };
        let (loud, late) = tokio::join!(asks(&door, || !done.load(Relaxed)), closing);
        let [before, beside] = [&quiet, &loud].map(|latencies| percentile(latencies, 99));
        println!(
            "{silent} silent peers in {connected:?}: the last is closed {late:?} after its deadline; the good caller p99 {before:?} of {} quiet, {beside:?} of {} beside them",
            quiet.len(),
            loud.len(),
        );
        goes_on(&quiet, &loud);
        assert!(late < if strict() { Duration::from_secs(1) } else { PATIENCE / 4 }, "{late:?}");
        let twice = (2 * before).max(NOT_JUDGED);
        assert!(!strict() || beside <= twice, "p99 {beside:?}, and {before:?} before");
        assert_eq!(usize::try_from((door.stats)().silent).unwrap(), silent);
    });
}

fn busy() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap(), u32::try_from(used.tv_nsec).unwrap())
}

#[test]
fn without_descriptors_the_door_waits_idly_and_goes_on_when_there_are_some() {
    alone(async {
        setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(256), maximum: getrlimit(Resource::Nofile).maximum },
        )
        .unwrap();
        let door = open(DoorSettings { max_connections: 8_000, ..DoorSettings::default() }).await;
        let mut good = peer(door.address).await;
        good.call(request("0")).await.unwrap();
        // All that are left, and one for a peer that connects: the system takes it in, the door cannot.
        let (first, mut held) = (File::open("/dev/null").unwrap(), vec![]);
        let error = loop {
            match first.try_clone() {
                Ok(another) => held.push(another),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{error}");
        held.pop();
        let waiting = std::net::TcpStream::connect(door.address).unwrap();
        waiting.set_nonblocking(true).unwrap();
        let (window, before) = (Duration::from_secs(2), busy());
        tokio::time::sleep(window).await;
        let share = (busy() - before).as_secs_f64() / window.as_secs_f64();
        assert_eq!((door.stats)().accepted, 1, "nobody else came in");
        assert_eq!(std::io::Read::read(&mut &waiting, &mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        good.call(request("0")).await.unwrap();
        let freed = Instant::now();
        held.clear();
        let stream = TcpStream::from_std(waiting).unwrap();
        let (mut send, connection) = timeout(PATIENCE, h2::client::handshake(stream)).await.unwrap().unwrap();
        let connection = tokio::spawn(connection);
        let (answer, _) = send.send_request(request("0"), true).unwrap();
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().headers()["grpc-status"], "0");
        let served = freed.elapsed();
        connection.abort();
        println!(
            "without descriptors: {:.1} % of a core; the next peer is served {served:?} after",
            share * 100.0
        );
        // Its own time on a processor: a busy machine does not add to it.
        assert!(share <= 0.05, "{share} of a core to wait");
        assert!(served < if strict() { Duration::from_secs(1) } else { PATIENCE / 4 }, "{served:?}");
    });
}
