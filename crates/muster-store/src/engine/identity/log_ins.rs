//! OpenID providers, completed logins, and logins of devices.

use muster_core::credential::SecretHash;
use muster_core::id::{KeyId, ProviderId, UserId};
use muster_core::identity::{
    Approval, Decision, DeviceLogIn, Login, MOST_DEVICE_LOG_INS, OidcProvider, OidcSettings, UserCode,
};
use muster_core::time::Timestamp;

use super::tokens::{login_text, read_login};
use super::{accounts, from_names, lock, to_names};
use crate::engine::error::Failure;
use crate::engine::row::{Columns, Result, all, count, first, run, to_json};
use crate::engine::session::{Connection, Row, params};
use crate::port::{LogInWrite, Precondition};
use crate::sql::log_ins as sql;

type Applied = std::result::Result<(), Failure>;

/// Inserts a provider.
pub(super) fn insert_provider(c: &Connection, provider: &OidcProvider) -> Applied {
    let values = params![
        provider.id.as_str(),
        provider.issuer,
        to_json(&provider.settings)?,
        provider.sealed_secret.as_deref(),
        provider.version,
        provider.created_at.as_micros(),
        provider.updated_at.as_micros(),
    ];
    if run(c, sql::INSERT_PROVIDER, values)? == 0 {
        return Err(Precondition::Exists(format!("OpenID provider {}", provider.id)).into());
    }
    Ok(())
}

/// Updates a provider from the version before.
pub(super) fn update_provider(c: &Connection, provider: &OidcProvider) -> Applied {
    let values = params![
        to_json(&provider.settings)?,
        provider.sealed_secret.as_deref(),
        provider.version,
        provider.updated_at.as_micros(),
        provider.id.as_str(),
    ];
    if run(c, sql::UPDATE_PROVIDER, values)? == 0 {
        return Err(Precondition::Changed(format!("OpenID provider {}", provider.id)).into());
    }
    Ok(())
}

/// Deletes a provider, and ends what its users were given there.
pub(super) fn delete_provider(c: &Connection, id: &ProviderId, issuer: &str, now: Timestamp) -> Applied {
    if run(c, sql::DELETE_PROVIDER, [id.as_str()])? == 0 {
        return Err(Precondition::Missing(format!("OpenID provider {id}")).into());
    }
    // Whoever logged in through the provider must not stay logged in without it.
    run(c, sql::DELETE_SESSIONS_OF_ISSUER, [issuer])?;
    run(c, sql::REVOKE_TOKENS_OF_ISSUER, params![now.as_micros(), issuer])?;
    Ok(())
}

fn read_provider(row: &Row<'_>) -> Result<OidcProvider> {
    let mut c = Columns::of(row);
    Ok(OidcProvider {
        id: c.id()?,
        issuer: c.take()?,
        settings: c.json::<OidcSettings>()?,
        sealed_secret: c.take()?,
        version: c.take()?,
        created_at: c.time()?,
        updated_at: c.time()?,
    })
}

/// Selects a provider.
pub(in crate::engine) fn provider(c: &Connection, id: &ProviderId) -> Result<Option<OidcProvider>> {
    first(c, sql::PROVIDER, [id.as_str()], read_provider)
}

/// Selects all providers, by id.
pub(in crate::engine) fn providers(c: &Connection) -> Result<Vec<OidcProvider>> {
    all(c, sql::PROVIDERS, [""; 0], read_provider)
}

/// Applies a write of logins.
pub(super) fn apply(c: &Connection, write: &LogInWrite) -> Applied {
    match write {
        LogInWrite::Complete { state, expires_at } => complete(c, state, *expires_at),
        LogInWrite::InsertDevice(device) => insert_device(c, device),
        LogInWrite::DecideDevice { user_code, decision } => decide(c, user_code, decision),
        LogInWrite::TakeDevice { key_id } => take(c, key_id),
    }
}

fn complete(c: &Connection, state: &str, expires_at: Timestamp) -> Applied {
    // The state is the key of the row: a second use of the same login conflicts, on whichever server it arrives.
    let rows = run(c, sql::COMPLETE, params![state, expires_at.as_micros()])?;
    if rows == 0 { Err(Precondition::KeyRefused.into()) } else { Ok(()) }
}

