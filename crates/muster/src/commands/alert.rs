//! `muster alert …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::alert::{AlertDigest, AlertReceiver, MuteAlertReceiver, SaveAlertReceiver};

use super::alert_target::TargetArgs;
use super::confirm::Care;
use super::failure::Failed;
use super::find::find_policy;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::text::print_line;
use super::times::seconds;

/// Verbs of `alert`.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// List receivers of alerts, and whether they can be reached
    #[command(after_help = "Examples:\n  muster alert list\n  muster alert list --output wide")]
    List(ListArgs),
    /// Show a receiver of alerts
    #[command(after_help = "Examples:\n  muster alert show on-call")]
    Show(ShowArgs),
    /// Create a receiver of alerts: a webhook, mailboxes, or a syslog server
    ///
    /// The receiver gets events that occur after it is created. The signing key of a webhook is generated and printed
    /// once, unless --secret-file is set.
    #[command(
        after_help = "Examples:\n  muster alert create on-call --webhook https://hooks.example.com/muster --event agent.offline --event agent.uninstalled\n  muster alert create mail --email ops@example.com --smtp mail.example.com --from muster@example.com --smtp-user muster --password-file password.txt\n  muster alert create siem --syslog siem.example.com:6514 --except-tag maintenance"
    )]
    Create(Box<CreateArgs>),
    /// Change a receiver of alerts
    ///
    /// Settings whose flags are not passed stay unchanged.
    #[command(
        after_help = "Examples:\n  muster alert update on-call --event agent.error --digest-threshold 5\n  muster alert update on-call --disable"
    )]
    Update(Box<UpdateArgs>),
    /// Send a test message, and print whether it was accepted
    #[command(after_help = "Examples:\n  muster alert test on-call")]
    Test(TestArgs),
    /// Mute a receiver
    ///
    /// Events that occur while it is muted are not sent later.
    #[command(after_help = "Examples:\n  muster alert mute on-call --for 2h\n  muster alert mute on-call --end")]
    Mute(MuteArgs),
    /// Delete a receiver of alerts, and the events that have not been sent to it
    #[command(after_help = "Examples:\n  muster alert delete on-call --yes")]
    Delete(DeleteArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Name or id
    name: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name
    name: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Name or id
    name: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// Send events again
    #[arg(long)]
    enable: bool,
    /// Send nothing until it is enabled
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Remove all existing conditions on events before adding those in this command
    #[arg(long)]
    clear_filter: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Name or id
    name: String,
}

/// Flags of `mute`.
#[derive(Args, Debug)]
pub struct MuteArgs {
    /// Name or id
    name: String,
    /// Duration, such as 2h; at most 30d
    #[arg(long = "for", value_name = "DURATION", value_parser = seconds, required_unless_present = "end")]
    duration: Option<i64>,
    /// Unmute the receiver
    #[arg(long, conflicts_with = "duration")]
    end: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Name or id
    name: String,
    #[command(flatten)]
    care: Care,
}

/// Which events are sent.
#[derive(Args, Debug)]
pub struct FilterArgs {
    /// Kind of events, such as agent.offline (repeatable) [default for a new receiver: all]
    #[arg(long = "event", value_name = "KIND")]
    events: Vec<String>,
    /// Policy of agents, by name or id (repeatable) [default for a new receiver: all]
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<String>,
    /// Tag of agents (repeatable) [default for a new receiver: all agents]
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Send no events about agents with this tag, such as maintenance (repeatable)
    #[arg(long = "except-tag", value_name = "TAG")]
    except_tags: Vec<String>,
    /// Minimum number of events of one kind that are combined into one message [default for a new receiver: 20]
    #[arg(long, value_name = "N")]
    digest_threshold: Option<u32>,
    /// Time for which frequent events, such as agent.offline, are held so that they can be combined [default for a new
    /// receiver: 60s]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    digest_window: Option<i64>,
}

impl FilterArgs {
    /// Adds what is set to a request.
    async fn add_to(self, request: &mut SaveAlertReceiver, client: &Client) -> Result<(), Failed> {
        // A flag that was not passed must not become an empty list, which would clear the condition.
        let set = |items: Vec<String>| Some(items).filter(|items| !items.is_empty());
        if !self.policies.is_empty() {
            let mut ids = Vec::new();
            for named in &self.policies {
                ids.push(find_policy(client, named).await?.id);
            }
            request.policy_ids = Some(ids);
        }
        // Flags take precedence over the empty lists of `--clear-filter`.
        request.events = set(self.events).or(request.events.take());
        request.tags = set(self.tags).or(request.tags.take());
        request.except_tags = set(self.except_tags).or(request.except_tags.take());
        if self.digest_threshold.is_some() || self.digest_window.is_some() {
            let window_seconds = self.digest_window.map(i64::unsigned_abs);
            request.digest = Some(AlertDigest { threshold: self.digest_threshold, window_seconds });
        }
        Ok(())
    }
}

