//! Dates as the directory writes them.

use x509_parser::time::ASN1Time;

/// The last second that dates here can say: 9999-12-31T23:59:59Z.
pub(crate) const LAST_SECOND: i64 = 253_402_300_799;

/// `2026-01-01T00:00:00Z`
pub(crate) fn date(seconds: i64) -> String {
    let Some((year, month, day, time)) = parts(seconds) else { return String::new() };
    format!("{year:04}-{month:02}-{day:02}T{time}Z")
}

/// `2026-01-01 00:00:00Z`
pub(crate) fn timestamp(seconds: i64) -> String {
    date(seconds).replace('T', " ")
}

/// `01/31/2026 00:00:00`
pub(crate) fn american(seconds: i64) -> String {
    let Some((year, month, day, time)) = parts(seconds) else { return String::new() };
    format!("{month:02}/{day:02}/{year:04} {time}")
}

fn parts(seconds: i64) -> Option<(i32, u8, u8, String)> {
    let at = ASN1Time::from_timestamp(seconds.clamp(-LAST_SECOND, LAST_SECOND)).ok()?.to_datetime();
    let time = format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    Some((at.year(), at.month().into(), at.day(), time))
}

/// Whole seconds of a date such as `2026-01-01T00:00:00Z`.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days from civil, with the year starting in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = y.div_euclid(400);
    let days = era * 146_097 + (y.rem_euclid(400)) * 365 + y.rem_euclid(400) / 4 - y.rem_euclid(400) / 100
        + (153 * m + 2) / 5
        + day
        - 1
        - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_survive_both_ways() {
        for at in [0, 951_782_400, 1_767_225_600, 1_798_761_599] {
            assert_eq!(seconds(&date(at)), Some(at), "{}", date(at));
        }
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn a_date_is_written_in_three_ways() {
        assert_eq!(date(1_767_225_600), "2026-01-01T00:00:00Z");
        assert_eq!(timestamp(1_767_225_600), "2026-01-01 00:00:00Z");
        assert_eq!(american(1_769_817_600), "01/31/2026 00:00:00");
        assert_eq!(date(i64::MAX), date(LAST_SECOND));
    }
}
