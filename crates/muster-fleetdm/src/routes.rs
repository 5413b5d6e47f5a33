//! The table of all routes. The router is built from it, and a test compares it with the documentation.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{self, MethodRouter};
use muster_fleet::Fleet;

use crate::{
    campaigns, host_acts, hosts, labels, pack_specs, packs, policies, queries, secrets, session, software, specs,
    teams, websocket,
};

/// A route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path below `/api/v1/fleet`.
    pub path: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    pub(crate) handler: MethodRouter<Arc<Fleet>>,
}

macro_rules! methods {
    ($($name:ident $method:ident)*) => {
        impl Route {
            $(
                pub(crate) fn $name<H, T>(path: &'static str, handler: H, about: &'static str) -> Self
                where
                    H: Handler<T, Arc<Fleet>>,
                    T: 'static,
                {
                    Self { method: Method::$method, path, about, handler: routing::$name(handler) }
                }
            )*
        }
    };
}

methods!(get GET post POST patch PATCH delete DELETE);

/// Returns all routes.
pub fn all() -> Vec<Route> {
    let families = [
        session::routes(),
        hosts::routes(),
        host_acts::routes(),
        labels::routes(),
        queries::routes(),
        campaigns::routes(),
        websocket::routes(),
        policies::routes(),
        packs::routes(),
        software::routes(),
        teams::routes(),
        secrets::routes(),
        specs::routes(),
        pack_specs::routes(),
    ];
    families.into_iter().flatten().collect()
}
