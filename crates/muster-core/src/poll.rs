//! Duration of long polls (EA §4.3).

use std::time::Duration;

/// Margin that is subtracted from the poll timeout that a client requests, so that the response arrives before the
/// client gives up.
const CLIENT_MARGIN: Duration = Duration::from_secs(120);
/// Minimum poll duration for clients that request one.
const MIN_REQUESTED: Duration = Duration::from_secs(60);
/// Poll duration if preparing the response took longer than the poll. Not zero, so that the poll still goes through the
/// timer.
const SHORTEST: Duration = Duration::from_millis(1);

/// Settings of long polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollLimits {
    /// Default duration.
    pub default: Duration,
    /// Maximum that a client can request.
    pub max: Duration,
    /// Maximum of the random part that is subtracted.
    pub jitter: Duration,
}

/// Error for an invalid Go duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("poll_timeout cannot be parsed as a duration")]
pub struct BadDuration;

impl PollLimits {
    /// Returns how long to hold the poll. A requested timeout `t` becomes max(min(t − 2 min, max), 1 min) (EA68). The
    /// time already spent on the request is subtracted, then a random part, if that is less than the rest (EA67).
    /// `random` is a uniformly distributed number.
    pub fn duration(&self, requested: Option<GoDuration>, spent: Duration, random: u64) -> Duration {
        let whole = match requested {
            // Go clients send zero for an unset duration, so it means the default and not the minimum.
            Some(requested) if requested.nanos != 0 => {
                // The minimum comes last: a client that requests less than three minutes still gets one minute.
                requested.to_std().saturating_sub(CLIENT_MARGIN).min(self.max).max(MIN_REQUESTED)
            }
            _ => self.default,
        };
        let left = whole.saturating_sub(spent).max(SHORTEST);
        let jitter = random_below(self.jitter, random);
        // Jitter longer than the rest would end the poll at once, and the agent would poll again within a second.
        if jitter < left { left - jitter } else { left }
    }
}

fn random_below(bound: Duration, random: u64) -> Duration {
    let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    // Multiply and shift instead of a remainder: no bias, and no division.
    let scaled = (u128::from(bound) * u128::from(random)) >> 64;
    Duration::from_micros(u64::try_from(scaled).unwrap_or(bound))
}

/// Go duration: `5m`, `1h30m`, `-1.5s`, `250ms`. Agents are written in Go and send the output of its formatter (EA53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration {
    /// Nanoseconds; may be negative.
    pub nanos: i64,
}

impl GoDuration {
    /// Converts to a standard duration; negative values become zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }

    /// Parses a sequence of decimal numbers with units (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`), or `0`.
    pub fn parse(text: &str) -> Result<Self, BadDuration> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self { nanos: 0 });
        }
        if rest.is_empty() {
            return Err(BadDuration);
        }
        // In 128 bits: single elements can exceed 64 bits, and the sum is checked after each one.
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (nanos, after) = element(rest)?;
            (total, rest) = (total + nanos, after);
            if total > i128::from(i64::MAX) {
                return Err(BadDuration);
            }
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).map(|nanos| Self { nanos }).map_err(|_| BadDuration)
    }
}

/// Parses one number with its unit; returns its nanoseconds and the rest of the text.
fn element(text: &str) -> Result<(i128, &str), BadDuration> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    // 19 digits times the nanoseconds of an hour still fit into 128 bits.
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
        return Err(BadDuration);
    }
    // The unit ends where the next number begins, which can begin with a point (`1m.5s`).
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let unit = unit_nanos(&rest[..end]).ok_or(BadDuration)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| BadDuration)? };
    Ok((whole * unit + fraction_nanos(fraction, unit), &rest[end..]))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Returns the nanoseconds of a decimal fraction. Digits after the fifteenth are ignored: for every unit up to an hour
/// they amount to less than a nanosecond.
fn fraction_nanos(fraction: &str, unit: i128) -> i128 {
    let kept = &fraction[..fraction.len().min(15)];
    let scale = 10_i128.pow(kept.len() as u32);
    kept.parse::<i128>().map_or(0, |digits| digits * unit / scale)
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // Go accepts both the micro sign (U+00B5) and the Greek letter mu (U+03BC).
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const LIMITS: PollLimits = PollLimits {
        default: Duration::from_secs(300),
        max: Duration::from_secs(3600),
        jitter: Duration::from_secs(30),
    };

    fn nanos(text: &str) -> Option<i64> {
        GoDuration::parse(text).ok().map(|duration| duration.nanos)
    }

    #[test]
    fn ea53_go_durations_are_parsed_and_others_rejected() {
        assert_eq!(nanos("5m"), Some(300_000_000_000));
        assert_eq!(nanos("1h2m3.5s"), Some(3_723_500_000_000));
        assert_eq!(nanos("-90s"), Some(-90_000_000_000));
        assert_eq!(nanos("+.5s"), Some(500_000_000));
        assert_eq!(nanos("1.s"), Some(1_000_000_000));
        assert_eq!(nanos("250ms"), Some(250_000_000));
        assert_eq!(nanos("3µs2us1ns"), Some(5_001));
        assert_eq!(nanos("0"), Some(0));
        assert_eq!(nanos("0s"), Some(0));
        for bad in ["", "+", "-", "5", "m", ".", ".s", "5 m", "5x", "5m ", "1e3s", "300000000h", "--5m", "5m-3s"] {
            assert_eq!(nanos(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ea67_default_poll_is_five_minutes_less_the_jitter() {
        assert_eq!(LIMITS.duration(None, Duration::ZERO, 0), 5 * MINUTE);
        let least = LIMITS.duration(None, Duration::ZERO, u64::MAX);
        assert!(least > Duration::from_secs(270) - Duration::from_millis(1) && least < Duration::from_secs(271));
        let zero = GoDuration { nanos: 0 };
        assert_eq!(LIMITS.duration(Some(zero), Duration::ZERO, 0), 5 * MINUTE);
    }

    #[test]
    fn ea68_requested_poll_is_clamped() {
        let poll = |requested| LIMITS.duration(Some(GoDuration::parse(requested).unwrap()), Duration::ZERO, 0);
        assert_eq!(poll("5m"), 3 * MINUTE);
        assert_eq!(poll("150s"), MINUTE);
        assert_eq!(poll("1s"), MINUTE);
        assert_eq!(poll("-5m"), MINUTE);
        assert_eq!(poll("24h"), 60 * MINUTE);
    }

    #[test]
    fn ea67_time_spent_is_subtracted_and_jitter_never_exceeds_the_rest() {
        assert_eq!(LIMITS.duration(None, MINUTE, 0), 4 * MINUTE);
        assert_eq!(LIMITS.duration(None, 10 * MINUTE, u64::MAX), SHORTEST);
    }

    proptest! {
        #[test]
        fn ea67_every_poll_is_within_the_limits(requested in any::<Option<i64>>(), spent in 0_u64..1_000, random in any::<u64>()) {
            let requested = requested.map(|nanos| GoDuration { nanos });
            let poll = LIMITS.duration(requested, Duration::from_secs(spent), random);
            prop_assert!(poll >= SHORTEST && poll <= LIMITS.max);
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in any::<String>()) {
            let _ = GoDuration::parse(&text);
        }

        #[test]
        fn whole_seconds_are_parsed_exactly(seconds in 0_i64..9_000_000_000) {
            prop_assert_eq!(nanos(&format!("{seconds}s")), Some(seconds * 1_000_000_000));
        }
    }
}