const COLUMNS: &[Column<AlertReceiver>] = &[
    column("ID", |receiver| receiver.id.clone()),
    column("NAME", |receiver| receiver.name.clone()),
    column("TARGET", target),
    column("STATE", state),
    column("DELIVERED", |receiver| receiver.delivery.delivered.to_string()),
    column("LAST", |receiver| or_dash(receiver.delivery.last_delivered_at.as_deref())),
    column("REASON", |receiver| or_dash(receiver.delivery.reason.as_deref())),
    wide("EVENTS", |receiver| or_dash(Some(&receiver.events.join(",")))),
    wide("POLICIES", |receiver| or_dash(Some(&receiver.policy_ids.join(",")))),
    wide("TAGS", |receiver| or_dash(Some(&receiver.tags.join(",")))),
    wide("EXCEPT", |receiver| or_dash(Some(&receiver.except_tags.join(",")))),
    wide("MUTED UNTIL", |receiver| or_dash(receiver.muted_until.as_deref())),
    wide("RETRY", |receiver| or_dash(receiver.delivery.retry_at.as_deref())),
    wide("DROPPED", |receiver| receiver.delivery.dropped.to_string()),
    wide("SUPPRESSED", |receiver| receiver.delivery.suppressed.to_string()),
];

fn target(receiver: &AlertReceiver) -> String {
    match (&receiver.webhook, &receiver.email, &receiver.syslog) {
        (Some(webhook), _, _) => webhook.url.clone(),
        (_, Some(email), _) => email.to.join(","),
        (_, _, Some(syslog)) => format!("syslog {}:{}", syslog.host, syslog.port.unwrap_or_default()),
        _ => "-".to_owned(),
    }
}

fn state(receiver: &AlertReceiver) -> String {
    match (receiver.enabled, &receiver.delivery.failing_since) {
        (false, _) => "disabled",
        (true, Some(_)) => "failing",
        (true, None) => "ok",
    }
    .to_owned()
}

impl AlertCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                let receivers = client.alert_receivers().await?.items;
                print_list(&receivers, args.output.output, COLUMNS, |receiver| receiver.id.clone())
            }
            Self::Show(args) => print(&find(client, &args.name).await?, args.output),
            Self::Create(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Test(args) => args.run(client).await,
            Self::Mute(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
        }
    }
}

fn print(receiver: &AlertReceiver, output: OutputArg) -> Result<(), Failed> {
    print_one(receiver, output.output, COLUMNS, |receiver| receiver.id.clone())
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut request = SaveAlertReceiver { name: Some(self.name), ..SaveAlertReceiver::default() };
        self.target.add_to(&mut request, None)?;
        self.filter.add_to(&mut request, client).await?;
        let made = client.create_alert_receiver(&request).await?;
        print(&made, self.output)?;
        match made.webhook.and_then(|webhook| webhook.secret) {
            // To the error stream: the output can be a pipe for programs, which find it in JSON and YAML.
            Some(secret) => {
                eprintln!("signing key, which is not shown again: {secret}");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl UpdateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.name).await?;
        let mut request = SaveAlertReceiver { name: self.rename, ..SaveAlertReceiver::default() };
        request.enabled = match (self.enable, self.disable) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        if self.clear_filter {
            request.events = Some(Vec::new());
            request.policy_ids = Some(Vec::new());
            request.tags = Some(Vec::new());
            request.except_tags = Some(Vec::new());
        }
        self.target.add_to(&mut request, Some(&found))?;
        self.filter.add_to(&mut request, client).await?;
        print(&client.update_alert_receiver(&found.id, &request).await?, self.output)
    }
}

impl TestArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.name).await?;
        let outcome = client.test_alert_receiver(&found.id).await?;
        match outcome.error {
            None => print_line(format!("{}: accepted", found.name)),
            Some(error) => Err(Failed::new(format!("the test message was not accepted: {error}"))),
        }
    }
}

impl MuteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.name).await?;
        // Without a duration, the server ends the mute.
        let duration_seconds = self.duration.filter(|_| !self.end).map(i64::unsigned_abs);
        print(&client.mute_alert_receiver(&found.id, &MuteAlertReceiver { duration_seconds }).await?, self.output)
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.name).await?;
        let question = format!("Delete the receiver {:?}?", found.name);
        let delete = async |dry_run| client.delete_alert_receiver(&found.id, dry_run).await;
        self.care.delete(&found.name, &question, delete).await
    }
}

/// Returns the receiver with this id, else with this name.
async fn find(client: &Client, named: &str) -> Result<AlertReceiver, Failed> {
    let receivers = client.alert_receivers().await?.items;
    let by_id = receivers.iter().position(|receiver| receiver.id == named);
    let place = by_id.or_else(|| receivers.iter().position(|receiver| receiver.name == named));
    place
        .and_then(|place| receivers.into_iter().nth(place))
        .ok_or_else(|| Failed::not_found(format!("no receiver of alerts with the name or id {named:?}")))
}
