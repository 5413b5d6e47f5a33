//! `/agents/available_versions`: what agents can be told to upgrade to.

use muster_core::Error;
use muster_core::context::{OpContext, Privilege};

use muster_fleet::Fleet;

/// The setting that names versions: a JSON array of texts.
const SETTING: &str = "available_versions";

/// Versions named in the settings, newest first; without any, the one that this server was tested with.
pub async fn available(fleet: &Fleet, context: &OpContext) -> Result<Vec<String>, Error> {
    context.require(Privilege::AgentsRead)?;
    let named = fleet.store.setting(SETTING).await?;
    let mut versions: Vec<String> = match named.as_deref().map(serde_json::from_str) {
        Some(Ok(versions)) => versions,
        Some(Err(error)) => return Err(Error::internal(format!("setting {SETTING}: {error}"))),
        None => Vec::new(),
    };
    if versions.is_empty() {
        let (major, minor) = fleet.settings.tested_version;
        versions.push(format!("{major}.{minor}.0"));
    }
    versions.sort_by_cached_key(|version| std::cmp::Reverse(numbers(version)));
    Ok(versions)
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg25_versions_are_compared_as_numbers() {
        assert!(numbers("8.9.0") < numbers("8.19.0"));
        assert!(numbers("9.1.2-SNAPSHOT") < numbers("9.2.0"));
    }
}
