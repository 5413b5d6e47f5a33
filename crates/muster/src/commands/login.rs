//! `muster login` and `muster device …`: login of a command with a code that a person approves (RFC 8628).

use std::time::Duration;

use clap::{Args, Subcommand};
use muster_client::{Client, ErrorCode, HttpOptions};
use muster_protocol::management::identity::Token;
use muster_protocol::management::log_in::{BeginDevice, DecideDevice, Device, DeviceBegun, PollDevice};
use tokio::time::Instant;

use super::authorities;
use super::connect::Connect;
use super::contexts::{Context, Contexts};
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_one};
use super::text::print_line;

/// What is added to the interval when the server asks for slower polls (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Maximum interval between two polls.
const SLOWEST: Duration = Duration::from_secs(60);

/// Flags of `login`.
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// Name of the context that gets the token [default: --context, or the host of --url]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Verbs of `device`.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Show the device that displays a login code and waits for approval
    #[command(after_help = "Examples:\n  muster device show WDJB-MJHT")]
    Show(CodeArgs),
    /// Approve a device: it acts as you, with your privileges, for at most 12 hours
    ///
    /// Approve only a login that you started yourself.
    #[command(after_help = "Examples:\n  muster device approve WDJB-MJHT")]
    Approve(CodeArgs),
    /// Deny a device
    #[command(after_help = "Examples:\n  muster device deny WDJB-MJHT")]
    Deny(CodeArgs),
}

/// The code of a device.
#[derive(Args, Debug)]
pub struct CodeArgs {
    /// Code that the device shows
    code: String,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<Device>] = &[
    column("CODE", |device| device.user_code.clone()),
    column("DEVICE", |device| or_dash(Some(&device.device))),
    column("ADDRESS", |device| or_dash(device.address.as_deref())),
    column("STATE", |device| device.state.clone()),
    column("VALID UNTIL", |device| device.expires_at.clone()),
];

impl DeviceCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let decide = |args: &CodeArgs| DecideDevice { user_code: args.code.clone() };
        let (device, output) = match self {
            Self::Show(args) => (client.device(&args.code).await?, args.output),
            Self::Approve(args) => (client.approve_device(&decide(&args)).await?, args.output),
            Self::Deny(args) => (client.deny_device(&decide(&args)).await?, args.output),
        };
        print_one(&device, output.output, COLUMNS, |device| device.user_code.clone())
    }
}

impl LoginArgs {
    /// Logs in, and stores the token in a context.
    pub async fn run(self, connect: &Connect) -> Result<(), Failed> {
        // Before the login: a file that cannot be read could not take the token either.
        let mut contexts = Contexts::load()?;
        let (name, context) = self.target(connect, &contexts)?;
        let options = HttpOptions { ca_pem: context.ca.as_deref().map(authorities::read).transpose()? };
        // Without the token of the context, which has probably expired.
        let client = Client::http_with(&context.url, None, &options)?;
        let begun = client.begin_device(&BeginDevice { device: host_name() }).await?;
        print_line(format!(
            "To log in, open {}{}\nand approve the code {}",
            context.url.trim_end_matches('/'),
            begun.verification_path,
            begun.user_code
        ))?;
        let token = wait(&client, &begun).await?;
        let until = or_dash(token.expires_at.as_deref());
        contexts.contexts.insert(name.clone(), Context { token: token.token, ..context });
        contexts.current = Some(name.clone());
        contexts.save()?;
        print_line(format!("logged in until {until}; current context: {name}"))
    }

    /// Returns the context to log in to: that of `--url`, or an existing one.
    fn target(self, connect: &Connect, contexts: &Contexts) -> Result<(String, Context), Failed> {
        if let Some(url) = &connect.url {
            let host = url.split("://").nth(1).unwrap_or(url).split(['/', ':']).next().unwrap_or_default();
            let name = self.name.unwrap_or_else(|| host.to_owned());
            let ca = connect.ca.as_deref().map(camino::absolute_utf8).transpose()?;
            return Ok((name, Context { url: url.clone(), token: None, ca, space: connect.space.clone() }));
        }
        let missing = || Failed::usage("--url is required").remedy("muster login --url https://HOST:8230");
        let existing = connect.context.clone().or_else(|| contexts.current.clone()).ok_or_else(missing)?;
        let context = contexts.find(&existing)?.clone();
        Ok((self.name.unwrap_or(existing), context))
    }
}

/// Polls until somebody has decided, or the code has ended.
async fn wait(client: &Client, begun: &DeviceBegun) -> Result<Token, Failed> {
    let end = Instant::now() + Duration::from_secs(begun.expires_in);
    let mut interval = Duration::from_secs(begun.interval.max(1));
    loop {
        tokio::time::sleep(interval.min(SLOWEST)).await;
        match client.poll_device(&PollDevice { device_code: begun.device_code.clone() }).await {
            Ok(token) => return Ok(token),
            Err(error) if Instant::now() < end => match error.code() {
                Some(ErrorCode::AuthorizationPending) => {}
                Some(ErrorCode::SlowDown) => interval += SLOWER,
                _ => return Err(error.into()),
            },
            // The code has ended, so that no further poll can succeed.
            Err(error) => return Err(error.into()),
        }
    }
}

fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?;
    name.into_string().ok()
}
