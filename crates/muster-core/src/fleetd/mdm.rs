//! Documents with which an MDM server delivers fleetd: the profile of its settings for macOS, and the command that
//! installs it on Windows.
//!
//! The same parameters always result in the same bytes: an MDM server delivers a document again when it changes.

use plist::{Dictionary, Value};
use quick_xml::escape::escape;

/// Identifier and type of fleetd's payload.
const FLEETD: &str = "com.fleetdm.fleetd.config";
/// Ids of the profile and its payload. Constant, so that a new profile replaces the old one.
const PROFILE_ID: &str = "7C4E9D0B-52A1-4B39-9C08-6E1F2B7A9D34";
const PAYLOAD_ID: &str = "1B6F3E52-0D97-4A8C-B7C5-94E8D2A06F71";
/// Product id of fleetd's MSI package, as a path segment. Windows installs a product once.
const PRODUCT: &str = "%7BA427C0AA-E2D5-40DF-ACE8-0D726A6BE096%7D";

/// What fleetd needs to enroll.
pub struct Enrollment<'a> {
    /// URL of the server.
    pub url: &'a str,
    /// Enroll secret.
    pub secret: &'a str,
    /// Whether the server may run scripts on the host.
    pub scripts: bool,
}

/// Creates a configuration profile for macOS, which fleetd packages built with `--use-system-configuration` read.
///
/// # Errors
/// Only if memory is exhausted: the document is written into it.
pub fn profile(enrollment: &Enrollment<'_>) -> Result<Vec<u8>, plist::Error> {
    let text = |text: &str| Value::String(text.to_owned());
    let common = |id: &str, kind: &str, name: &str, identifier: &str| {
        let mut keys = Dictionary::new();
        keys.insert("PayloadDisplayName".into(), text(name));
        keys.insert("PayloadIdentifier".into(), text(identifier));
        keys.insert("PayloadType".into(), text(kind));
        keys.insert("PayloadUUID".into(), text(id));
        keys.insert("PayloadVersion".into(), Value::Integer(1.into()));
        keys
    };
    let mut payload = common(PAYLOAD_ID, FLEETD, "fleetd", FLEETD);
    payload.insert("EnableScripts".into(), Value::Boolean(enrollment.scripts));
    payload.insert("EnrollSecret".into(), text(enrollment.secret));
    payload.insert("FleetURL".into(), text(enrollment.url));
    let mut profile = common(PROFILE_ID, "Configuration", "Settings of fleetd", "com.fleetdm.fleetd.config.profile");
    profile.insert("PayloadContent".into(), Value::Array(vec![Value::Dictionary(payload)]));
    // fleetd runs for the system, before a user logs in.
    profile.insert("PayloadScope".into(), text("System"));
    let mut bytes = Vec::new();
    Value::Dictionary(profile).to_writer_xml(&mut bytes)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Creates the SyncML command that installs an MSI package of fleetd on Windows, from its URL and the SHA-256 of its bytes
/// in hexadecimal.
///
/// `Add` and `Exec` are one document: as two commands of one second, they could arrive in the wrong order.
pub fn command(enrollment: &Enrollment<'_>, package: &str, sha256: &str) -> String {
    let target = format!("./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{PRODUCT}/DownloadInstall");
    let scripts = if enrollment.scripts { r#" ENABLE_SCRIPTS="True""# } else { "" };
    let line = format!(
        r#"/quiet FLEET_URL="{}" FLEET_SECRET="{}"{scripts}"#,
        property(enrollment.url),
        property(enrollment.secret)
    );
    let id = PRODUCT.replace("%7B", "{").replace("%7D", "}");
    let (line, package, sha256) = (escape(line), escape(package), sha256.to_ascii_uppercase());
    format!(
        "<Add>
  <CmdID>1</CmdID>
  <Item><Target><LocURI>{target}</LocURI></Target></Item>
</Add>
<Exec>
  <CmdID>2</CmdID>
  <Item>
    <Target><LocURI>{target}</LocURI></Target>
    <Meta><Format xmlns=\"syncml:metinf\">xml</Format><Type xmlns=\"syncml:metinf\">text/plain</Type></Meta>
    <Data>
      <MsiInstallJob id=\"{id}\">
        <Product Version=\"1.0.0.0\">
          <Download><ContentURLList><ContentURL>{package}</ContentURL></ContentURLList></Download>
          <Validation><FileHash>{sha256}</FileHash></Validation>
          <Enforcement>
            <CommandLine>{line}</CommandLine>
            <TimeOut>10</TimeOut><RetryCount>1</RetryCount><RetryInterval>5</RetryInterval>
          </Enforcement>
        </Product>
      </MsiInstallJob>
    </Data>
  </Item>
</Exec>
"
    )
}

/// Validates a URL that fleetd and Windows can use, and returns it without a slash at its end.
///
/// # Errors
/// The reason why it is none.
pub fn check_url(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("https://").ok_or("must begin with https://")?;
    let is_plain =
        !rest.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '@'));
    if is_plain { Ok(text.trim_end_matches('/').to_owned()) } else { Err("is not a URL") }
}

