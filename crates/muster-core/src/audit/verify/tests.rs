//! Exports of two chains, which are then changed in every way.

use proptest::prelude::*;

use super::super::export::Writer;
use super::*;
use crate::hex;
use crate::signing::Signer;
use crate::time::Timestamp;

/// Texts of events that an export must keep as they are: JSON, and what a corrupt store may contain.
const TEXTS: [&str; 4] = [r#"{"at":1,"actor":"ü \u0000"}"#, r#"{"a": [1,  2]}"#, "not JSON", "{\"a\":\n1}"];

struct Log {
    name: &'static str,
    events: Vec<(i64, String, [u8; 32])>,
}

fn log(name: &'static str, texts: impl IntoIterator<Item = String>) -> Log {
    let mut hash = chain_start(name);
    let events = (1..).zip(texts).map(|(position, text)| {
        hash = super::super::chain_hash(&hash, text.as_bytes());
        (position, text, hash)
    });
    Log { name, events: events.collect() }
}

/// Two chains; the last event of the second one seals the first.
fn logs() -> Vec<Log> {
    let first = log("a", TEXTS.map(str::to_owned));
    let head = |log: &Log| log.events.last().map(|(position, _, hash)| ChainHead::new(log.name, *position, hash));
    let seal = AuditEvent::seal(Timestamp::from_micros(5), "b", &head(&first).into_iter().collect::<Vec<_>>());
    let second = ["{}".to_owned(), serde_json::to_string(&seal).unwrap()];
    vec![first, log("b", second)]
}

fn signer() -> Signer {
    Signer::generate().unwrap().0
}

/// Exports the events after a position of each chain.
fn export(logs: &[Log], after: i64, signer: &Signer) -> Vec<u8> {
    export_of(logs, after, signer, None)
}

/// Whether the event at a position of a chain belongs to the space.
type Shows<'s> = &'s dyn Fn(&str, i64) -> bool;

/// Exports the events that belong to a space.
fn export_of(logs: &[Log], after: i64, signer: &Signer, shows: Option<Shows<'_>>) -> Vec<u8> {
    let part = |log: &Log| {
        let before = log.events.iter().find(|(position, ..)| *position == after);
        let hash = before.map_or_else(|| chain_start(log.name), |(_, _, hash)| *hash);
        let last = log.events.last().map_or(0, |(position, ..)| *position);
        Part { chain: log.name.into(), after, hash: hex::encode(&hash), last }
    };
    let header = Header {
        format: FORMAT.into(),
        fleet: "fleet".into(),
        space: shows.map(|_| "blue".into()),
        created_at: "2026-01-02T03:04:05Z".into(),
        since: (after > 0).then(|| "2026-01-01T00:00:00Z".into()),
        until: None,
        public_key: signer.public_key().into(),
        fingerprint: fingerprint(signer.public_key()).unwrap(),
        chains: logs.iter().map(part).collect(),
    };
    let (mut writer, mut file) = Writer::begin(&header).unwrap();
    for log in logs {
        for (position, text, hash) in log.events.iter().filter(|(position, ..)| *position > after) {
            match shows.is_none_or(|shows| shows(log.name, *position)) {
                true => file += &writer.event(log.name, *position, text, hash).unwrap(),
                false => writer.withhold(log.name, *position, hash),
            }
        }
        file += &writer.flush().unwrap();
    }
    (file + &writer.end(signer).unwrap()).into_bytes()
}

fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn verify_with(file: &[u8], key: Option<&str>) -> Result<Verified, FileDefect> {
    let (mut verifier, mut seals) = (Verifier::new(key.map(str::to_owned)), Seals::default());
    for line in lines(file) {
        verifier.line(&line)?;
        seals.collect(&line);
    }
    let verified = verifier.end()?;
    for (number, line) in (1..).zip(lines(file)) {
        seals.compare(number, &line)?;
    }
    seals.end(&verified, lines(file).len() as u64)?;
    Ok(verified)
}

fn defect(lines: &[Vec<u8>]) -> FileDefect {
    verify_with(&lines.concat(), None).expect_err("the change was not found")
}

fn place(chain: &str, position: i64) -> Option<(String, i64)> {
    Some((chain.to_owned(), position))
}

#[test]
fn m25_an_export_of_a_space_withholds_other_events_and_is_verified() {
    let (logs, signer) = (logs(), signer());
    let file = export_of(&logs, 0, &signer, Some(&|chain, position| chain == "a" && position == 2));
    let text = String::from_utf8(file.clone()).unwrap();
    assert!(!text.contains("not JSON") && text.contains("\"withheld\":2"), "{text}");
    let verified = verify_with(&file, None).unwrap();
    assert_eq!((verified.events, verified.heads.len(), verified.header.space.as_deref()), (1, 2, Some("blue")));
    assert_eq!(verified.heads, verify_with(&export(&logs, 0, &signer), None).unwrap().heads);
    let lines = lines(&file);
    for line in 1..lines.len() - 1 {
        let mut without = lines.clone();
        without.remove(line);
        defect(&without);
        for byte in 0..lines[line].len() {
            let mut changed = lines.clone();
            changed[line][byte] ^= 1;
            defect(&changed);
        }
    }
    for none in [&(|_: &str, _| false) as Shows<'_>, &|_, _| true] {
        verify_with(&export_of(&logs, 0, &signer, Some(none)), None).unwrap();
    }
}

#[test]
fn m25_an_export_is_verified_with_its_own_key_only() {
    let (logs, signer) = (logs(), signer());
    let file = export(&logs, 0, &signer);
    let verified = verify_with(&file, None).unwrap();
    assert_eq!((verified.events, verified.heads.len(), verified.header.fleet.as_str()), (6, 2, "fleet"));
    let print = fingerprint(signer.public_key()).unwrap();
    for key in [signer.public_key(), &print, &print.to_uppercase()] {
        assert_eq!(verify_with(&file, Some(key)).unwrap(), verified);
    }
    let other = self::signer();
    let refused = verify_with(&file, Some(other.public_key())).unwrap_err();
    assert!(matches!(refused.fault, FileFault::Key(found) if found == print));
    // Everything is consistent, but signed with a key that is not the fleet's.
    assert!(verify_with(&export(&logs, 0, &other), Some(&print)).is_err());
}

#[test]
fn a_part_of_each_chain_is_verified() {
    let (logs, signer) = (logs(), signer());
    let verified = verify_with(&export(&logs, 1, &signer), None).unwrap();
    assert_eq!((verified.events, verified.heads.len()), (4, 2));
    // All events of `b` are before this position: its part is empty.
    let logs = [log("a", TEXTS.map(str::to_owned)), log("b", ["{}".to_owned(), "{}".to_owned()])];
    assert_eq!(verify_with(&export(&logs, 2, &signer), None).unwrap().events, 2);
    assert_eq!(verify_with(&export(&[], 0, &signer), None).unwrap().events, 0);
}

proptest! {
    #[test]
    fn m25_any_flipped_byte_is_found_at_its_line(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut file = export(&logs(), 0, &signer());
        let at = at.index(file.len());
        let line = 1 + file[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
        file[at] ^= flip;
        let found = verify_with(&file, None).expect_err("a flipped byte was not found");
        prop_assert_eq!(found.line, line, "{}", found);
    }

    #[test]
    fn m25_any_truncation_is_found(at in any::<prop::sample::Index>()) {
        let file = export(&logs(), 0, &signer());
        prop_assert!(verify_with(&file[..at.index(file.len())], None).is_err());
    }
}

#[test]
fn m25_a_hash_in_capitals_is_found_at_its_line() {
    let file = export(&logs(), 0, &signer());
    let begin = file.windows(8).rposition(|part| part == b"\"hash\":\"").unwrap() + 8;
    let letter = begin + file[begin..].iter().position(u8::is_ascii_lowercase).unwrap();
    let mut changed = file.clone();
    changed[letter] = changed[letter].to_ascii_uppercase();
    let line = 1 + file[..letter].iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(verify_with(&changed, None).unwrap_err().line, line);
}

#[test]
fn m25_removed_repeated_reordered_and_inserted_lines_are_found() {
    let whole = lines(&export(&logs(), 0, &signer()));
    assert_eq!(whole.len(), 8);
    for at in 0..whole.len() {
        let mut removed = whole.clone();
        removed.remove(at);
        let found = defect(&removed);
        assert_eq!(found.line, at as u64 + 1, "without line {}: {found}", at + 1);
        let mut repeated = whole.clone();
        repeated.insert(at, whole[at].clone());
        assert_eq!(defect(&repeated).line, at as u64 + 2, "line {} twice", at + 1);
        for other in at + 1..whole.len() {
            let mut moved = whole.clone();
            moved.swap(at, other);
            assert_eq!(defect(&moved).line, at as u64 + 1, "lines {} and {}", at + 1, other + 1);
        }
    }
    let mut removed = whole.clone();
    removed.remove(2);
    let found = defect(&removed);
    assert!(matches!(found.fault, FileFault::Event(ChainFault::Missing)), "{found}");
    assert_eq!((found.line, found.place), (3, place("a", 2)));
    let mut inserted = whole.clone();
    let own = br#"{"chain":"a","position":2,"hash":"00","event":{}}"#;
    inserted.insert(2, [own.as_slice(), b"\n"].concat());
    let found = defect(&inserted);
    assert_eq!((found.line, found.place), (3, place("a", 2)));
}

#[test]
fn m25_a_chain_that_was_rewritten_before_the_export_is_found_by_its_seal() {
    let mut logs = logs();
    logs[0] = log("a", ["{}", "{}", "{}", "{}"].map(str::to_owned));
    let found = verify_with(&export(&logs, 0, &signer()), None).unwrap_err();
    assert!(matches!(found.fault, FileFault::Event(ChainFault::Sealed)), "{found}");
    assert_eq!((found.line, found.place), (5, place("a", 4)));
    logs[0].events.truncate(3);
    assert_eq!(verify_with(&export(&logs, 0, &signer()), None).unwrap_err().place, place("a", 4));
    logs.remove(0);
    assert_eq!(verify_with(&export(&logs, 0, &signer()), None).unwrap_err().place, place("a", 4));
}

#[test]
fn m25_events_that_were_replaced_with_fitting_hashes_are_found() {
    let (logs, signer) = (logs(), signer());
    let whole = lines(&export(&logs, 0, &signer));
    let forged = [log("a", TEXTS.map(str::to_owned)), log("b", ["{}", "{}"].map(str::to_owned))];
    let mut other = lines(&export(&forged, 0, &signer));
    other[7].clone_from(&whole[7]);
    let found = defect(&other);
    assert!(matches!(found.fault, FileFault::Lines), "{found}");
}

#[test]
fn a_file_of_another_program_is_no_export() {
    for file in ["", "\n", "{}\n", "GIF89a", "{\"header\":{},\"sha256\":\"\"}\n"] {
        assert_eq!(verify_with(file.as_bytes(), None).unwrap_err().line, 1, "{file}");
    }
}
