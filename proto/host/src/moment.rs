//! Points in time as people write them on a command line: a day, or a day and a time of day, in UTC.

use std::str::FromStr;

use trave_proto::clock::Time;

/// A point in time, RFC 3339 in UTC; the time of day may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Time);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
        let moment = days(day).zip(millis(time)).map(|(days, millis)| days * 86_400_000 + millis);
        moment
            .map(|millis| Self(Time::from_millis(millis)))
            .ok_or("is no time in UTC; write 2026-11-21 or 2026-11-21T10:30:00Z")
    }
}

/// Days since 1970, if it is a day of the calendar.
fn days(text: &str) -> Option<i64> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of one.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

fn millis(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    if hour > 23 || minute > 59 || second > 59 || !digits || fraction.is_empty() {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<3}").parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1000 + fraction)
}

fn numbers(text: &str, separator: char, lengths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut found = [0; 3];
    for (number, length) in found.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_house_prints_reads_back() {
        for millis in [0, 951_782_400_000, 1_795_288_440_123, 4_102_444_799_999] {
            let time = Time::from_millis(millis);
            assert_eq!(time.to_string().parse(), Ok(Moment(time)));
        }
        assert_eq!("2026-11-21".parse::<Moment>().unwrap().0.to_string(), "2026-11-21T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-02-29",
            "2026-13-01",
            "26-11-21",
            "2026-11-21T25:00:00Z",
            "2026-11-21T10:30:00",
            "+026-11-21",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
