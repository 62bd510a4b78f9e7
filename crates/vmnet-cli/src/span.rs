//! Spans of time as people write and read them: `90s`, `1h30m`, `in 23h59m`, `3d ago`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// A span of whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) seconds: u64,
}

/// A text is no span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("say how long with a unit, like 90s, 30m, 12h, 1h30m or 7d")]
pub(crate) struct ParseSpanError;

impl Span {
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self { seconds }
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_secs(span.seconds)
    }
}

/// Numbers with a unit each, the largest first. A number alone is seconds.
impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        if let Some(seconds) = number(text) {
            return Ok(Self { seconds });
        }
        let mut seconds: u64 = 0;
        let mut above = u64::MAX;
        let mut rest = text;
        while !rest.is_empty() {
            let at = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or(ParseSpanError)?;
            let (digits, more) = rest.split_at(at);
            let mut letters = more.chars();
            let unit = match letters.next() {
                Some('s') => 1,
                Some('m') => MINUTE,
                Some('h') => HOUR,
                Some('d') => DAY,
                Some('w') => WEEK,
                _ => return Err(ParseSpanError),
            };
            if unit >= above {
                return Err(ParseSpanError);
            }
            above = unit;
            rest = letters.as_str();
            seconds = number(digits)
                .and_then(|count| count.checked_mul(unit))
                .and_then(|part| seconds.checked_add(part))
                .ok_or(ParseSpanError)?;
        }
        if text.is_empty() {
            return Err(ParseSpanError);
        }
        Ok(Self { seconds })
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// The two largest units.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds;
        let (unit, name, below, below_name) = match seconds {
            0..MINUTE => return write!(f, "{seconds}s"),
            MINUTE..HOUR => (MINUTE, "m", 1, "s"),
            HOUR..DAY => (HOUR, "h", MINUTE, "m"),
            _ => (DAY, "d", HOUR, "h"),
        };
        write!(f, "{}{name}", seconds / unit)?;
        match seconds % unit / below {
            0 => Ok(()),
            more => write!(f, "{more}{below_name}"),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A time in seconds since 1970, seen from now.
pub(crate) fn seen_from(now: u64, time: u64) -> String {
    if time > now {
        format!("in {}", Span::seconds(time - now))
    } else {
        format!("{} ago", Span::seconds(now - time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [
            ("90s", 90),
            ("90", 90),
            ("0", 0),
            ("30m", 1800),
            ("1h30m", 5400),
            ("1w2d", 9 * DAY),
            ("1d1h1m1s", DAY + HOUR + MINUTE + 1),
        ] {
            assert_eq!(text.parse(), Ok(Span { seconds }), "{text}");
        }
        for bad in [
            "",
            "s",
            "1x",
            "1h2",
            "1m1h",
            "1h1h",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "ä",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert_eq!(bad.parse::<Span>(), Err(ParseSpanError), "{bad}");
        }
    }

    #[test]
    fn spans_are_shown() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (3600, "1h"),
            (86_399, "23h59m"),
            (86_400, "1d"),
            (8 * DAY + HOUR, "8d1h"),
        ] {
            assert_eq!(Span { seconds }.to_string(), text);
        }
        assert_eq!(seen_from(100, 160), "in 1m");
        assert_eq!(seen_from(160, 100), "1m ago");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(seconds in 0..DAY) {
            let shown = Span { seconds }.to_string();
            let read: Span = shown.parse().unwrap();
            prop_assert!(read.seconds <= seconds && seconds - read.seconds < MINUTE);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,12}") {
            let _either = text.parse::<Span>();
        }
    }
}
