//! Routing by path (FL §1.1, §2.1).

use http::{HeaderValue, Method};

/// Whom a route is for, which determines the form of its errors (FL §0.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// osqueryd.
    Osquery,
    /// orbit.
    Orbit,
}

/// A known path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `…/osquery/enroll`
    OsqueryEnroll,
    /// `…/osquery/config`
    OsqueryConfig,
    /// `…/osquery/distributed/read`
    DistributedRead,
    /// `…/osquery/distributed/write`
    DistributedWrite,
    /// `…/osquery/log`
    OsqueryLog,
    /// `/api/fleet/orbit/ping`
    OrbitPing,
    /// `/api/fleet/orbit/enroll`
    OrbitEnroll,
    /// `/api/fleet/orbit/config`
    OrbitConfig,
    /// `/api/fleet/orbit/device_token`
    DeviceToken,
}

/// Prefixes of osquery's routes. The second is no version of the API but a permanent alias, which orbit uses.
const OSQUERY: [&str; 2] = ["/api/v1/osquery/", "/api/osquery/"];
const ORBIT: &str = "/api/fleet/orbit/";

impl Plane {
    /// Returns the plane of a path; `None` if fleetd has no such paths.
    pub fn of(path: &str) -> Option<Self> {
        if OSQUERY.iter().any(|prefix| path.starts_with(prefix)) {
            Some(Self::Osquery)
        } else if path.starts_with(ORBIT) {
            Some(Self::Orbit)
        } else {
            None
        }
    }
}

impl Route {
    /// All routes.
    pub const ALL: [Self; 9] = [
        Self::OsqueryEnroll,
        Self::OsqueryConfig,
        Self::DistributedRead,
        Self::DistributedWrite,
        Self::OsqueryLog,
        Self::OrbitPing,
        Self::OrbitEnroll,
        Self::OrbitConfig,
        Self::DeviceToken,
    ];

    /// Returns the route of a path, without the query.
    pub fn of(path: &str) -> Option<Self> {
        if let Some(rest) = OSQUERY.iter().find_map(|prefix| path.strip_prefix(prefix)) {
            return Some(match rest {
                "enroll" => Self::OsqueryEnroll,
                "config" => Self::OsqueryConfig,
                "distributed/read" => Self::DistributedRead,
                "distributed/write" => Self::DistributedWrite,
                "log" => Self::OsqueryLog,
                _ => return None,
            });
        }
        Some(match path.strip_prefix(ORBIT)? {
            "ping" => Self::OrbitPing,
            "enroll" => Self::OrbitEnroll,
            "config" => Self::OrbitConfig,
            "device_token" => Self::DeviceToken,
            _ => return None,
        })
    }

    /// Returns its name in metrics and in the list of refusals.
    pub const fn key(self) -> &'static str {
        match self {
            Self::OsqueryEnroll => "osquery_enroll",
            Self::OsqueryConfig => "osquery_config",
            Self::DistributedRead => "osquery_distributed_read",
            Self::DistributedWrite => "osquery_distributed_write",
            Self::OsqueryLog => "osquery_log",
            Self::OrbitPing => "orbit_ping",
            Self::OrbitEnroll => "orbit_enroll",
            Self::OrbitConfig => "orbit_config",
            Self::DeviceToken => "orbit_device_token",
        }
    }

    /// Returns whether the route accepts `method`.
    pub fn takes(self, method: &Method) -> bool {
        *method == Method::POST || (self == Self::OrbitPing && *method == Method::HEAD)
    }

    /// Returns the methods that the route accepts, for the `Allow` header.
    pub fn allow(self) -> HeaderValue {
        HeaderValue::from_static(if self == Self::OrbitPing { "HEAD, POST" } else { "POST" })
    }

    /// Returns the maximum bytes of a body, before decompression and after it (FL §1.11).
    pub const fn max_body(self) -> (usize, usize) {
        const MIB: usize = 1 << 20;
        match self {
            // osqueryd sends up to 1,024 lines of up to 1 MiB, and sends them again if they are refused. It sends fewer if
            // they are large only if it is told to, so the limit is that of Fleet.
            Self::OsqueryLog => (10 * MIB, 20 * MIB),
            Self::DistributedWrite => (5 * MIB, 20 * MIB),
            _ => (MIB, MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fl1_osquery_routes_are_the_same_under_both_prefixes() {
        for rest in ["enroll", "config", "distributed/read", "distributed/write", "log"] {
            let routes = OSQUERY.map(|prefix| Route::of(&format!("{prefix}{rest}")));
            assert!(routes[0].is_some() && routes[0] == routes[1], "{rest}");
        }
        assert_eq!(Route::of("/api/fleet/orbit/ping"), Some(Route::OrbitPing));
    }

    #[test]
    fn other_paths_are_unknown() {
        for path in [
            "",
            "/",
            "/api/osquery",
            "/api/osquery/",
            "/api/v2/osquery/enroll",
            "/api/osquery/enroll/",
            "/api/fleet/orbit/x",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
        assert_eq!(Plane::of("/api/osquery/x"), Some(Plane::Osquery));
        assert_eq!(Plane::of("/api/fleet/orbit/x"), Some(Plane::Orbit));
        assert_eq!(Plane::of("/api/fleet/agents/enroll"), None);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Route::ALL.map(Route::key).into();
        assert_eq!(names.len(), Route::ALL.len());
        assert!(Route::ALL.into_iter().enumerate().all(|(at, route)| route as usize == at), "metrics count by number");
    }
}
