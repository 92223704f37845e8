//! Three clocks, read together.
//!
//! Wall time tells when a token expires at its authority. Monotonic time orders waits, but it stands still while a machine is
//! suspended. Boot time goes on then. Whoever asks "is this still valid?" must look at wall and boot time, or a suspended
//! machine and a stepped clock both serve expired credentials.

use std::{fmt, ops, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, by the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Wall(i64);

impl Wall {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down (NumericDate, RFC 7519 section 2).
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// RFC 3339 in UTC, to the millisecond. Between the years 0 and 9999 two of them sort as their times do.
    pub fn rfc3339(self) -> String {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1_000 % 60, millis % 1_000);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }

    /// The time left until `self`; zero when it has passed.
    pub fn saturating_since(self, earlier: Wall) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `self` moved by a signed number of milliseconds (a clock skew).
    pub const fn shifted(self, millis: i64) -> Wall {
        Wall(self.0.saturating_add(millis))
    }
}

/// Year, month and day of a number of days since the epoch, in the proleptic Gregorian calendar: counted in eras of 400 years that begin
/// with March, so that the leap day is the last of its year.
const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

impl ops::Add<Duration> for Wall {
    type Output = Wall;

    fn add(self, by: Duration) -> Wall {
        Wall(self.0.saturating_add(millis(by)))
    }
}

impl ops::Sub<Duration> for Wall {
    type Output = Wall;

    fn sub(self, by: Duration) -> Wall {
        Wall(self.0.saturating_sub(millis(by)))
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wall:{}ms", self.0)
    }
}

/// Milliseconds on a clock that only goes forward, from an arbitrary start. Used for both the monotonic and the boot-time clock;
/// readings of the two are never compared with each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(u64);

impl Mono {
    /// From milliseconds since the clock's start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the clock's start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time between `earlier` and `self`; zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Mono) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, by: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mono:{}ms", self.0)
    }
}

/// One reading of all three clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock: can be stepped in either direction.
    pub wall: Wall,
    /// Monotonic clock: stands still during suspend.
    pub mono: Mono,
    /// Boot-time clock: goes on during suspend.
    pub boot: Mono,
}

/// Tells the time and does nothing else. Waiting uses the runtime's own timers.
pub trait Clock: Send + Sync + 'static {
    /// Reads the three clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            wall: Wall(read(ClockId::Realtime)),
            mono: forward(ClockId::Monotonic),
            boot: forward(ClockId::Boottime),
        }
    }
}

fn read(id: ClockId) -> i64 {
    let at = clock_gettime(id);
    at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000)
}

fn forward(id: ClockId) -> Mono {
    Mono(u64::try_from(read(id)).unwrap_or(0))
}

fn millis(of: Duration) -> i64 {
    i64::try_from(of.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_before_the_epoch_rounds_down_to_whole_seconds() {
        assert_eq!(Wall::from_millis(-1).as_secs(), -1);
        assert_eq!(Wall::from_millis(1_999).as_secs(), 1);
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_no_time() {
        assert_eq!(Wall::from_secs(5).saturating_since(Wall::from_secs(6)), Duration::ZERO);
        assert_eq!(Mono::from_millis(5).saturating_since(Mono::from_millis(6)), Duration::ZERO);
    }

    #[test]
    fn the_system_clocks_advance_and_wall_time_is_after_2020() {
        let (a, b) = (SystemClock.now(), SystemClock.now());
        assert!(b.mono >= a.mono && b.boot >= a.boot);
        assert!(a.wall > Wall::from_secs(1_577_836_800));
    }
}
