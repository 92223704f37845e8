//! Threads for work that takes long, with a bounded line before them. What a caller waits for comes first.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// How much these threads stand back: where cores are few, callers are served first. A token is refreshed in the middle of its life, so
/// its signature has time; a quarter of a busy core still makes hundreds a second.
const NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody does.
    Now,
    /// Nobody yet.
    Ahead,
}

/// A group of threads over one line. Dropping it lets the threads end after the job in hand.
pub(crate) struct Workers {
    line: Arc<Line>,
    threads: Vec<JoinHandle<()>>,
}

struct Line {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct Jobs {
    now: VecDeque<Job>,
    ahead: VecDeque<Job>,
    stopped: bool,
}

impl Workers {
    pub(crate) fn start(name: &str, threads: usize, most: usize) -> io::Result<Self> {
        let line = Arc::new(Line { jobs: Mutex::default(), changed: Condvar::new(), most });
        let spawn = |n| {
            let line = Arc::clone(&line);
            thread::Builder::new().name(format!("{name}-{n}")).spawn(move || line.work())
        };
        let threads = (0..threads).map(spawn).collect::<io::Result<_>>()?;
        Ok(Self { line, threads })
    }

    /// Puts a job in line; false when the line is full. What nobody waits for takes half of it at most: it must not keep out what
    /// somebody does. A job that panics is dropped, and with it whatever it should answer.
    pub(crate) fn submit(&self, urgency: Urgency, job: impl FnOnce() + Send + 'static) -> bool {
        let mut jobs = self.line.locked();
        let full = jobs.now.len() + jobs.ahead.len() >= self.line.most
            || urgency == Urgency::Ahead && jobs.ahead.len() >= self.line.most.div_ceil(2);
        if full || jobs.stopped {
            return false;
        }
        match urgency {
            Urgency::Now => jobs.now.push_back(Box::new(job)),
            Urgency::Ahead => jobs.ahead.push_back(Box::new(job)),
        }
        drop(jobs);
        self.line.changed.notify_one();
        true
    }
}

impl Line {
    fn work(&self) {
        // On Linux this is the thread's own. Elsewhere, or where it is not allowed, it works as before.
        if cfg!(target_os = "linux") {
            let _ = rustix::process::nice(NICE);
        }
        while let Some(job) = self.next() {
            // The job's answer channel closes, which tells whoever waits; the thread goes on.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a key operation panicked");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.locked();
        loop {
            if jobs.stopped {
                return None;
            }
            if let Some(job) = jobs.now.pop_front() {
                return Some(job);
            }
            if let Some(job) = jobs.ahead.pop_front() {
                return Some(job);
            }
            jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.line.locked().stopped = true;
        self.line.changed.notify_all();
        for thread in self.threads.drain(..) {
            // The last handle may be dropped by a job: a thread cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn what_nobody_waits_for_does_not_keep_out_what_somebody_does() {
        let workers = Workers::start("test", 1, 10).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let busy = move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        };
        assert!(workers.submit(Urgency::Now, busy));
        running.recv_timeout(Duration::from_secs(20)).unwrap();
        let (done, order) = mpsc::channel();
        let put = |urgency, name: &'static str| {
            let done = done.clone();
            workers.submit(urgency, move || done.send(name).unwrap())
        };
        let ahead = (0..10).filter(|_| put(Urgency::Ahead, "ahead")).count();
        let now = (0..10).filter(|_| put(Urgency::Now, "now")).count();
        assert_eq!((ahead, now), (5, 5), "the line has ten places");
        drop(go);
        let order: Vec<_> = (0..10).map(|_| order.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        assert_eq!(order, [["now"; 5], ["ahead"; 5]].concat());
    }
}
