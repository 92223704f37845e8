//! Tests in processes of their own: what they measure of their process, or change of it, is then theirs alone.

use std::{
    env, fs,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MARK: &str = "JETON_TEST_ALONE";
const DEADLINE: Duration = Duration::from_secs(180);
/// One at a time, so that none is in the way of another's figures.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the test that the future belongs to in a process of its own.
pub(crate) fn alone<F: Future<Output = ()>>(test: F) {
    if env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(test);
    }
    // Such as `door::floods::pings::{{closure}}`.
    let name = std::any::type_name::<F>().split_once("::").unwrap().1.split("::{").next().unwrap();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{name}: {}\n{said}", output.status);
    println!("{said}");
}

/// Kilobytes that are resident now, and the most that were.
pub(crate) fn resident_kb() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}
