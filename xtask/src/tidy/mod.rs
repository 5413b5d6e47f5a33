//! `cargo xtask tidy` prints measures of the code with their targets, and enforces rules.

mod answer;
mod authority;
mod citations;
mod dependencies;
mod function;
mod places;
mod repository;
mod source;

use crate::shell;
use places::TestPlaces;
use source::Source;

/// Measures the source tree. Returns an error if a rule is violated.
pub fn run() -> anyhow::Result<()> {
    let mut files = Vec::new();
    for path in shell::sources()?.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs")) {
        let text = std::fs::read_to_string(shell::root().join(&path))?;
        files.push((path, text));
    }
    let places = TestPlaces::of(&files);
    let sources: Vec<_> = files.iter().map(|(path, text)| Source::measure(path, text, places.contain(path))).collect();
    report(&sources);
    let mut stops: Vec<_> = sources.iter().flat_map(Source::stops).collect();
    stops.extend(repository::stops()?);
    stops.extend(authority::stops(&files, &places));
    stops.extend(answer::stops(&files, &places));
    for stop in &stops {
        println!("STOP {stop}");
    }
    anyhow::ensure!(stops.is_empty(), "{} violations", stops.len());
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
    println!("{product} lines of product code, {test} of tests (target: about equal)");
    println!("{tests} tests, {:.1} per 1,000 lines (target: 20)", tests as f64 / thousands);
    let files = sources.iter().filter(|source| source.product > 0).map(|source| source.product);
    println!("files: {} lines (target: median 160, p90 450, maximum 800)", spread(files.collect()));
    let functions = sources.iter().flat_map(|source| source.functions.iter().map(|function| function.lines));
    println!("functions: {} lines (target: median 8, p90 28, maximum 80)", spread(functions.collect()));
    println!("{:.1} comments per 100 lines (target: 4 to 8)", 100.0 * comments as f64 / product.max(1) as f64);
    println!("{documented} of {public} public items have docs");
    println!("expect in product code: {expects}, {:.1} per 1,000 lines (target: 1)", expects as f64 / thousands);
    let mut long: Vec<_> =
        sources.iter().flat_map(|source| source.functions.iter().map(move |one| (one, source))).collect();
    long.sort_by_key(|(function, _)| std::cmp::Reverse(function.lines));
    for (function, source) in long.iter().take(5) {
        println!("  {} lines: {} ({}:{})", function.lines, function.name, source.path.display(), function.line);
    }
}

/// Formats median, 90th percentile and maximum.
fn spread(mut values: Vec<usize>) -> String {
    values.sort_unstable();
    let at = |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1)));
    let [median, p90, longest] = [0.5, 0.9, 1.0].map(|share| at(share).copied().unwrap_or(0));
    format!("median {median}, p90 {p90}, longest {longest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_follows_its_rules() {
        run().unwrap();
    }

    #[test]
    fn spreads_of_known_rows() {
        assert_eq!(spread((1..=10).collect()), "median 6, p90 10, longest 10");
        assert_eq!(spread(vec![]), "median 0, p90 0, longest 0");
    }
}
