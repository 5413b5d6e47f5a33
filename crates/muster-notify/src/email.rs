//! Mail over SMTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::Envelope;
use lettre::message::{Mailbox, header};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use muster_core::alert::{MailSecurity, Message, Target};
use muster_core::error_chain::chain;
use muster_core::event::Severity;
use muster_fleet::alerts::sender::SendError;
use muster_fleet::outgoing::LocalTargets;

use crate::unreadable;

/// Rejects addresses that can't be used.
pub(crate) fn check(from: &str, to: &[String]) -> Result<(), SendError> {
    mailbox("email.from", from)?;
    to.iter().try_for_each(|one| mailbox("email.to", one).map(drop))
}

fn mailbox(field: &'static str, text: &str) -> Result<Mailbox, SendError> {
    text.parse().map_err(|_| SendError::Unusable { field, reason: format!("{text:?} is not an email address") })
}

fn failed(error: &lettre::transport::smtp::Error) -> SendError {
    // The text of a server's response is the server's, and may be anything.
    let reason = match error.status() {
        Some(code) => format!("the mail server responded with {code}"),
        None if error.is_tls() => format!("TLS handshake failed: {error}"),
        None => format!("the mail server cannot be used: {error}"),
    };
    SendError::Failed(reason)
}

/// Sends a message to all recipients, by one transaction.
pub(crate) async fn send(
    local: LocalTargets,
    target: &Target,
    secret: Option<&str>,
    message: &Message,
) -> Result<(), SendError> {
    let Target::Email { host, port, security, username, from, to, ca, .. } = target else {
        return Err(SendError::Failed("not a mail receiver".to_owned()));
    };
    let (envelope, text) = compose(from, to, message)?;
    let tls = match security {
        MailSecurity::None => None,
        MailSecurity::Tls | MailSecurity::Starttls => Some(parameters(host, ca.as_deref())?),
    };
    let mut connection = connect(local, (host, *port), *security, tls).await?;
    if let Some(name) = username {
        let password = secret.ok_or_else(|| unreadable("email.password"))?;
        let credentials = Credentials::new(name.clone(), password.to_owned());
        let answer = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
        answer.map_err(|error| failed(&error))?;
    }
    connection.send(&envelope, &text).await.map_err(|error| failed(&error))?;
    // The message is accepted; whether the farewell arrives does not matter.
    let _ = connection.quit().await;
    Ok(())
}

/// Connects to an address that is permitted. STARTTLS is required where it is configured: nothing is sent in plain text if
/// somebody in between removes it from the server's greeting.
async fn connect(
    local: LocalTargets,
    (host, port): (&str, u16),
    security: MailSecurity,
    tls: Option<TlsParameters>,
) -> Result<AsyncSmtpConnection, SendError> {
    let addresses = local.resolve(host, port).await.map_err(crate::unresolved)?;
    let name = ClientId::default();
    let immediate = tls.clone().filter(|_| security == MailSecurity::Tls);
    let connected =
        AsyncSmtpConnection::connect_tokio1(addresses.as_slice(), Some(crate::TIMEOUT), &name, immediate, None).await;
    let mut connection = connected.map_err(|error| failed(&error))?;
    if let Some(tls) = tls.filter(|_| security == MailSecurity::Starttls) {
        connection.starttls(tls, &name).await.map_err(|error| failed(&error))?;
    }
    Ok(connection)
}

fn parameters(host: &str, ca: Option<&str>) -> Result<TlsParameters, SendError> {
    // Fails only if a provider is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let unusable = |reason: String| SendError::Unusable { field: "email.ca", reason };
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(pem) = ca {
        // The given CA replaces those of the system.
        builder = builder.certificate_store(CertificateStore::None);
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(|error| unusable(chain(&error).to_string()))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(|error| unusable(chain(&error).to_string()))
}

/// Returns the envelope and the text of a mail.
fn compose(from: &str, to: &[String], message: &Message) -> Result<(Envelope, Vec<u8>), SendError> {
    let mut builder = lettre::Message::builder()
        .from(mailbox("email.from", from)?)
        .raw_header(subject(&format!("[Muster] {}", message.summary())))
        // The domain belongs to nobody (RFC 2606).
        .message_id(Some(format!("<{}@muster.invalid>", message.id)))
        .header(header::ContentType::TEXT_PLAIN);
    for one in to {
        builder = builder.to(mailbox("email.to", one)?);
    }
    let mail = builder.body(text(message)).map_err(|error| SendError::Failed(format!("cannot compose: {error}")))?;
    Ok((mail.envelope().clone(), mail.formatted()))
}

/// Returns the subject. Names come from agents: one that looks like an encoded word (RFC 2047) would be shown decoded, so
/// that the whole text is encoded then; the library encodes only what is not ASCII.
fn subject(text: &str) -> header::HeaderValue {
    const NAME: header::HeaderName = header::HeaderName::new_from_ascii_str("Subject");
    if !text.contains("=?") {
        return header::HeaderValue::new(NAME, text.to_owned());
    }
    let mut words: Vec<String> = vec![String::new()];
    for character in text.chars() {
        // An encoded word has at most 75 characters, and contains whole characters.
        if words.last().is_some_and(|word| word.len() + character.len_utf8() > 42) {
            words.push(String::new());
        }
        words.last_mut().into_iter().for_each(|word| word.push(character));
    }
    let encoded: Vec<String> = words.iter().map(|word| format!("=?utf-8?b?{}?=", STANDARD.encode(word))).collect();
    header::HeaderValue::dangerous_new_pre_encoded(NAME, text.to_owned(), encoded.join("\r\n "))
}

fn text(message: &Message) -> String {
    let urgency = match message.kind.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
        Severity::Info => "information",
    };
    let detail = serde_json::to_string_pretty(&message.to_json()).unwrap_or_default();
    format!("{}\n\nTime: {}\nSpace: {}\nUrgency: {urgency}\n\n{detail}\n", message.summary(), message.at, message.space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str) -> String {
        let mail =
            lettre::Message::builder().from("a@example.com".parse().unwrap()).to("b@example.com".parse().unwrap());
        let mail = mail.raw_header(subject(text)).body(String::new()).unwrap();
        String::from_utf8(mail.formatted()).unwrap()
    }

    #[test]
    fn a_name_that_looks_like_an_encoded_word_is_encoded() {
        assert!(formatted("[Muster] agent web-1").contains("Subject: [Muster] agent web-1\r\n"));
        let mail = formatted("[Muster] agent =?utf-8?B?ZXZpbA==?= in a rack with a long name: ünterföhring");
        let lines: Vec<&str> = mail.split("\r\n").skip_while(|line| !line.starts_with("Subject: ")).take(3).collect();
        assert!(!mail.contains("ZXZpbA"), "{mail}");
        let words = lines.iter().map(|line| line.trim_start_matches("Subject:").trim_start());
        let decoded: Vec<u8> = words
            .map_while(|word| word.strip_prefix("=?utf-8?b?")?.strip_suffix("?="))
            .flat_map(|word| STANDARD.decode(word).unwrap())
            .collect();
        assert_eq!(
            String::from_utf8(decoded).unwrap(),
            "[Muster] agent =?utf-8?B?ZXZpbA==?= in a rack with a long name: ünterföhring"
        );
        assert!(formatted("[Muster] agent ä").contains("Subject: [Muster] agent =?utf-8?b?"), "by the library");
    }
}
