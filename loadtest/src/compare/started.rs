//! What `compare` starts ends with it, also where a signal ends it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

static STARTED: Mutex<Vec<Pid>> = Mutex::new(vec![]);

/// Starts a program; [`end`] ends it.
pub(super) fn begin(command: &mut Command) -> anyhow::Result<Child> {
    let mut started = started();
    let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    started.push(Pid::from_child(&child));
    Ok(child)
}

/// Ends it. Gone already is as good.
pub(super) fn end(child: &mut Child) {
    // Under the lock: until it was waited for, its number is nobody else's.
    let mut started = started();
    let _ = child.kill();
    let _ = child.wait();
    let pid = Pid::from_child(child);
    started.retain(|other| *other != pid);
}

/// From now on SIGINT and SIGTERM end what was started, and then this process; of the folder, which has keys, nothing is left.
pub(super) fn end_with_a_signal(folder: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (interrupt, terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        let number = runtime.block_on(async {
            let (mut interrupt, mut terminate) = (interrupt, terminate);
            tokio::select! {
                _ = interrupt.recv() => Signal::INT,
                _ = terminate.recv() => Signal::TERM,
            }
        });
        for pid in started().iter() {
            let _ = kill_process(*pid, Signal::KILL);
        }
        // What is killed may write its last meanwhile.
        for _ in 0..100 {
            if fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        // As shells count it.
        std::process::exit(128 + number.as_raw());
    })?;
    Ok(())
}

fn started() -> MutexGuard<'static, Vec<Pid>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}