fn insert_device(c: &Connection, log_in: &DeviceLogIn) -> Applied {
    lock(c)?;
    // Anybody may begin a login, so those that ended must not take the place of others until housekeeping.
    run(c, sql::EXPIRE_DEVICES, params![log_in.created_at.as_micros()])?;
    if count(c, sql::COUNT_DEVICES, [""; 0])? >= MOST_DEVICE_LOG_INS {
        return Err(Precondition::InUse("all slots for device logins".to_owned()).into());
    }
    let values = params![
        log_in.key_id.as_str(),
        log_in.hash.0,
        log_in.user_code.as_str(),
        log_in.device,
        log_in.address.as_deref(),
        log_in.created_at.as_micros(),
        log_in.expires_at.as_micros(),
    ];
    if run(c, sql::INSERT_DEVICE, values)? == 0 {
        return Err(Precondition::Exists("a login of a device with this code".to_owned()).into());
    }
    Ok(())
}

fn decide(c: &Connection, code: &UserCode, decision: &Decision) -> Applied {
    lock(c)?;
    let rows = match decision {
        Decision::Denied => run(c, sql::DENY_DEVICE, [code.as_str()])?,
        Decision::Approved(approval) => {
            // The user may have been deleted while the device waited for its approval.
            accounts::check(c, &approval.user)?;
            let values = params![
                approval.user.as_str(),
                to_names(approval.privileges)?,
                to_json(&approval.groups)?,
                approval.expires_at.as_micros(),
                login_text(&approval.login),
                code.as_str(),
            ];
            run(c, sql::APPROVE_DEVICE, values)?
        }
    };
    if rows == 0 { Err(Precondition::KeyRefused.into()) } else { Ok(()) }
}

fn take(c: &Connection, key_id: &KeyId) -> Applied {
    // Deleting and handing out are one statement, so that of two polls of the device only one gets the token.
    if run(c, sql::DELETE_DEVICE, [key_id.as_str()])? == 0 { Err(Precondition::KeyRefused.into()) } else { Ok(()) }
}

fn read_device(row: &Row<'_>) -> Result<DeviceLogIn> {
    let mut c = Columns::of(row);
    Ok(DeviceLogIn {
        key_id: c.id()?,
        hash: SecretHash(c.sha256()?),
        user_code: c.user_code()?,
        device: c.take()?,
        address: c.take()?,
        created_at: c.time()?,
        expires_at: c.time()?,
        decision: decision(&mut c)?,
    })
}

fn decision(c: &mut Columns<'_, '_>) -> Result<Option<Decision>> {
    let is_denied = c.flag()?;
    let user: Option<UserId> = c.id_option()?;
    let privileges = c.json_option::<Vec<String>>()?.map(|names| from_names(&names)).unwrap_or_default();
    let groups = c.json_option()?.unwrap_or_default();
    let expires_at = c.time_option()?;
    let login = read_login(c)?.unwrap_or(Login::Other);
    if is_denied {
        return Ok(Some(Decision::Denied));
    }
    let approved = user.zip(expires_at);
    Ok(approved.map(|(user, expires_at)| Decision::Approved(Approval { user, privileges, groups, expires_at, login })))
}

/// Selects the login of a device by its key.
pub(in crate::engine) fn device_by_key(c: &Connection, key: &KeyId) -> Result<Option<DeviceLogIn>> {
    first(c, sql::DEVICE_BY_KEY, [key.as_str()], read_device)
}

/// Selects the login of a device by its code.
pub(in crate::engine) fn device_by_code(c: &Connection, code: &UserCode) -> Result<Option<DeviceLogIn>> {
    first(c, sql::DEVICE_BY_CODE, [code.as_str()], read_device)
}

/// Deletes what ended.
pub(super) fn expire(c: &Connection, now: Timestamp) -> Result<()> {
    run(c, sql::EXPIRE_COMPLETED, params![now.as_micros()])?;
    run(c, sql::EXPIRE_DEVICES, params![now.as_micros()]).map(drop)
}
