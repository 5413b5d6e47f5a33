//! Finds unused dependencies.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A member of the workspace, with its directory, manifest and sources.
struct Member<'a> {
    directory: &'a Path,
    manifest: toml::Table,
    sources: Vec<&'a str>,
}

/// Returns the dependencies that no source of their crate uses, and the dependencies of the workspace that no crate
/// declares.
pub fn unused(files: &[(PathBuf, String)]) -> anyhow::Result<Vec<String>> {
    let mut workspace = Vec::new();
    let mut members = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        let directory = path.parent().unwrap_or(Path::new(""));
        // The root manifest declares versions for all members.
        if directory == Path::new("") {
            let shared = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
            workspace.extend(shared.and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys).cloned());
            continue;
        }
        let is_source = |path: &Path| path.starts_with(directory) && path.extension().is_some_and(|end| end == "rs");
        let sources = files.iter().filter(|(path, _)| is_source(path)).map(|(_, text)| text.as_str()).collect();
        members.push(Member { directory, manifest, sources });
    }
    let declared: Vec<_> = members.iter().flat_map(Member::dependencies).collect();
    let mut stops: Vec<_> = members.iter().flat_map(Member::unused).collect();
    let orphans = workspace.iter().filter(|name| !declared.contains(&name.as_str()) && !is_ours(name, &members));
    stops.extend(orphans.map(|name| format!("Cargo.toml: no crate depends on {name}")));
    Ok(stops)
}

/// Returns whether the name is a crate of the workspace, which may be declared before it is used.
fn is_ours(name: &str, members: &[Member<'_>]) -> bool {
    members.iter().any(|member| member.name() == Some(name))
}

impl Member<'_> {
    fn name(&self) -> Option<&str> {
        self.manifest.get("package")?.get("name")?.as_str()
    }

    fn dependencies(&self) -> Vec<&str> {
        let targets = self.manifest.get("target").and_then(toml::Value::as_table);
        let tables = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
        // Dependencies of a single platform are in tables of their own.
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = std::iter::once(&self.manifest).chain(tables);
        let lists = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
        lists.flat_map(toml::Table::keys).map(String::as_str).collect()
    }

    fn unused(&self) -> Vec<String> {
        let named = |name: &str| {
            let identifier = name.replace('-', "_");
            self.sources.iter().any(|text| names(text, &identifier))
        };
        // A crate may depend on itself to enable a feature for its tests.
        let unused = self.dependencies().into_iter().filter(|name| self.name() != Some(name) && !named(name));
        unused.map(|name| format!("{}/Cargo.toml: nothing uses {name}", self.directory.display())).collect()
    }
}

/// Returns whether a source uses the identifier as a crate: `name::`, `name!` or `use name;`.
fn names(text: &str, identifier: &str) -> bool {
    text.match_indices(identifier).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + identifier.len()..];
        // The identifier must not be the end of a longer one.
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        begins
            && (after.starts_with("::")
                || after.starts_with('!')
                || after.starts_with(" as ")
                || is_imported(text, at, after))
    })
}

fn is_imported(text: &str, at: usize, after: &str) -> bool {
    text[..at].ends_with("use ") && after.starts_with(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unused_of(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        unused(&files).unwrap()
    }

    #[test]
    fn dependency_that_no_source_names_is_unused() {
        let root = ("Cargo.toml", "[workspace.dependencies]\na-b = \"1\"\nbytes = \"1\"\ninsta = \"1\"\n");
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na-b = \"1\"\n[target.'cfg(unix)'.dependencies]\nbytes = \"1\"\n[dev-dependencies]\nx = \"1\"\n";
        let member = ("crates/x/Cargo.toml", manifest);
        let source = ("crates/x/tests/y.rs", "use a_b::C;\nlet bytes = my_bytes::new();\n");
        assert_eq!(
            unused_of(&[root, member, source]),
            ["crates/x/Cargo.toml: nothing uses bytes", "Cargo.toml: no crate depends on insta"]
        );
        let source = ("crates/x/src/lib.rs", "use a_b as c;\nuse bytes;\n");
        assert_eq!(unused_of(&[root, member, source]), ["Cargo.toml: no crate depends on insta"]);
    }
}
