//! Seeds and findings through the parsers, without a fuzzer.

#![allow(clippy::unwrap_used, reason = "a test that can't read its files has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one input may take, in a build without optimisation on a busy machine.
const LONGEST: Duration = Duration::from_secs(5);

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_seeds_and_every_seed_a_target() {
    let targets: BTreeSet<_> = muster_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&directory("seeds")), targets);
    for target in &targets {
        assert!(!names(&directory("seeds").join(target)).is_empty(), "{target} has no seeds");
    }
}

#[test]
fn seeds_and_findings_do_no_harm() {
    for kind in ["seeds", "findings"] {
        for (name, target) in muster_fuzz::TARGETS {
            let inputs = directory(kind).join(name);
            for input in names(&inputs) {
                let bytes = std::fs::read(inputs.join(&input)).unwrap();
                let began = Instant::now();
                target(&bytes);
                assert!(began.elapsed() < LONGEST, "{kind}/{name}/{input} took {:?}", began.elapsed());
            }
        }
    }
}

/// Every seed cut short at many places, and with bits flipped.
#[test]
fn broken_seeds_do_no_harm() {
    for (name, target) in muster_fuzz::TARGETS {
        for bytes in seeds(name) {
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

/// A small fuzzer of our own: a second for each target, from the same start each time.
#[test]
fn a_second_of_changes_does_no_harm() {
    for (name, target) in muster_fuzz::TARGETS {
        let seeds = seeds(name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(6) {
                change(&mut bytes, &mut random, &seeds);
            }
            target(&bytes);
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let inputs = directory("seeds").join(name);
    names(&inputs).iter().map(|input| std::fs::read(inputs.join(input)).unwrap()).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8).unwrap() % bound.max(1)
    }
}

/// One change: a byte set, a piece removed, repeated, or taken from another seed.
fn change(bytes: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>]) {
    let at = random.below(bytes.len());
    let end = bytes.len().min(at + 1 + random.below(16));
    match random.below(4) {
        0 if at < bytes.len() => bytes[at] = b"\0\"{}[]\\:,-9\xff\xc3 \n"[random.below(15)],
        1 => drop(bytes.drain(at..end)),
        2 => {
            let piece = bytes[at..end].repeat(1 + random.below(40));
            bytes.splice(at..at, piece);
        }
        _ => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let to = other.len().min(from + 1 + random.below(64));
            bytes.splice(at..at, other[from..to].iter().copied());
        }
    }
}
