//! Errors of forms: which field they are about, and what pages call it.

use muster_core::Error;

use crate::text::sentence;

/// What pages call fields whose names in the API do not say it.
const LABELS: [(&str, &str); 33] = [
    ("auth.api_key", "API key"),
    ("auth.password", "Password"),
    ("auth.username", "User name"),
    ("ca_trusted_fingerprint", "Fingerprint of the certificate authority"),
    ("again", "Confirm the new password"),
    ("data_output_id", "Output for data"),
    ("download_source_id", "Download source"),
    ("duplicate_hosts", "Clones of a host"),
    ("expiration", "Expires"),
    ("fleet_server_host_id", "Fleet Server host"),
    ("expires_in_seconds", "Expires after"),
    ("host_urls", "URLs"),
    ("inactivity_timeout", "Inactive after"),
    ("is_default", "Default"),
    ("is_managed", "Managed"),
    ("is_protected", "Uninstalling an agent needs its uninstall token"),
    ("keep_monitoring_alive", "The monitoring server runs without an output, too"),
    ("max_uses", "Maximum number of uses"),
    ("monitoring_enabled", "Agents send about themselves"),
    ("monitoring_output_id", "Output for monitoring"),
    ("namespace", "Data namespace"),
    ("over", "Spread the starts over"),
    ("proxy_id", "Proxy"),
    ("ssl.agent_certificate_authorities", "Certificate authorities"),
    ("ssl.certificate_authorities", "Certificate authorities"),
    ("timeout_seconds", "Time limit"),
    ("to_space", "Space"),
    ("unenroll_timeout", "Unenrolled after, once inactive"),
    ("url", "URL"),
    ("username", "User name"),
    ("webhook.url", "URL"),
    ("yaml", "More settings"),
    ("zone", "Time zone"),
];

/// Returns whether an error is about a field of a form. An item of a list, `tags[2]`, is a part of its field.
pub fn concerns(error: &Error, field: &str) -> bool {
    match error.field.as_deref() {
        Some(named) => named
            .strip_prefix(field)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('[') && rest.ends_with(']')),
        // The store finds out that another object has the name, and knows no fields.
        None => field == "name" && (error.code.ends_with("name_taken") || error.message.starts_with("the name ")),
    }
}

/// Returns the message of an error without the name of its field, which stands beside it.
pub fn reason(error: &Error) -> &str {
    // For programs; what follows says what is wrong.
    of_field(error).unwrap_or_else(|| error.message.strip_prefix("KQLSyntaxError: ").unwrap_or(&error.message))
}

/// Returns what follows the name of the field in a message that begins with it.
fn of_field(error: &Error) -> Option<&str> {
    let (named, reason) = error.message.split_once(": ")?;
    let before = named.strip_suffix(error.field.as_deref()?)?;
    (before.is_empty() || before.ends_with('.')).then_some(reason)
}

/// Returns the message of an error, as a sentence, with what pages call its field.
pub fn summary(error: &Error) -> String {
    match (error.field.as_deref(), of_field(error)) {
        (Some(field), Some(reason)) => format!("{}: {reason}", capitalized(&label(field))),
        _ => sentence(reason(error)),
    }
}

/// Returns what pages call the field that an error is about.
pub fn name(error: &Error) -> Option<String> {
    let field = error.field.as_deref().or_else(|| concerns(error, "name").then_some("name"));
    field.map(|field| capitalized(&label(field)))
}

/// Returns what pages call a field: `webhook.secret` is the webhook secret.
pub fn label(field: &str) -> String {
    let (list, item) = match field.strip_suffix(']').and_then(|field| field.split_once('[')) {
        Some((list, item)) => (list, item.parse::<u32>().ok()),
        None => (field, None),
    };
    let known = LABELS.iter().find(|(name, _)| *name == list).map(|(_, label)| (*label).to_owned());
    let name = known.unwrap_or_else(|| list.replace(['_', '.'], " "));
    // People count from one.
    item.map_or_else(|| name.clone(), |item| format!("{name}, item {}", u64::from(item) + 1))
}

/// Returns what pages call the setting at a JSON pointer; empty for what only the policy file contains.
pub fn label_of_pointer(pointer: &str) -> String {
    let name = pointer.trim_start_matches('/').trim_start_matches("fields/");
    let own = ["name", "description"].contains(&name);
    let label = if own || LABELS.iter().any(|(known, _)| *known == name) { label(name) } else { String::new() };
    capitalized(&label)
}

fn capitalized(text: &str) -> String {
    let first = text.chars().next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(text.chars().skip(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_at_its_field_and_under_the_name_of_the_field() {
        let item = Error::invalid("tags[2]", "too long");
        assert!(concerns(&item, "tags") && !concerns(&item, "tag") && !concerns(&item, "name"));
        assert!(!concerns(&Error::invalid("waves[0].soak", "x"), "waves"));
        assert_eq!((reason(&item), summary(&item).as_str()), ("too long", "Tags, item 3: too long"));
        let nested =
            Error { field: Some("inactivity_timeout".into()), ..Error::invalid("settings.inactivity_timeout", "x") };
        assert_eq!(summary(&nested), "Inactive after: x");
        assert_eq!(summary(&Error::invalid("webhook.secret", "x")), "Webhook secret: x");
        let kql = Error { field: Some("kuery".into()), ..Error::conflict("x", "KQLSyntaxError: a value is missing") };
        assert_eq!((reason(&kql), summary(&kql).as_str()), ("a value is missing", "A value is missing"));
        let taken = Error::conflict("receiver_name_taken", "another receiver is named \"a\"");
        assert!(concerns(&taken, "name") && !concerns(&taken, "tags"));
        assert_eq!(summary(&taken), "Another receiver is named \"a\"");
        assert_eq!((name(&taken), name(&item)), (Some("Name".to_owned()), Some("Tags, item 3".to_owned())));
    }

    #[test]
    fn settings_of_a_policy_are_named_as_on_their_form() {
        let labels = ["/name", "/namespace", "/fields/is_protected", "/config/inputs/0/type"].map(label_of_pointer);
        assert_eq!(labels, ["Name", "Data namespace", "Uninstalling an agent needs its uninstall token", ""]);
    }
}
