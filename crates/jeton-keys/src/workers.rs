//! Threads for work that takes long, with a bounded line before them.
//!
//! What somebody waits for and what is done ahead have threads of their own, because the kernel has to know: a thread that serves callers
//! and wakes up beside one that signs otherwise waits for the end of that one's slice, which is thousands of hits.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use thread_priority::{
    NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy::Normal,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::{runtime::Handle, sync::oneshot};

/// How much the threads stand back for whose work somebody waits: a quarter of a busy core still makes hundreds of signatures a second.
const NICE: i32 = 5;

/// Where others wait, answers go out together, as many as this part of the line. Whoever is told wakes a thread that serves callers, which
/// takes the signing thread's processor for a moment; what a long line waits anyway is much longer than what its answers are held back.
const HELD_OF_LINE: usize = 8;
/// So many at most, of work that is as quick as a signature.
pub(crate) const TOGETHER: usize = 64;

type Job = Box<dyn FnOnce() -> Tell + Send>;
/// Tells whoever waits.
type Tell = Box<dyn FnOnce() + Send>;

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
    now: Condvar,
    ahead: Condvar,
    most: usize,
    together: usize,
    runtime: Handle,
}

#[derive(Default)]
struct Jobs {
    now: Waiting,
    ahead: Waiting,
    stopped: bool,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that have nothing to do. The others need not be woken.
    threads: usize,
}

impl Workers {
    /// `now`: threads for what somebody waits for; `ahead`: for the rest. So many jobs may be in line; of a long line, `together` answers go
    /// out at once. Must be called inside the runtime on which they are waited for.
    pub(crate) fn start(
        name: &str,
        (now, ahead): (usize, usize),
        most: usize,
        together: usize,
    ) -> io::Result<Self> {
        let (jobs, runtime) = (Mutex::default(), Handle::current());
        let line = Line { jobs, now: Condvar::new(), ahead: Condvar::new(), most, together, runtime };
        let line = Arc::new(line);
        let spawn = |(urgency, name)| {
            let line = Arc::clone(&line);
            thread::Builder::new().name(name).spawn(move || line.work(urgency))
        };
        let named = |urgency, kind: &str, n| (urgency, format!("{name}-{kind}{n}"));
        let now = (0..now).map(|n| named(Urgency::Now, "", n));
        let ahead = (0..ahead).map(|n| named(Urgency::Ahead, "a", n));
        let threads = now.chain(ahead).map(spawn).collect::<io::Result<_>>()?;
        Ok(Self { line, threads })
    }

    /// Runs a job; none when the line is full or the job panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let submitted = self.submit(urgency, move || {
            let done = job();
            // Whoever asked may have gone.
            move || drop(answer.send(done))
        });
        if submitted { answered.await.ok() } else { None }
    }

    /// Puts a job in line; false when the line is full. What nobody waits for takes half of it at most: it must not keep out what
    /// somebody does. What a job returns tells whoever waits for it. A job that panics is dropped, and with it whatever it should answer.
    pub(crate) fn submit<T: FnOnce() + Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> bool {
        let mut jobs = self.line.locked();
        let (now, ahead) = (jobs.now.jobs.len(), jobs.ahead.jobs.len());
        let full =
            now + ahead >= self.line.most || urgency == Urgency::Ahead && ahead >= self.line.most.div_ceil(2);
        if full || jobs.stopped {
            return false;
        }
        let waiting = jobs.of(urgency);
        waiting.jobs.push_back(Box::new(|| Box::new(job())));
        let idle = waiting.threads > 0;
        drop(jobs);
        if idle {
            self.line.changed(urgency).notify_one();
        }
        true
    }

    /// Whether somebody waits for more than what is in hand.
    pub(crate) fn in_demand(&self) -> bool {
        !self.line.locked().now.jobs.is_empty()
    }
}