/// Validates a SHA-256 in hexadecimal.
///
/// # Errors
/// The reason why it is none.
pub fn check_sha256(text: &str) -> Result<String, &'static str> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { Ok(text.to_owned()) } else { Err("must be 64 hexadecimal digits") }
}

/// Returns a value of a property on msiexec's command line, where a quotation mark is doubled.
fn property(value: &str) -> String {
    value.replace('"', "\"\"")
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::*;

    const SECRET: &str = r#"a'b"c$d&e!f g#h%i<j>"#;

    fn enrollment(scripts: bool) -> Enrollment<'static> {
        Enrollment { url: "https://fleet.example:8220", secret: SECRET, scripts }
    }

    #[test]
    fn m34_fl79_a_profile_contains_the_secret_unchanged() {
        let bytes = profile(&enrollment(true)).unwrap();
        assert_eq!(bytes, profile(&enrollment(true)).unwrap());
        let read = Value::from_reader_xml(bytes.as_slice()).unwrap();
        let profile = read.as_dictionary().unwrap();
        assert_eq!(profile["PayloadType"].as_string(), Some("Configuration"));
        let payload = profile["PayloadContent"].as_array().unwrap()[0].as_dictionary().unwrap();
        assert_eq!(payload["PayloadType"].as_string(), Some(FLEETD));
        assert_eq!(payload["EnrollSecret"].as_string(), Some(SECRET));
        assert_eq!(payload["FleetURL"].as_string(), Some("https://fleet.example:8220"));
        assert_eq!(payload["EnableScripts"].as_boolean(), Some(true));
    }

    /// Returns the text of each element with this name.
    fn texts(xml: &str, name: &str) -> Vec<String> {
        // A document has one root; a SyncML body has several.
        let xml = format!("<SyncBody>{xml}</SyncBody>");
        let (mut reader, mut texts, mut is_inside) = (Reader::from_str(&xml), Vec::new(), false);
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => {
                    is_inside = start.name().as_ref() == name;
                    if is_inside {
                        texts.push(String::new());
                    }
                }
                Event::Text(text) if is_inside => texts.last_mut().unwrap().push_str(&text),
                Event::GeneralRef(entity) if is_inside => {
                    let entity = format!("&{};", &*entity);
                    texts.last_mut().unwrap().push_str(&quick_xml::escape::unescape(&entity).unwrap());
                }
                Event::End(_) => is_inside = false,
                Event::Eof => return texts,
                _ => {}
            }
        }
    }

    #[test]
    fn a_command_installs_the_package_with_url_and_secret() {
        let xml = command(&enrollment(false), "https://cdn.example/fleetd.msi?a=1&b=2", "ab12");
        let line = r#"/quiet FLEET_URL="https://fleet.example:8220" FLEET_SECRET="a'b""c$d&e!f g#h%i<j>""#;
        assert_eq!(texts(&xml, "CommandLine"), [line]);
        assert_eq!(texts(&xml, "ContentURL"), ["https://cdn.example/fleetd.msi?a=1&b=2"]);
        assert_eq!(texts(&xml, "FileHash"), ["AB12"]);
        let targets = texts(&xml, "LocURI");
        assert_eq!((targets.len(), &targets[0]), (2, &targets[1]), "both are for the same product");
        assert!(command(&enrollment(true), "https://cdn.example/f.msi", "ab").contains("ENABLE_SCRIPTS="));
    }
}
