//! The API of Fleet Desktop, and the page "My device" (FL §3).
//!
//! The token is in URLs because Fleet Desktop puts it there. The page takes it out of the URL at once: a cookie that scripts can't
//! read replaces it, so that it stays neither in the history of the browser nor in a `Referer`.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use muster_core::ErrorKind;
use muster_core::agent::{AgentRecord, Family};
use muster_core::fleetd::desktop::DesktopOptions;
use muster_core::fleetd::inventory::Inventory;
use muster_core::fleetd::inventory::fleetdm::system_form;
use muster_core::fleetd::{ONLINE, device_token, numbers};
use muster_core::raw_json;
use muster_core::time::Timestamp;
use muster_fleet::agent_views::AgentView;
use muster_fleet::host_checks::AnsweredCheck;
use muster_fleet::registry::AgentEntry;
use muster_fleet::software::Installed;
use muster_listen::reply::{Peer, Reply};
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::headers::{self, DEVICE_COOKIE};
use super::route::{self, Route};
use super::{Inner, Nothing, device_checks, device_inventory, device_software, json as json_reply};

impl Inner {
    /// Handles a request of Fleet Desktop or a browser.
    pub(super) async fn device(&self, route: Route, head: &Parts, peer: &Client) -> Result<Reply, Failure> {
        let in_path = route::device_token(head.uri.path());
        match route {
            Route::DeviceServerPing => json_reply(&Nothing {}),
            Route::DevicePage => {
                let token = in_path.unwrap_or_default();
                self.device_of(token, peer).await?;
                Ok(without_token(StatusCode::SEE_OTHER, token, peer))
            }
            // The page shows what the organization knows about the host, which is what this link of Fleet Desktop is for.
            Route::DeviceTransparency => {
                let token = in_path.unwrap_or_default();
                self.device_of(token, peer).await?;
                Ok(without_token(StatusCode::TEMPORARY_REDIRECT, token, peer))
            }
            Route::DeviceHome => {
                // Without a token, nothing was guessed: many people behind one address may reload the page.
                let entry = self.device_of(token_of(head)?, peer).await?;
                Ok(html(StatusCode::OK, &page(&self.known_of(&entry).await?)))
            }
            Route::DevicePageRefetch => {
                // The cookie is not sent with requests that other sites cause.
                let entry = self.device_of(token_of(head)?, peer).await?;
                self.fleet.agents().refetch_device(&entry).await?;
                Ok(to_page(html(StatusCode::SEE_OTHER, "")))
            }
            Route::DeviceRefetch => {
                let entry = self.device_of(in_path.unwrap_or_default(), peer).await?;
                self.fleet.agents().refetch_device(&entry).await?;
                json_reply(&Nothing {}).map(not_stored)
            }
            _ => {
                let entry = self.device_of(in_path.unwrap_or_default(), peer).await?;
                let reply = if route == Route::DevicePing {
                    json_reply(&Nothing {})
                } else {
                    let known = self.known_of(&entry).await?;
                    match route {
                        Route::DeviceDesktop => {
                            json_reply(&desktop(device_checks::failing(&known.checks), &known.contact))
                        }
                        Route::DevicePolicies => json_reply(&json!({"policies": device_checks::data(&known.checks)})),
                        Route::DeviceCertificates => json_reply(&device_inventory::certificates(&known.inventory)),
                        _ => json_reply(&data(&known, self.fleet.now())),
                    }
                };
                reply.map(not_stored)
            }
        }
    }

    /// Returns what is known about the host of an orbit.
    async fn known_of(&self, entry: &AgentEntry) -> Result<Known, Failure> {
        let agents = self.fleet.agents().of_device(entry).await?;
        let checks = self.fleet.host_checks().of_device(entry, &agents).await?;
        let software = self.fleet.software().of_device(entry, &agents).await?;
        let inventory = self.fleet.inventory().of_device(entry, &agents).await?;
        let contact = self.fleet.fleetd_options().desktop(entry).await?;
        Ok(Known { facts: Facts::of(&agents), agents, checks, software, inventory, contact })
    }

    async fn device_of(&self, token: &str, peer: &Client) -> Result<Arc<AgentEntry>, Failure> {
        let (address, now) = (peer.ip(), self.fleet.now());
        if let Some(wait) = self.device_failures.refused_for(&address, now) {
            let message = "too many invalid device tokens from this address";
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyDeviceTokens", message);
            return Err(Failure { retry_after: Some(wait), ..failure });
        }
        // Before the look-up, so that no other text becomes a key.
        let found = match device_token::check(token) {
            Ok(()) => self.fleet.authentication().device_token(token).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(entry) => {
                self.device_failures.succeeded(&address);
                peer.authenticated_as(&entry);
                Ok(entry)
            }
            Err(error) if !matches!(error.kind, ErrorKind::Unauthenticated | ErrorKind::Invalid) => Err(error.into()),
            Err(_) => {
                if self.device_failures.failed(&address, now) {
                    self.guessed("device_token", &address).await;
                }
                Err(unknown_token())
            }
        }
    }
}

