//! Ids and timestamps as strings.

use muster_core::id::{AgentId, MAX_ID_BYTES};
use muster_core::time::Timestamp;
use proptest::prelude::*;

proptest! {
    #[test]
    fn accepted_ids_are_safe_in_paths_and_log_lines(text in any::<String>()) {
        if let Ok(id) = AgentId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!((1..=MAX_ID_BYTES).contains(&text.len()) && text != "." && text != "..");
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"/\\?#%\"".contains(&b)));
        }
    }

    #[test]
    fn common_ids_are_accepted(text in "[a-zA-Z0-9_.:~-]{3,128}") {
        prop_assert!(AgentId::parse(&text).is_ok());
    }

    #[test]
    fn ea124_timestamps_round_trip(micros in -2_000_000_000_000_000_i64..250_000_000_000_000_000) {
        let time = Timestamp::from_micros(micros);
        let printed = Timestamp::parse_rfc3339(&time.to_rfc3339_millis()).unwrap();
        prop_assert!(time.since(printed).as_micros() < 1000 && printed.since(time).as_micros() < 1000);
        let seconds = Timestamp::parse_rfc3339(&time.to_rfc3339_seconds()).unwrap();
        prop_assert_eq!(seconds.as_micros() % 1_000_000, 0);
    }

    #[test]
    fn ea124_offsets_are_converted_to_utc(seconds in 0_i64..4_000_000_000, hours in -12_i64..13, fraction in 0_u32..1_000_000) {
        let local = Timestamp::from_micros((seconds + hours * 3600) * 1_000_000).to_rfc3339_seconds();
        let text = format!("{}.{fraction:06}{hours:+03}:00", local.trim_end_matches('Z'));
        let parsed = Timestamp::parse_rfc3339(&text).unwrap();
        prop_assert_eq!(parsed.as_micros(), seconds * 1_000_000 + i64::from(fraction), "{}", text);
    }

    #[test]
    fn any_text_is_parsed_without_a_panic(text in any::<String>()) {
        let _ = Timestamp::parse_rfc3339(&text);
    }
}
