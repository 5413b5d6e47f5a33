//! Duration of polls (EA §4.3), and Go durations.

use std::time::Duration;

use muster_core::poll::{GoDuration, PollLimits};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

prop_compose! {
    fn limits()(default in 60_u64..600, max in 60_u64..7200, jitter in 0_u64..60) -> PollLimits {
        let [default, max, jitter] = [default, max, jitter].map(Duration::from_secs);
        PollLimits { default, max, jitter }
    }
}

fn requested(seconds: i64) -> Option<GoDuration> {
    Some(GoDuration { nanos: seconds * 1_000_000_000 })
}

proptest! {
    /// By the definition: max(min(t − 2 min, max), 1 min) minus the time spent.
    #[test]
    fn ea68_requested_poll_is_reduced_by_two_minutes_and_clamped(
        limits in limits(), seconds in 1_i64..20_000, spent in 0_u64..50,
    ) {
        let expected = Duration::from_secs(seconds.unsigned_abs()).saturating_sub(2 * MINUTE).min(limits.max).max(MINUTE);
        let spent = Duration::from_secs(spent);
        prop_assert_eq!(limits.duration(requested(seconds), spent, 0), expected - spent);
    }

    #[test]
    fn ea68_a_longer_requested_poll_is_never_shorter(
        limits in limits(), short in 1_i64..20_000, more in 0_i64..20_000, random in any::<u64>(),
    ) {
        // The limits keep every poll longer than the jitter, which would otherwise be skipped for the shorter poll
        // only.
        let [short, long] = [short, short + more].map(|it| limits.duration(requested(it), Duration::ZERO, random));
        prop_assert!(short <= long);
    }

    #[test]
    fn ea67_jitter_only_shortens_the_poll_and_is_bounded(limits in limits(), random in any::<u64>()) {
        let whole = limits.duration(None, Duration::ZERO, 0);
        let poll = limits.duration(None, Duration::ZERO, random);
        prop_assert!(poll <= whole && whole - poll <= limits.jitter);
    }

    #[test]
    fn ea67_time_spent_never_makes_a_poll_longer(limits in limits(), spent in 0_u64..1000, more in 0_u64..1000) {
        let [less, more] = [spent, spent + more].map(|it| limits.duration(None, Duration::from_secs(it), 0));
        prop_assert!(more <= less && !more.is_zero());
    }

    #[test]
    fn ea53_a_duration_is_the_sum_of_its_elements(
        hours in 0_i64..1000, minutes in 0_i64..1000, seconds in 0_i64..1000, millis in 0_i64..1000, negative in any::<bool>(),
    ) {
        let sign = if negative { "-" } else { "" };
        let parsed = GoDuration::parse(&format!("{sign}{hours}h{minutes}m{seconds}.{millis:03}s")).unwrap();
        let nanos = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + millis * 1_000_000;
        prop_assert_eq!(parsed.nanos, if negative { -nanos } else { nanos });
        prop_assert_eq!(parsed.to_std().is_zero(), negative || nanos == 0);
    }

    #[test]
    fn ea53_a_number_without_a_unit_is_rejected(number in "[1-9][0-9]{0,6}") {
        prop_assert!(GoDuration::parse(&number).is_err());
        let padded = format!("{number}s ");
        prop_assert!(GoDuration::parse(&padded).is_err());
    }
}
