//! Civil time: what validity, schedules and retention go by. It is an argument everywhere in this crate; servers get it
//! from one [`Clock`] that tests move. Deadlines and time-outs use monotonic time instead, and none of this.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A point in civil time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

impl Time {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time and `duration` more; the latest time there is if that overflows.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This time less `duration`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; nothing if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Year and month in UTC.
    pub fn year_and_month(self) -> (i64, i64) {
        let (year, month, ..) = self.civil();
        (year, month)
    }

    /// The same day and time of day so many calendar months later, in UTC; the last day of that month where it has no such
    /// day (BGB § 188 (3)).
    #[must_use]
    pub fn plus_months(self, months: u32) -> Self {
        let (year, month, day, ..) = self.civil();
        let month = year * 12 + month - 1 + i64::from(months);
        let first = days_before(month.div_euclid(12), month.rem_euclid(12) + 1);
        let next = days_before((month + 1).div_euclid(12), (month + 1).rem_euclid(12) + 1);
        let days = first + (day - 1).min(next - first - 1);
        Self(days.saturating_mul(DAY).saturating_add(self.0.rem_euclid(DAY)))
    }

    /// The first instant of this month, in UTC.
    #[must_use]
    pub fn start_of_month(self) -> Self {
        let (year, month, ..) = self.civil();
        Self(days_before(year, month).saturating_mul(DAY))
    }

    /// Year, month, day, hour, minute, second in UTC (proleptic Gregorian).
    fn civil(self) -> (i64, i64, i64, i64, i64, i64) {
        let (days, second) = (self.as_secs().div_euclid(86_400), self.as_secs().rem_euclid(86_400));
        // Days are counted from 0000-03-01, so that the leap day is the last of its year.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month, day, second / 3_600, second / 60 % 60, second % 60)
    }
}

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// Days from 1970 to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last of one.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 - 719_468
}

/// RFC 3339 in UTC, with milliseconds.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.civil();
        let millis = self.0.rem_euclid(1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({self})")
    }
}

/// A wait that ends by the civil clock.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The one source of civil time of a server.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Time;

    /// Ends when this clock shows `time` or later, also when the clock is moved there.
    fn sleep_until(&self, time: Time) -> Sleep;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_288_440_005, "2026-11-21T19:14:00.005Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Time::from_millis(millis).to_string(), text);
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        for (from, months, to) in [
            ("2026-11-21T10:30:00.000Z", 24, "2028-11-21T10:30:00.000Z"),
            ("2026-11-30T00:00:00.001Z", 3, "2027-02-28T00:00:00.001Z"),
            ("2027-11-30T00:00:00.000Z", 3, "2028-02-29T00:00:00.000Z"),
            ("2028-02-29T23:59:59.999Z", 12, "2029-02-28T23:59:59.999Z"),
            ("2026-12-31T00:00:00.000Z", 1, "2027-01-31T00:00:00.000Z"),
            ("2026-08-31T00:00:00.000Z", 0, "2026-08-31T00:00:00.000Z"),
        ] {
            // Times are found by what they show: whatever counts days the other way must agree.
            let time = |text: &str| {
                let (mut low, mut high) = (0_i64, 4_000_000_000_000);
                while low < high {
                    let middle = low.midpoint(high);
                    if *Time(middle).to_string() < *text { low = middle + 1 } else { high = middle }
                }
                Time(low)
            };
            assert_eq!(time(from).plus_months(months).to_string(), to);
        }
        let time = Time::from_millis(1_795_288_440_005);
        assert_eq!(time.start_of_month().to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(Time::from_millis(-1).start_of_month().to_string(), "1969-12-01T00:00:00.000Z");
    }

    #[test]
    fn arithmetic_does_not_wrap() {
        let last = Time::from_millis(i64::MAX);
        assert_eq!(last.plus(Duration::MAX), last);
        assert_eq!(Time::default().since(last), Duration::ZERO);
    }
}
