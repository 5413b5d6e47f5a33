//! `cargo xtask tidy`: the measures of the house, reported beside their aims, and the hard stops, enforced.

mod function;
mod repository;
mod source;

use std::path::Path;

use crate::shell;
use source::Source;

/// A test stands outside of product code when its folder or file says so.
const TEST_PLACES: [&str; 3] = ["tests", "benches", "fuzz"];

/// Measures the tree; fails on a hard stop.
pub fn run() -> anyhow::Result<()> {
    let sources = shell::sources()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| Source::read(&path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    report(&sources);
    let mut stops: Vec<_> = sources.iter().flat_map(Source::stops).collect();
    stops.extend(repository::stops()?);
    for stop in &stops {
        println!("STOP {stop}");
    }
    anyhow::ensure!(stops.is_empty(), "{} hard stops", stops.len());
    Ok(())
}

fn report(sources: &[Source]) {
    let product: usize = sources.iter().map(|source| source.product).sum();
    let test: usize = sources.iter().map(|source| source.test).sum();
    let tests: usize = sources.iter().map(|source| source.tests).sum();
    let comments: usize = sources.iter().map(|source| source.comments).sum();
    let public: usize = sources.iter().map(|source| source.public).sum();
    let documented: usize = sources.iter().map(|source| source.documented).sum();
    let expects: usize = sources.iter().map(|source| source.expects).sum();
    let thousands = (product.max(1) as f64) / 1000.0;
    println!("{product} lines of product, {test} of tests (aim: about equal)");
    println!("{tests} tests, {:.1} to 1,000 lines (aim: 20)", tests as f64 / thousands);
    let files = sources.iter().filter(|source| source.product > 0).map(|source| source.product);
    println!("files: {} lines (aim: median 160, p90 450, none over 800)", spread(files.collect()));
    let functions = sources.iter().flat_map(|source| source.functions.iter().map(|function| function.lines));
    println!("functions: {} lines (aim: median 8, p90 28, none over 80)", spread(functions.collect()));
    println!("{:.1} comments to 100 lines (aim: 4 to 8)", 100.0 * comments as f64 / product.max(1) as f64);
    println!("{documented} of {public} public items have docs");
    println!("expect in product code: {expects}, {:.1} to 1,000 lines (aim: 1)", expects as f64 / thousands);
    let mut long: Vec<_> =
        sources.iter().flat_map(|source| source.functions.iter().map(move |one| (one, source))).collect();
    long.sort_by_key(|(function, _)| std::cmp::Reverse(function.lines));
    for (function, source) in long.iter().take(5) {
        println!("  {} lines: {} ({}:{})", function.lines, function.name, source.path.display(), function.line);
    }
}

/// Median, ninth decile and longest.
fn spread(mut values: Vec<usize>) -> String {
    values.sort_unstable();
    let at = |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1)));
    let [median, p90, longest] = [0.5, 0.9, 1.0].map(|share| at(share).copied().unwrap_or(0));
    format!("median {median}, p90 {p90}, longest {longest}")
}

fn is_test_place(path: &Path) -> bool {
    let mut parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    let file = parts.pop().unwrap_or_default();
    parts.iter().any(|part| TEST_PLACES.contains(part)) || ["tests.rs", "testing.rs"].contains(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_in_order() {
        run().unwrap();
    }

    #[test]
    fn tests_are_known_by_their_place() {
        for (path, is_test) in [
            ("crates/a/tests/life/main.rs", true),
            ("crates/a/src/b/tests.rs", true),
            ("fuzz/fuzz_targets/x.rs", true),
            ("crates/a/src/b.rs", false),
            ("crates/a/src/contest.rs", false),
        ] {
            assert_eq!(is_test_place(Path::new(path)), is_test, "{path}");
        }
    }

    #[test]
    fn spreads_of_known_rows() {
        assert_eq!(spread((1..=10).collect()), "median 6, p90 10, longest 10");
        assert_eq!(spread(vec![]), "median 0, p90 0, longest 0");
    }
}
