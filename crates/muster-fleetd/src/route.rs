//! Routing by path (FL §1.1, §2.1).

use std::borrow::Cow;

use http::{HeaderValue, Method};

/// Whom a route is for, which determines the form of its errors (FL §0.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// osqueryd.
    Osquery,
    /// orbit.
    Orbit,
    /// Fleet Desktop.
    Device,
    /// A browser.
    Page,
    /// orbit's WebSocket.
    Push,
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
    /// `…/osquery/carve/begin`
    CarveBegin,
    /// `…/osquery/carve/block`
    CarveBlock,
    /// `/api/fleet/orbit/ping`
    OrbitPing,
    /// `/api/fleet/orbit/enroll`
    OrbitEnroll,
    /// `/api/fleet/orbit/config`
    OrbitConfig,
    /// `/api/fleet/orbit/device_token`
    DeviceToken,
    /// `/api/fleet/orbit/scripts/request`
    ScriptRequest,
    /// `/api/fleet/orbit/scripts/result`
    ScriptResult,
    /// `/api/fleet/orbit/software_install/details`
    InstallDetails,
    /// `/api/fleet/orbit/software_install/package`
    InstallPackage,
    /// `/api/fleet/orbit/software_install/result`
    InstallResult,
    /// `/api/fleet/orbit/disk_encryption_key`
    DiskKey,
    /// `/api/fleet/orbit/luks_data`
    LuksData,
    /// `/api/fleet/device/ping`
    DeviceServerPing,
    /// `/api/{version}/fleet/device/{token}/ping`
    DevicePing,
    /// `/api/{version}/fleet/device/{token}/desktop`
    DeviceDesktop,
    /// `/api/{version}/fleet/device/{token}`
    DeviceData,
    /// `/api/{version}/fleet/device/{token}/policies`
    DevicePolicies,
    /// `/api/{version}/fleet/device/{token}/certificates`
    DeviceCertificates,
    /// `/api/{version}/fleet/device/{token}/transparency`
    DeviceTransparency,
    /// `/device/{token}`
    DevicePage,
    /// `/device`
    DeviceHome,
    /// `/api/{version}/fleet/device/{token}/refetch`
    DeviceRefetch,
    /// `/device/refetch`
    DevicePageRefetch,
    /// `/api/fleet/orbit/notifications`
    OrbitNotifications,
}

/// Prefixes of osquery's routes. The second is no version of the API but a permanent alias, which orbit uses.
const OSQUERY: [&str; 2] = ["/api/v1/osquery/", "/api/osquery/"];
const NOTIFICATIONS: &str = "/api/fleet/orbit/notifications";
const ORBIT: &str = "/api/fleet/orbit/";
/// Prefixes of the routes with a device token.
const DEVICE: [&str; 3] = ["/api/latest/fleet/device/", "/api/v1/fleet/device/", "/api/2022-04/fleet/device/"];
const DEVICE_SERVER: &str = "/api/fleet/device/";
const PAGE: &str = "/device";

/// Returns the part of a path after the prefix of the page.
fn page_rest(path: &str) -> Option<&str> {
    path.strip_prefix(PAGE)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .map(|rest| rest.trim_start_matches('/'))
}

/// Returns the device token in a path, if it has one.
pub fn device_token(path: &str) -> Option<&str> {
    let rest = DEVICE.iter().find_map(|prefix| path.strip_prefix(prefix)).or_else(|| page_rest(path))?;
    rest.split('/').next().filter(|token| !token.is_empty())
}

/// Returns a path as logs show it, without a device token (FL80). In unknown paths, too, such as those of another version of the API or of a
/// server behind a prefix, the token comes after `device`.
pub fn shown(path: &str) -> Cow<'_, str> {
    if !path.contains("/device/") || Route::of(path) == Some(Route::DeviceServerPing) {
        return path.into();
    }
    let mut is_token = false;
    let shown = path.split('/').map(|segment| {
        let shown = if is_token && !segment.is_empty() { "(token)" } else { segment };
        is_token = segment == "device" || (is_token && segment.is_empty());
        shown
    });
    shown.collect::<Vec<_>>().join("/").into()
}

/// Returns whether a request for this path comes from an agent that can have a client certificate (FL148): not from a
/// browser, and not from a check whether the server is reachable.
pub fn needs_certificate(path: &str) -> bool {
    let is_ping = matches!(Route::of(path), Some(Route::OrbitPing | Route::DeviceServerPing));
    Plane::of(path) != Some(Plane::Page) && !is_ping
}

