//! Keeps a single type for "reply now, or park the request".

use std::path::{Path, PathBuf};

use super::places::TestPlaces;

/// The file that declares the type.
const PLACE: &str = "crates/muster-listen/src/reply.rs";

/// Returns the enums that decide the same as `Answer` in [`PLACE`]. With a second one, each limit and each deadline of a
/// parked request would have to be enforced twice.
pub fn stops(files: &[(PathBuf, String)], tests: &TestPlaces) -> Vec<String> {
    let product = files.iter().filter(|(path, _)| !tests.contain(path));
    let found = product.flat_map(|(path, text)| enums(text).filter(|body| decides(body)).map(move |_| path.as_path()));
    let (here, elsewhere): (Vec<_>, Vec<_>) = found.partition(|path| *path == Path::new(PLACE));
    let mut stops: Vec<_> = elsewhere
        .into_iter()
        .map(|path| format!("{}: an enum to reply or to park; use `Answer` of {PLACE}", path.display()))
        .collect();
    if here.len() != 1 {
        stops.push(format!("{PLACE}: {} enums to reply or to park, instead of one", here.len()));
    }
    stops
}

/// Returns the bodies of the enums in a file. Variants with fields have further braces, which are indented.
fn enums(text: &str) -> impl Iterator<Item = &str> {
    text.split("enum ").skip(1).filter_map(|rest| rest.split_once('{')?.1.split("\n}").next())
}

fn decides(body: &str) -> bool {
    let has = |names: &[&str]| {
        body.lines().any(|line| names.iter().any(|name| line.trim_start().strip_prefix(name).is_some_and(is_end)))
    };
    has(&["Reply", "Respond", "Response", "Answered"]) && has(&["Park", "Parked", "Hold"])
}

fn is_end(rest: &str) -> bool {
    rest.starts_with(['(', '{', ',', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_enum_to_reply_or_to_park_is_found() {
        let own =
            "pub enum Answer {\n    /// Send it.\n    Reply(Reply),\n    Park(Parked),\n}\nenum Other {\n    A,\n}\n";
        let second = "/// Outcome.\nenum Outcome {\n    Park(Slot),\n    Response { status: u16 },\n}\n";
        let unrelated = "enum Held {\n    Reply(Reply),\n    Gone,\n}\nenum End {\n    Park(Slot),\n    Cut,\n}\n";
        let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
        let files = [file(PLACE, own), file("crates/b/src/a.rs", unrelated), file("crates/b/src/tests.rs", second)];
        let tests = TestPlaces::of(&files);
        assert!(stops(&files, &tests).is_empty());
        let doubled = [file(PLACE, own), file("crates/b/src/lib.rs", second)];
        let found = stops(&doubled, &tests);
        assert!(found.len() == 1 && found[0].starts_with("crates/b/src/lib.rs"), "{found:?}");
        assert_eq!(stops(&[], &tests).len(), 1, "without the type, the rule would hold of nothing");
    }
}
