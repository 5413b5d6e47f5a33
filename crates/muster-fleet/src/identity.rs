//! Users, roles, bindings, API tokens, sessions and spaces, and authentication of their requests (MG §8.2).

pub mod attempts;
pub mod bindings;
pub mod devices;
pub mod federation;
#[cfg(test)]
mod log_in_tests;
pub mod openid;
pub mod passwords;
pub mod providers;
pub mod roles;
pub mod service_tokens;
pub mod sessions;
pub mod setup;
pub mod sign_in;
pub mod spaces;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod users;

use muster_core::authorization::{Entitlement, OpContext, PrivilegeName, PrivilegeSet};
use muster_core::{Error, ErrorKind};

/// Maximum number of roles, and of spaces. Both are listed whole.
pub(crate) const MOST_LISTED: usize = 1_000;

/// Fails if the entitlements contain privileges that the caller does not have itself. Nobody may give, or act with, what is
/// not theirs (MG161).
pub(crate) fn check_covers(context: &OpContext, wanted: &[Entitlement]) -> Result<(), Error> {
    none_missing(context.lacks_of(wanted))
}

pub(crate) fn none_missing(missing: PrivilegeSet) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(PrivilegeName::as_str).collect();
    let message = format!("this requires privileges that you do not have yourself: {}", names.join(", "));
    Err(Error::new(ErrorKind::Forbidden, "escalation", message).remedy("ask someone who has them"))
}

/// Parses the names of privileges.
pub(crate) fn parse_privileges(field: &str, names: &[String]) -> Result<PrivilegeSet, Error> {
    let parse = |name: &String| {
        name.parse()
            .map_err(|error: muster_core::authorization::UnknownPrivilege| Error::invalid(field, error.to_string()))
    };
    names.iter().map(parse).collect()
}