impl Plane {
    /// Returns the plane of a path; `None` if fleetd has no such paths.
    pub fn of(path: &str) -> Option<Self> {
        if OSQUERY.iter().any(|prefix| path.starts_with(prefix)) {
            Some(Self::Osquery)
        } else if path == NOTIFICATIONS {
            Some(Self::Push)
        } else if path.starts_with(ORBIT) {
            Some(Self::Orbit)
        } else if path.starts_with(DEVICE_SERVER) || DEVICE.iter().any(|prefix| path.starts_with(prefix)) {
            Some(Self::Device)
        } else if page_rest(path).is_some() {
            Some(Self::Page)
        } else {
            None
        }
    }
}

impl Route {
    /// All routes.
    pub const ALL: [Self; 30] = [
        Self::OsqueryEnroll,
        Self::OsqueryConfig,
        Self::DistributedRead,
        Self::DistributedWrite,
        Self::OsqueryLog,
        Self::CarveBegin,
        Self::CarveBlock,
        Self::OrbitPing,
        Self::OrbitEnroll,
        Self::OrbitConfig,
        Self::DeviceToken,
        Self::ScriptRequest,
        Self::ScriptResult,
        Self::InstallDetails,
        Self::InstallPackage,
        Self::InstallResult,
        Self::DiskKey,
        Self::LuksData,
        Self::DeviceServerPing,
        Self::DevicePing,
        Self::DeviceDesktop,
        Self::DeviceData,
        Self::DevicePolicies,
        Self::DeviceCertificates,
        Self::DeviceTransparency,
        Self::DevicePage,
        Self::DeviceHome,
        Self::DeviceRefetch,
        Self::DevicePageRefetch,
        Self::OrbitNotifications,
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
                "carve/begin" => Self::CarveBegin,
                "carve/block" => Self::CarveBlock,
                _ => return None,
            });
        }
        if let Some(rest) = page_rest(path) {
            let mut parts = rest.splitn(2, '/');
            return match (parts.next().unwrap_or_default(), parts.next()) {
                ("", None) => Some(Self::DeviceHome),
                ("refetch", None) => Some(Self::DevicePageRefetch),
                // The tabs of FleetDM's page, which Fleet Desktop opens.
                (_, None | Some("policies" | "self-service" | "software")) => Some(Self::DevicePage),
                _ => None,
            };
        }
        if let Some(rest) = DEVICE.iter().find_map(|prefix| path.strip_prefix(prefix)) {
            let (token, suffix) = rest.split_once('/').unwrap_or((rest, ""));
            return match suffix {
                _ if token.is_empty() => None,
                "" if !rest.ends_with('/') => Some(Self::DeviceData),
                "ping" => Some(Self::DevicePing),
                "desktop" => Some(Self::DeviceDesktop),
                "policies" => Some(Self::DevicePolicies),
                "certificates" => Some(Self::DeviceCertificates),
                "transparency" => Some(Self::DeviceTransparency),
                "refetch" => Some(Self::DeviceRefetch),
                _ => None,
            };
        }
        if path.strip_prefix(DEVICE_SERVER) == Some("ping") {
            return Some(Self::DeviceServerPing);
        }
        Some(match path.strip_prefix(ORBIT)? {
            "ping" => Self::OrbitPing,
            "enroll" => Self::OrbitEnroll,
            "config" => Self::OrbitConfig,
            "device_token" => Self::DeviceToken,
            "disk_encryption_key" => Self::DiskKey,
            "luks_data" => Self::LuksData,
            "scripts/request" => Self::ScriptRequest,
            "scripts/result" => Self::ScriptResult,
            "software_install/details" => Self::InstallDetails,
            "software_install/package" => Self::InstallPackage,
            "software_install/result" => Self::InstallResult,
            "notifications" => Self::OrbitNotifications,
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
            Self::CarveBegin => "osquery_carve_begin",
            Self::CarveBlock => "osquery_carve_block",
            Self::OrbitPing => "orbit_ping",
            Self::OrbitEnroll => "orbit_enroll",
            Self::OrbitConfig => "orbit_config",
            Self::DeviceToken => "orbit_device_token",
            Self::DiskKey => "orbit_disk_key",
            Self::LuksData => "orbit_luks_data",
            Self::ScriptRequest => "orbit_script_request",
            Self::ScriptResult => "orbit_script_result",
            Self::InstallDetails => "orbit_install_details",
            Self::InstallPackage => "orbit_install_package",
            Self::InstallResult => "orbit_install_result",
            Self::DeviceServerPing | Self::DevicePing => "device_ping",
            Self::DeviceDesktop => "device_desktop",
            Self::DeviceData => "device_data",
            Self::DevicePolicies => "device_policies",
            Self::DeviceCertificates => "device_certificates",
            Self::DeviceTransparency => "device_transparency",
            Self::DevicePage | Self::DeviceHome => "device_page",
            Self::DeviceRefetch | Self::DevicePageRefetch => "device_refetch",
            Self::OrbitNotifications => "orbit_notifications",
        }
    }

    /// Returns whether the route accepts `method`.
    pub fn takes(self, method: &Method) -> bool {
        match self {
            Self::OrbitPing => *method == Method::HEAD || *method == Method::POST,
            Self::OrbitNotifications => *method == Method::GET,
            Self::DeviceRefetch | Self::DevicePageRefetch => *method == Method::POST,
            _ if self.is_of_device() => *method == Method::HEAD || *method == Method::GET,
            _ => *method == Method::POST,
        }
    }

    /// Returns the methods that the route accepts, for the `Allow` header.
    pub fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::OrbitPing => "HEAD, POST",
            Self::OrbitNotifications => "GET",
            Self::DeviceRefetch | Self::DevicePageRefetch => "POST",
            _ if self.is_of_device() => "GET, HEAD",
            _ => "POST",
        })
    }

    /// Returns whether the route is for Fleet Desktop or a browser, whose requests have no body.
    pub const fn is_of_device(self) -> bool {
        matches!(
            self,
            Self::DeviceServerPing
                | Self::DevicePing
                | Self::DeviceDesktop
                | Self::DeviceData
                | Self::DevicePolicies
                | Self::DeviceCertificates
                | Self::DeviceTransparency
                | Self::DevicePage
                | Self::DeviceHome
                | Self::DeviceRefetch
                | Self::DevicePageRefetch
        )
    }

    /// Returns the maximum bytes of a body, before decompression and after it (FL §1.11).
    pub const fn max_body(self) -> (usize, usize) {
        const MIB: usize = 1 << 20;
        match self {
            // osqueryd sends up to 1,024 lines of up to 1 MiB, and sends them again if they are refused. It sends fewer if
            // they are large only if it is told to, so the limit is that of Fleet.
            Self::OsqueryLog => (10 * MIB, 20 * MIB),
            Self::DistributedWrite => (5 * MIB, 20 * MIB),
            // orbit sends the whole output of an install, of which the end is stored, and does not send a refused result again.
            Self::InstallResult => (5 * MIB, 20 * MIB),
            _ => (MIB, MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fl1_osquery_routes_are_the_same_under_both_prefixes() {
        for rest in ["enroll", "config", "distributed/read", "distributed/write", "log", "carve/begin", "carve/block"] {
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
    fn fl80_device_tokens_are_found_and_hidden() {
        for (path, route, shown_as) in [
            ("/device/t", Route::DevicePage, "/device/(token)"),
            ("/device/t/policies", Route::DevicePage, "/device/(token)/policies"),
            ("/device", Route::DeviceHome, "/device"),
            ("/device/", Route::DeviceHome, "/device/"),
            ("/api/latest/fleet/device/t", Route::DeviceData, "/api/latest/fleet/device/(token)"),
            ("/api/v1/fleet/device/t/ping", Route::DevicePing, "/api/v1/fleet/device/(token)/ping"),
            (
                "/api/v1/fleet/device/t/transparency",
                Route::DeviceTransparency,
                "/api/v1/fleet/device/(token)/transparency",
            ),
            ("/api/fleet/device/ping", Route::DeviceServerPing, "/api/fleet/device/ping"),
        ] {
            assert_eq!((Route::of(path), &*shown(path)), (Some(route), shown_as), "{path}");
        }
        for path in
            ["/devices", "/device/t/x", "/api/v1/fleet/device/", "/api/v1/fleet/device/t/x", "/api/v3/fleet/device/t"]
        {
            assert_eq!(Route::of(path), None, "{path}");
        }
        assert_eq!(shown("/device/t/x"), "/device/(token)/x");
        assert_eq!(shown("/device/device"), "/device/(token)");
        assert_eq!(shown("/device/device/t"), "/device/(token)/(token)");
        assert_eq!(shown("/device//t"), "/device//(token)");
        assert_eq!(shown("/api/v3/fleet/device/t/ping"), "/api/v3/fleet/device/(token)/ping");
        assert_eq!(shown("/fleet/api/latest/fleet/device/t"), "/fleet/api/latest/fleet/device/(token)");
        assert_eq!(shown("/devices/t"), "/devices/t");
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Route::ALL.map(Route::key).into();
        assert_eq!(
            names.len(),
            Route::ALL.len() - 3,
            "both pings, both parts of the page, and both refetches have one name"
        );
        assert!(Route::ALL.into_iter().enumerate().all(|(at, route)| route as usize == at), "metrics count by number");
    }
}
