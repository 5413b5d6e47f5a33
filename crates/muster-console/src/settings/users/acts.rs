//! What administrators do with a user: log out, lock, delete.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::plural::counted;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::identity::users::UserChange;
use muster_store::query::Page;

use super::{API, PATH};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::request::{Id, Pressed};
use crate::settings::{TAB, shown};
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Asks before all sessions of a user end.
pub async fn ask_to_sign_out(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, &id).await?;
        let text = format!("All sessions of {} end. API tokens still work.", user.name);
        Ok(Confirm {
            text: vec![text],
            button: "Log out everywhere",
            ..Confirm::of(
                &visitor,
                format!("Log out {} everywhere?", user.name),
                TAB,
                &format!("{PATH}/{id}"),
                "sign-out",
            )
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Ends all sessions of a user.
pub async fn sign_out(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, &id).await?;
        fleet.sessions().end_all(&user).await?;
        let text = format!("{} is logged out everywhere.", user.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{PATH}/{id}")), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Asks before a user is locked.
pub async fn ask_to_lock(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, &id).await?;
        let text = "All sessions end, and the password and all API tokens are rejected until the user is unlocked.";
        Ok(Confirm {
            text: vec![text.to_owned()],
            button: "Lock the user",
            cli: cli(&visitor, &format!("user lock {}", shell::argument(&user.name))),
            api: curl(&visitor, "PUT", &format!("{API}/{id}"), r#"{"locked":true}"#),
            ..Confirm::of(&visitor, format!("Lock {}?", user.name), TAB, &format!("{PATH}/{id}"), "lock")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Locks a user.
pub async fn lock(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    set_locked(&fleet, &visitor, &id, true).await
}

/// Unlocks a user.
pub async fn unlock(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    set_locked(&fleet, &visitor, &id, false).await
}

async fn set_locked(fleet: &Fleet, visitor: &Visitor, id: &str, locked: bool) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, id).await?;
        let change = UserChange { locked: Some(locked), ..UserChange::default() };
        let user = fleet.users().update(&user, &change).await?;
        let text = format!("{} is {}.", user.name, if locked { "locked" } else { "unlocked" });
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{PATH}/{id}")), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(visitor, &error, TAB))
}

/// Asks before a user is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, &id).await?;
        let tokens =
            fleet.tokens().list(&visitor.context.grant()?, Some(&user.id), Page { offset: 0, limit: 0 }).await?;
        let tokens = match tokens.total {
            0 => "set-up links".to_owned(),
            number => counted(number, "API token"),
        };
        Ok(Confirm {
            text: vec![format!(
                "{} is deleted, with all roles, sessions and {tokens}. This cannot be undone; to keep the name in the audit log \
                 readable, lock the user instead.",
                user.name
            )],
            button: "Delete the user",
            cli: cli(&visitor, &format!("user delete {}", shell::argument(&user.name))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, format!("Delete {}?", user.name), TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a user.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, &id).await?;
        fleet.users().delete(&user).await?;
        let text = format!("{} is deleted.", user.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
