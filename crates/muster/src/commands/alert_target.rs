//! Where a receiver of alerts is: the flags of webhooks, mail and syslog.

use camino::Utf8PathBuf;
use clap::Args;
use muster_protocol::management::alert::{AlertReceiver, Email, SaveAlertReceiver, Syslog, Webhook};

use super::failure::Failed;

/// Maximum length of a file with a secret or certificates, bytes.
const MAX_FILE: u64 = 64 << 10;

/// Flags of a target.
#[derive(Args, Debug)]
pub struct TargetArgs {
    /// URL to which events are posted
    #[arg(long, value_name = "URL", conflicts_with_all = ["email", "smtp", "from", "syslog"])]
    webhook: Option<String>,
    /// File with the webhook's signing key [default for a new receiver: generated]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<Utf8PathBuf>,
    /// Email address of a recipient (repeatable)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "syslog")]
    email: Vec<String>,
    /// Mail server [default port: 465; 587 with `starttls`; 25 without encryption]
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "syslog")]
    smtp: Option<String>,
    /// Encryption of the connection to the mail server
    #[arg(long, value_name = "MODE", value_parser = ["tls", "starttls", "none"])]
    smtp_security: Option<String>,
    /// User name for the mail server
    #[arg(long, value_name = "NAME")]
    smtp_user: Option<String>,
    /// File with the password of --smtp-user
    #[arg(long, value_name = "FILE")]
    password_file: Option<Utf8PathBuf>,
    /// Email address of the sender
    #[arg(long, value_name = "ADDRESS", conflicts_with = "syslog")]
    from: Option<String>,
    /// Syslog server [default port: 6514; 601 with --syslog-plain]
    #[arg(long, value_name = "HOST[:PORT]")]
    syslog: Option<String>,
    /// Connect to the syslog server without TLS
    #[arg(long)]
    syslog_plain: bool,
    /// PEM file with the CAs of the receiver, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<Utf8PathBuf>,
}

impl TargetArgs {
    /// Adds the target to a request, if a flag changes it. `known` is the receiver that the request changes.
    pub fn add_to(self, request: &mut SaveAlertReceiver, known: Option<&AlertReceiver>) -> Result<(), Failed> {
        let ca = self.ca_file.as_ref().map(read).transpose()?;
        let is_mail = !self.email.is_empty() || self.smtp.is_some() || self.from.is_some();
        let is_mail_flag = self.smtp_security.is_some() || self.smtp_user.is_some() || self.password_file.is_some();
        let known_mail = known.and_then(|known| known.email.clone());
        let known_hook = known.and_then(|known| known.webhook.clone());
        let known_syslog = known.and_then(|known| known.syslog.clone());
        // Flags that several kinds of targets have belong to the kind that is known.
        if self.webhook.is_some() || (known_hook.is_some() && (self.secret_file.is_some() || ca.is_some())) {
            request.webhook = Some(self.webhook(known_hook, ca)?);
        } else if is_mail || (known_mail.is_some() && (is_mail_flag || ca.is_some())) {
            request.email = Some(self.mail(known_mail, ca)?);
        } else if self.syslog.is_some() || (known_syslog.is_some() && (self.syslog_plain || ca.is_some())) {
            request.syslog = Some(self.server(known_syslog, ca)?);
        }
        Ok(())
    }

    fn webhook(self, known: Option<Webhook>, ca: Option<String>) -> Result<Webhook, Failed> {
        let known = known.unwrap_or_default();
        let secret = self.secret_file.as_ref().map(read_line).transpose()?;
        Ok(Webhook { url: self.webhook.unwrap_or(known.url), secret, ca: ca.or(known.ca) })
    }

    fn mail(self, known: Option<Email>, ca: Option<String>) -> Result<Email, Failed> {
        let known = known.unwrap_or_default();
        let password = self.password_file.as_ref().map(read_line).transpose()?;
        let (host, port) = match self.smtp {
            Some(server) => host_and_port(&server)?,
            None => (known.host, known.port),
        };
        Ok(Email {
            host,
            port,
            security: self.smtp_security.or(known.security),
            username: self.smtp_user.or(known.username),
            password,
            from: self.from.unwrap_or(known.from),
            to: if self.email.is_empty() { known.to } else { self.email },
            ca: ca.or(known.ca),
        })
    }

    fn server(self, known: Option<Syslog>, ca: Option<String>) -> Result<Syslog, Failed> {
        let known = known.unwrap_or_default();
        let (host, port) = match self.syslog {
            Some(server) => host_and_port(&server)?,
            None => (known.host, known.port),
        };
        let tls = if self.syslog_plain { false } else { known.tls.unwrap_or(true) };
        Ok(Syslog { host, port, tls: Some(tls), ca: ca.or(known.ca) })
    }
}

/// Splits `host:port`, with brackets around an IPv6 address.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), Failed> {
    let invalid = || Failed::usage(format!("{text:?} is not HOST or HOST:PORT"));
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let port = port.parse().map_err(|_| invalid())?;
            Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), Some(port)))
        }
        // Without a port: the colons are those of an IPv6 address.
        _ => Ok((text.trim_start_matches('[').trim_end_matches(']').to_owned(), None)),
    }
}

fn read(path: &Utf8PathBuf) -> Result<String, Failed> {
    if fs_err::metadata(path)?.len() > MAX_FILE {
        return Err(Failed::usage(format!("{path} is larger than {MAX_FILE} bytes")));
    }
    Ok(fs_err::read_to_string(path)?)
}

/// Reads a secret, without the line break at its end.
fn read_line(path: &Utf8PathBuf) -> Result<String, Failed> {
    Ok(read(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_split_off() {
        let split = |text: &str| host_and_port(text).unwrap();
        assert_eq!(split("mail.example.com"), ("mail.example.com".into(), None));
        assert_eq!(split("mail.example.com:25"), ("mail.example.com".into(), Some(25)));
        assert_eq!(split("[2001:db8::1]:25"), ("2001:db8::1".into(), Some(25)));
        assert_eq!(split("2001:db8::1"), ("2001:db8::1".into(), None));
        assert!(host_and_port("mail:smtp").is_err());
    }
}