/// Returns the token in the cookie of a request.
fn token_of(head: &Parts) -> Result<&str, Failure> {
    headers::device_token(&head.headers).ok_or_else(unknown_token)
}

/// Makes a response lead to the page.
fn to_page(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(LOCATION, HeaderValue::from_static("/device"));
    reply
}

/// Keeps browsers and proxies from storing what the token gives access to.
fn not_stored(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn unknown_token() -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "InvalidDeviceToken", "Authentication required")
}

/// Returns the redirection to the page without the token in its URL.
fn without_token(status: StatusCode, token: &str, peer: &Peer) -> Reply {
    let mut reply = html(status, "");
    let secure = if peer.tls { "; Secure" } else { "" };
    let age = device_token::VALID_FOR.as_secs();
    let cookie = format!("{DEVICE_COOKIE}={token}; Path=/device; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    // The token was checked: it has no characters that a header can't contain.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        reply.headers_mut().insert(SET_COOKIE, cookie);
    }
    to_page(reply)
}

/// Creates a response with a page, which loads nothing and sends its URL nowhere.
pub(super) fn html(status: StatusCode, body: &str) -> Reply {
    const HEADERS: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            ),
        ),
    ];
    let mut reply = Response::new(Bytes::from(body.to_owned()).into());
    *reply.status_mut() = status;
    reply.headers_mut().extend(HEADERS);
    reply
}

/// Returns the page of an error.
pub(super) fn error_page(failure: &Failure) -> String {
    let text = match failure.status {
        StatusCode::UNAUTHORIZED => "This link has expired. Open My device from the Fleet icon again.",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests. Try again in a minute.",
        status if status.is_server_error() => "The server is not available now. Try again later.",
        _ => "There is no such page.",
    };
    document(&format!("<p>{text}</p>"))
}

/// Facts about the host, from what its agents report.
#[derive(Debug, Default)]
struct Facts {
    hostname: String,
    name: String,
    uuid: String,
    serial: String,
    model: String,
    platform: String,
    os: String,
    os_version: String,
    address: String,
    osquery: String,
    orbit: String,
}

impl Facts {
    fn of(agents: &[AgentView]) -> Self {
        // osquery's facts are newer and more than orbit's, which are from its enrollment.
        let mut texts: Vec<(bool, &str)> = Vec::new();
        for agent in agents {
            let metadata = agent.details.documents.local_metadata.as_deref();
            texts.extend(metadata.map(|raw| (agent.details.record.family != Family::Osquery, raw)));
        }
        texts.sort_by_key(|(is_later, _)| *is_later);
        let fact = |path: &[&str]| {
            let mut found = texts.iter().filter_map(|(_, raw)| raw_json::text(raw, path));
            found.find(|text| !text.is_empty()).map(std::borrow::Cow::into_owned).unwrap_or_default()
        };
        let mut address = String::new();
        for (_, raw) in &texts {
            raw_json::each_element(raw_json::at(raw, &["host", "ip"]).unwrap_or("[]"), |element| {
                address = raw_json::as_text(element).map(std::borrow::Cow::into_owned).unwrap_or_default();
                false
            });
            if !address.is_empty() {
                break;
            }
        }
        Self {
            hostname: fact(&["host", "hostname"]),
            name: fact(&["host", "name"]),
            uuid: fact(&["host", "id"]),
            serial: fact(&["hardware", "serial"]),
            model: fact(&["hardware", "model"]),
            platform: fact(&["os", "platform"]),
            os: fact(&["os", "name"]),
            os_version: fact(&["os", "version"]),
            osquery: fact(&["osquery", "version"]),
            orbit: fact(&["orbit", "version"]),
            address,
        }
    }
}

/// What is known about a host.
struct Known {
    facts: Facts,
    agents: Vec<AgentView>,
    checks: Vec<AnsweredCheck>,
    software: Installed,
    inventory: Inventory,
    contact: DesktopOptions,
}

fn seen(agents: &[AgentView]) -> Option<Timestamp> {
    agents.iter().filter_map(|agent| agent.last_checkin).max()
}

/// Returns the agent that stands for the host in FleetDM's API.
fn osquery(agents: &[AgentView]) -> Option<&AgentRecord> {
    agents.iter().map(|agent| &agent.details.record).find(|record| record.family == Family::Osquery)
}

