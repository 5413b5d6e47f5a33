//! `/queries`: live queries of the last day, and saved queries.

mod export;
mod live;
mod results;
mod run;
mod saved;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use muster_core::authorization::PrivilegeName;
use muster_core::live_query::LiveQuery;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;

use super::TAB;
use super::facts::cut;
use crate::Route;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::people::People;
use crate::settings::shown;
use crate::text::{Moment, grouped};
use crate::visitor::Visitor;

/// Path of the list, and of live and saved queries in the API.
const PATH: &str = "/queries";
const API: &str = "/api/v1/queries/run";
const SAVED_API: &str = "/api/v1/queries";

/// The pages of queries.
pub fn pages() -> Vec<Route> {
    vec![
        (PATH, get(list)),
        ("/queries/run", get(run::ask).post(run::run)),
        ("/queries/saved/new", get(saved::ask).post(saved::create)),
        ("/queries/saved/{id}", get(saved::show).post(saved::update)),
        ("/queries/saved/{id}/delete", get(saved::ask_to_delete).post(saved::delete)),
        ("/queries/{id}", get(live::show)),
        ("/queries/{id}/stop", post(live::stop)),
        ("/queries/{id}/results.csv", get(export::csv)),
        ("/queries/{id}/results.json", get(export::json)),
    ]
}

#[derive(Template)]
#[template(path = "hosts/queries.html")]
struct QueriesPage {
    frame: Frame,
    live: Vec<LiveRow>,
    saved: Vec<SavedRow>,
    lacks_run: &'static str,
    lacks_save: &'static str,
    cli: String,
    api: String,
}

/// A live query in the list.
struct LiveRow {
    id: String,
    sql: String,
    state: State3,
    answered: String,
    failed: u64,
    rows: u64,
    by: String,
    at: Moment,
}

struct SavedRow {
    id: String,
    name: String,
    description: String,
    sql: String,
    by: String,
    at: Moment,
}

/// A state: the class of its color, its sign and its text.
type State3 = (&'static str, &'static str, &'static str);

/// Returns the state of a live query.
fn state_of(query: &LiveQuery) -> State3 {
    match query.state() {
        "running" => ("busy", "◐", "running"),
        "complete" => ("good", "●", "complete"),
        "timed_out" => ("warn", "▲", "ended by its time limit"),
        "stopped" => ("quiet", "–", "stopped"),
        _ => ("warn", "▲", "ended because its results are too large"),
    }
}

/// Shows the list.
async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        // Those who may do neither are told what they lack; saved queries are also seen by those who may not run them.
        let live = match visitor.context.check(PrivilegeName::QueriesRunSaved) {
            Ok(()) => fleet.live_queries().list(&visitor.context).await?,
            Err(_) => Vec::new(),
        };
        let saved = fleet.saved_queries().list(&visitor.context).await?;
        let now = fleet.now();
        let mut people = People::new(&fleet, &visitor);
        let mut live_rows = Vec::new();
        for query in live {
            let by = people.name(&query.created_by).await;
            live_rows.push(LiveRow { by, ..live_row(&query, now) });
        }
        let mut saved_rows = Vec::new();
        for query in saved {
            saved_rows.push(SavedRow {
                by: people.name(&query.updated_by).await,
                at: Moment::new(Timestamp::from_micros(query.updated_at), now),
                id: query.id.to_string(),
                description: cut(&query.description),
                sql: cut(&query.sql),
                name: query.name,
            });
        }
        Ok(QueriesPage {
            frame: Frame::new(&visitor, "Queries", TAB),
            live: live_rows,
            saved: saved_rows,
            lacks_run: visitor.lacks(PrivilegeName::QueriesRunSaved),
            lacks_save: visitor.lacks(PrivilegeName::OsqueryWrite),
            cli: cli(&visitor, "query list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

fn live_row(query: &LiveQuery, now: Timestamp) -> LiveRow {
    LiveRow {
        state: state_of(query),
        id: query.id.to_string(),
        answered: format!("{} of {}", grouped(query.answered), grouped(query.targets)),
        failed: query.failed,
        rows: query.rows,
        by: String::new(),
        at: Moment::new(query.created_at, now),
        sql: cut(&query.sql),
    }
}
