//! What the operator reads.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tracing_subscriber::fmt::MakeWriter;

/// Everything that is logged in this process.
#[derive(Clone, Default)]
struct All(Arc<Mutex<Vec<u8>>>);

/// What one door says. Tests run side by side.
pub(crate) struct Log {
    all: All,
    pub(crate) door: &'static str,
}

impl Log {
    pub(crate) fn of_a_door() -> Self {
        static ALL: OnceLock<All> = OnceLock::new();
        static DOORS: AtomicUsize = AtomicUsize::new(0);
        let all = ALL.get_or_init(|| {
            let all = All::default();
            tracing_subscriber::fmt().with_writer(all.clone()).with_ansi(false).init();
            all
        });
        let door = format!("door-{}-", DOORS.fetch_add(1, Relaxed));
        Self { all: all.clone(), door: door.leak() }
    }

    pub(crate) fn text(&self) -> String {
        let all = String::from_utf8_lossy(&self.all.0.lock().unwrap()).into_owned();
        all.lines().filter(|line| line.contains(self.door)).collect::<Vec<_>>().join("\n")
    }
}

impl io::Write for All {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for All {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
