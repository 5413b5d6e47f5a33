//! Seeds and findings through the parsers, without a fuzzer.

#![allow(clippy::unwrap_used, reason = "a test that can't read its files has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one input may take, in a build without optimisation on a busy machine.
const LONGEST: Duration = Duration::from_secs(5);

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_seeds_and_every_seed_a_target() {
    let targets: BTreeSet<_> = muster_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("seeds")), targets);
    for target in &targets {
        assert!(!names(&folder("seeds").join(target)).is_empty(), "{target} has no seeds");
    }
}

#[test]
fn seeds_and_findings_do_no_harm() {
    for kind in ["seeds", "findings"] {
        for (name, target) in muster_fuzz::TARGETS {
            let inputs = folder(kind).join(name);
            for input in names(&inputs) {
                let bytes = std::fs::read(inputs.join(&input)).unwrap();
                let began = Instant::now();
                target(&bytes);
                assert!(began.elapsed() < LONGEST, "{kind}/{name}/{input} took {:?}", began.elapsed());
            }
        }
    }
}

/// Every seed with a byte changed, and cut short: a small fuzzer of our own for those who have none.
#[test]
fn broken_seeds_do_no_harm() {
    for (name, target) in muster_fuzz::TARGETS {
        let inputs = folder("seeds").join(name);
        for input in names(&inputs) {
            let bytes = std::fs::read(inputs.join(&input)).unwrap();
            let step = (bytes.len() / 64).max(1);
            for at in (0..bytes.len()).step_by(step) {
                target(&bytes[..at]);
                for change in [0x01, 0x20, 0x80] {
                    let mut broken = bytes.clone();
                    broken[at] ^= change;
                    target(&broken);
                }
            }
        }
    }
}