impl Line {
    fn work(&self, urgency: Urgency) {
        // These are the thread's own. Where it is not allowed, it works as before.
        let _ = match urgency {
            Urgency::Now if cfg!(target_os = "linux") => rustix::process::nice(NICE).is_ok(),
            Urgency::Now => false,
            Urgency::Ahead => {
                set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, Normal(Idle)).is_ok()
            }
        };
        let mut held = vec![];
        while let Some(job) = self.next(urgency, &mut held) {
            held.extend(caught(job));
        }
    }

    /// The next job. None: there will be no more. Before it waits, and wherever the line is short, what was held back is told.
    fn next(&self, urgency: Urgency, held: &mut Vec<Tell>) -> Option<Job> {
        let mut jobs = self.locked();
        loop {
            let line = if jobs.stopped { 0 } else { jobs.of(urgency).jobs.len() };
            if held.len() >= (line / HELD_OF_LINE).clamp(1, self.together) {
                drop(jobs);
                self.tell(held);
                jobs = self.locked();
            }
            if jobs.stopped {
                return None;
            }
            if let Some(job) = jobs.of(urgency).jobs.pop_front() {
                return Some(job);
            }
            jobs.of(urgency).threads += 1;
            jobs = self.changed(urgency).wait(jobs).unwrap_or_else(PoisonError::into_inner);
            jobs.of(urgency).threads -= 1;
        }
    }

    /// Several at once on one of the threads that serve callers: told from here, the first would take this thread's processor before the
    /// second is told, and so on.
    fn tell(&self, held: &mut Vec<Tell>) {
        let tell_all = |held: Vec<Tell>| held.into_iter().for_each(|tell| caught(tell).unwrap_or_default());
        match std::mem::take(held) {
            one if one.len() < 2 => tell_all(one),
            several => drop(self.runtime.spawn(async move { tell_all(several) })),
        }
    }

    fn changed(&self, urgency: Urgency) -> &Condvar {
        match urgency {
            Urgency::Now => &self.now,
            Urgency::Ahead => &self.ahead,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer channel of a job that panics is closed, which tells whoever waits; the thread goes on.
fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.inspect_err(|_| tracing::error!("a key operation panicked: report it with this line")).ok()
}

impl Jobs {
    fn of(&mut self, urgency: Urgency) -> &mut Waiting {
        match urgency {
            Urgency::Now => &mut self.now,
            Urgency::Ahead => &mut self.ahead,
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.line.locked().stopped = true;
        self.line.now.notify_all();
        self.line.ahead.notify_all();
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
    use std::{collections::HashMap, sync::mpsc, time::Duration};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_nobody_waits_for_does_not_keep_out_what_somebody_does() {
        let workers = Workers::start("test", (1, 1), 10, 1).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let busy = move || {
            started.send(()).unwrap();
            let _ = wait.recv();
            || {}
        };
        assert!(workers.submit(Urgency::Ahead, busy));
        running.recv_timeout(PATIENCE).unwrap();
        let ahead = (0..10).filter(|_| workers.submit(Urgency::Ahead, || || {})).count();
        assert_eq!(ahead, 5, "the line has ten places");
        let (done, heard) = mpsc::channel();
        for _ in 0..5 {
            let done = done.clone();
            assert!(workers.submit(Urgency::Now, move || move || done.send(()).unwrap()));
        }
        // The thread for what is done ahead has not come back from its first job.
        (0..5).for_each(|_| heard.recv_timeout(PATIENCE).unwrap());
        drop(go);
    }

    #[tokio::test]
    async fn answers_go_out_together_only_where_many_more_wait() {
        let workers = Workers::start("test", (1, 0), 1_000, TOGETHER).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        assert!(workers.submit(Urgency::Now, move || {
            let _ = wait.recv();
            || {}
        }));
        let jobs = 1_000 - TOGETHER;
        for n in 0..jobs {
            let told = told.clone();
            // Those that a task tells go out together; a thread that signs is none.
            let tell = move || told.send((n, tokio::task::try_id())).unwrap();
            assert!(workers.submit(Urgency::Now, move || tell));
        }
        drop(go);
        let mut together = HashMap::<_, Vec<_>>::new();
        for _ in 0..jobs {
            let (n, task) = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
            together.entry(task).or_default().push(n);
        }
        let alone = together.remove(&None).unwrap();
        assert!(alone.contains(&(jobs - 1)), "nothing is held back for those who never come");
        // The first job's answer is among the first that are held.
        assert!(together.values().any(|held| held[..] == Vec::from_iter(0..TOGETHER - 1)[..]));
        for held in together.values() {
            let left = jobs - 1 - held.last().unwrap();
            assert!(held.len() <= TOGETHER && held.len() <= left / HELD_OF_LINE + 1, "{left} wait: {held:?}");
        }
        assert!(alone.iter().all(|n| jobs - n <= 2 * HELD_OF_LINE), "{alone:?}");
    }
}