/// Returns the data of the page for programs (FL §3.1). It contains what the page shows.
fn data(known: &Known, now: Timestamp) -> Value {
    let Known { facts, agents, checks, software, inventory, contact } = known;
    let osquery = osquery(agents);
    let is_online = osquery.is_some_and(|record| ONLINE.contains(&record.status));
    let mut data = json!({
        "host": {
            "id": osquery.and_then(|record| numbers::of_host(&record.id)),
            "status": if is_online { "online" } else { "offline" },
            "hostname": facts.hostname,
            "computer_name": facts.name,
            "display_name": if facts.name.is_empty() { &facts.hostname } else { &facts.name },
            "uuid": facts.uuid,
            "hardware_serial": facts.serial,
            "hardware_model": facts.model,
            "platform": facts.platform,
            "os_version": format!("{} {}", facts.os, facts.os_version).trim(),
            "osquery_version": facts.osquery,
            "orbit_version": facts.orbit,
            "primary_ip": facts.address,
            "seen_time": seen(agents).map(Timestamp::to_rfc3339_seconds),
            "policies": device_checks::data(checks),
            "software": device_software::data(software),
        },
        "self_service": false,
        "org_logo_url": "",
        "org_logo_url_light_background": "",
        "org_contact_url": contact.contact_url,
        "license": {"tier": "free"},
        "global_config": {
            "mdm": {"enabled_and_configured": false, "require_all_software": false},
            "features": {"enable_software_inventory": true},
        },
    });
    if let (Some(host), Value::Object(system)) = (data["host"].as_object_mut(), system_form(inventory, now)) {
        host.extend(system);
    }
    data
}

/// Returns the data of the tray icon (FL §3.1).
fn desktop(failing: usize, options: &DesktopOptions) -> Value {
    let (name, contact) = (&options.organization, &options.contact_url);
    json!({
        "failing_policies_count": failing,
        "self_service": false,
        "notifications": {"needs_mdm_migration": false, "renew_enrollment_profile": false},
        "config": {
            "org_info": {"org_name": name, "org_logo_url": "", "org_logo_url_light_background": "", "contact_url": contact},
            "mdm": {"macos_migration": {"mode": ""}},
        },
        "alternative_browser_host": options.alternative_browser_host,
    })
}

fn page(known: &Known) -> String {
    let Known { facts, agents, checks, software, inventory, contact } = known;
    let mut body = introduction(contact);
    body.push_str("<table>");
    let os = format!("{} {}", facts.os, facts.os_version);
    let seen = seen(agents).map(Timestamp::to_rfc3339_seconds).unwrap_or_default();
    let (disks, booted) = (device_inventory::disks(inventory), device_inventory::booted(inventory));
    for (name, value) in [
        ("Name", facts.name.as_str()),
        ("Host name", &facts.hostname),
        ("Operating system", os.trim()),
        ("Model", &facts.model),
        ("Serial number", &facts.serial),
        ("Hardware UUID", &facts.uuid),
        ("IP address", &facts.address),
        ("Disks", &disks),
        ("Last restart", &booted),
        ("osquery", &facts.osquery),
        ("orbit", &facts.orbit),
        ("Last seen", &seen),
    ] {
        let value = if value.is_empty() { "–".to_owned() } else { escaped(value) };
        let _ = write!(body, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }
    body.push_str("</table>");
    body.push_str("<form method=\"post\" action=\"/device/refetch\"><button>Refetch</button> ");
    body.push_str("The device reports again within a minute; then reload this page.</form>");
    body.push_str(&device_checks::section(checks));
    body.push_str(&device_software::section(software));
    body.push_str(&device_inventory::section(inventory));
    document(&body)
}

/// Returns whose server this is, and how to reach its administrators.
fn introduction(options: &DesktopOptions) -> String {
    let whose = match options.organization.as_str() {
        "" => "your organization's fleet server".to_owned(),
        name => format!("the fleet server of {}", escaped(name)),
    };
    let mut text = format!("<p>This is what {whose} knows about this device.");
    if !options.contact_url.is_empty() {
        // The options allow only links to web pages and addresses of mail.
        let _ = write!(
            text,
            " <a href=\"{}\" rel=\"noreferrer\">Contact the administrators</a>",
            escaped(&options.contact_url)
        );
    }
    text + "</p>"
}

fn document(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>My device</title><style>body{{font:16px/1.5 sans-serif;max-width:40em;\
         margin:2em auto;padding:0 1em}}th{{text-align:left;padding-right:2em;vertical-align:top}}td{{overflow-wrap:anywhere}}\
         </style></head><body><h1>My device</h1>{body}</body></html>"
    )
}

/// Escapes text for HTML. Everything that a host reports may be chosen by an attacker.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not shown, or shown as something else than what it is.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_has_no_markup() {
        assert_eq!(escaped("<b onx='1' y=\"2\">&\u{1b}"), "&lt;b onx=&#39;1&#39; y=&quot;2&quot;&gt;&amp;\u{fffd}");
    }
}
