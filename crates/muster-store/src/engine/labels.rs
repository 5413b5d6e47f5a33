//! Labels and their hosts.

use muster_core::fleetd::labels::{Label, MAX_LABELS, name_key};
use muster_core::id::{HostId, LabelId, SpaceId};

use super::error::Failure;
use super::row::{Columns, Result, all, any, count, run, send, to_json};
use super::session::{Connection, Row, Rule, params};
use crate::port::{LabelWrite, Precondition};
use crate::sql::labels as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &LabelWrite) -> std::result::Result<(), Failure> {
    match write {
        LabelWrite::Insert(label) => insert(connection, label),
        LabelWrite::Update(label) => update(connection, label),
        LabelWrite::Clear { id } => Ok(send(connection, sql::CLEAR, [id.as_str()])?),
        LabelWrite::Delete { id } => {
            connection.lock(Rule::References)?;
            let is_gone = run(connection, sql::DELETE, [id.as_str()])? > 0;
            if is_gone { Ok(()) } else { Err(Precondition::Missing(format!("label {id}")).into()) }
        }
        LabelWrite::Exist { space, names } => check_exist(connection, space, names),
        LabelWrite::Add { labels, hosts } => of_hosts(connection, sql::ADD, labels, hosts),
        LabelWrite::Remove { labels, hosts } => of_hosts(connection, sql::REMOVE, labels, hosts),
        LabelWrite::Failed { host, errors, at } => {
            for (label, error) in errors {
                send(connection, sql::PUT_ERROR, params![error, at.as_micros(), label.as_str(), host.as_str()])?;
            }
            Ok(())
        }
        LabelWrite::Ran { host, labels } => {
            let labels: Vec<&str> = labels.iter().map(LabelId::as_str).collect();
            Ok(send(connection, sql::DELETE_ERRORS, params![host.as_str(), labels])?)
        }
    }
}

/// Fails unless a space has labels with these names.
fn check_exist(connection: &Connection, space: &SpaceId, names: &[String]) -> std::result::Result<(), Failure> {
    // What names labels is not a row that refers to them: only the lock keeps them from being deleted or renamed meanwhile.
    connection.lock(Rule::References)?;
    for name in names {
        if !any(connection, sql::NAMED, [space.as_str(), &name_key(name)])? {
            return Err(Precondition::Missing(format!("the label {name:?}")).into());
        }
    }
    Ok(())
}

fn of_hosts(
    connection: &Connection,
    statement: &'static str,
    labels: &[LabelId],
    hosts: &[HostId],
) -> std::result::Result<(), Failure> {
    let labels: Vec<&str> = labels.iter().map(LabelId::as_str).collect();
    let hosts: Vec<&str> = hosts.iter().map(HostId::as_str).collect();
    Ok(send(connection, statement, params![labels, hosts])?)
}

fn insert(connection: &Connection, label: &Label) -> std::result::Result<(), Failure> {
    // The maximum spans rows: two concurrent inserts would both find room.
    connection.lock(Rule::References)?;
    if count(connection, sql::COUNT, [label.space.as_str()])? >= MAX_LABELS as u64 {
        return Err(Precondition::TooMany("labels".into()).into());
    }
    let values = params![
        label.id.as_str(),
        label.space.as_str(),
        label.version,
        label.name,
        name_key(&label.name),
        label.description,
        label.query,
        to_json(&label.platforms)?,
        label.created_at.as_micros(),
    ];
    if run(connection, sql::INSERT, values)? == 0 {
        return Err(Precondition::NameTaken(label.name.clone()).into());
    }
    Ok(())
}

fn update(connection: &Connection, label: &Label) -> std::result::Result<(), Failure> {
    // A name is compared and taken in two statements.
    connection.lock(Rule::References)?;
    let key = name_key(&label.name);
    if any(connection, sql::TAKEN, [label.space.as_str(), &key, label.id.as_str()])? {
        return Err(Precondition::NameTaken(label.name.clone()).into());
    }
    let values = params![
        label.version,
        label.name,
        key,
        label.description,
        label.query,
        to_json(&label.platforms)?,
        label.id.as_str(),
    ];
    // They are those of the former query. Hosts are asked again after every change.
    send(connection, sql::CLEAR_ERRORS, [label.id.as_str()])?;
    let is_found = run(connection, sql::UPDATE, values)? > 0;
    if is_found { Ok(()) } else { Err(Precondition::Changed(format!("label {}", label.id)).into()) }
}

fn read(row: &Row<'_>) -> Result<Label> {
    let mut c = Columns::of(row);
    let (id, space, version, name) = (c.id()?, c.id()?, c.take()?, c.take()?);
    let _key: String = c.take()?;
    Ok(Label {
        id,
        space,
        version,
        name,
        description: c.take()?,
        query: c.take()?,
        platforms: c.json()?,
        created_at: c.time()?,
    })
}

/// Selects the labels of a space.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<Label>> {
    all(connection, sql::OF_SPACE, [space.as_str()], read)
}

/// Counts the hosts of labels.
pub(super) fn counts(connection: &Connection, space: &SpaceId) -> Result<Vec<(LabelId, u64)>> {
    all(connection, sql::COUNTS, [space.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok((c.id()?, c.count()?))
    })
}

/// Counts the errors of labels, with the last one of each.
pub(super) fn error_counts(connection: &Connection, space: &SpaceId) -> Result<Vec<(LabelId, u64, String)>> {
    all(connection, sql::ERROR_COUNTS, [space.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok((c.id()?, c.count()?, c.take()?))
    })
}

/// Selects the errors of labels on a host.
pub(super) fn errors_of_host(connection: &Connection, host: &HostId) -> Result<Vec<(LabelId, String)>> {
    all(connection, sql::ERRORS_OF_HOST, [host.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok((c.id()?, c.take()?))
    })
}

/// Selects the labels of a host.
pub(super) fn of_host(connection: &Connection, host: &HostId) -> Result<Vec<LabelId>> {
    all(connection, sql::OF_HOST, [host.as_str()], |row| Columns::of(row).id())
}

/// Selects those of some hosts that have a label.
pub(super) fn with_label(connection: &Connection, label: &LabelId, hosts: &[HostId]) -> Result<Vec<HostId>> {
    let hosts: Vec<&str> = hosts.iter().map(HostId::as_str).collect();
    all(connection, sql::WITH_LABEL, params![label.as_str(), hosts], |row| Columns::of(row).id())
}
