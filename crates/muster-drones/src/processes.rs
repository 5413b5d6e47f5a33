//! Several processes: the leading one starts itself again for each share, sends commands over standard input, and reads
//! events from standard output.
//!
//! Each share sends [`Event::Ready`]; once all have, each gets a line, and the measured part begins. The end of its input
//! stops a share, so that none outlives the leading process.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::args::DronesArgs;
use crate::check_in::Phase;
use crate::dial::configuration;
use crate::event::Event;
use crate::report::Report;
use crate::share;

/// Time for shares to send their summaries.
const SUMMARIES: Duration = Duration::from_secs(10);

/// Runs the load that the arguments describe until it is done, the time is up, or an interrupt.
///
/// # Errors
/// If the server's address or CA is unusable, or a process can't be started.
pub async fn run(args: &DronesArgs) -> anyhow::Result<()> {
    match args.share {
        Some(share) => follow(args, share).await,
        None => lead(args).await,
    }
}

/// Runs one share in this process: events to standard output, commands from standard input.
async fn follow(args: &DronesArgs, share: u32) -> anyhow::Result<()> {
    let (events, mut told) = share::events();
    let (phases, phase) = watch::channel(Phase::Waiting);
    follow_commands(phases);
    // An interrupt reaches the whole process group; this process stops when the leading one says so.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let writer = tokio::spawn(async move {
        let mut out = tokio::io::stdout();
        while let Some(event) = told.recv().await {
            let Ok(mut line) = serde_json::to_vec(&event) else { continue };
            line.push(b'\n');
            if out.write_all(&line).await.is_err() || out.flush().await.is_err() {
                return;
            }
        }
    });
    let outcome = share::run(args, share, events, phase).await;
    writer.await?;
    outcome
}

/// Reads standard input in a thread of its own; unlike tokio's, it does not keep the program from exiting.
fn follow_commands(phases: watch::Sender<Phase>) {
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            phases.send_replace(Phase::Running);
        }
        phases.send_replace(Phase::Stopped);
    });
}

/// The leading process: starts the shares, sends commands, collects events.
async fn lead(args: &DronesArgs) -> anyhow::Result<()> {
    // An unusable CA is reported once and at once, not by every share.
    configuration(&args.ca, args.resume_tls)?;
    let (events, told) = share::events();
    let (phases, phase) = watch::channel(Phase::Waiting);
    let shares = if args.processes <= 1 {
        // Without other processes there is nothing to start: the share runs in this one.
        let args = args.clone();
        vec![tokio::spawn(async move { share::run(&args, 0, events, phase).await })]
    } else {
        let children = (0..args.processes).map(|share| start(share, events.clone(), phase.clone()));
        children.collect::<anyhow::Result<Vec<_>>>()?
    };
    listen(args, told, phases).await?;
    for share in shares {
        share.await??;
    }
    Ok(())
}

/// Starts this program again with the same arguments and a share.
fn start(
    share: u32,
    events: UnboundedSender<Event>,
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    // The same program with the same arguments: no share can differ from another.
    let program = std::env::current_exe().context("can't find this program")?;
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--share")
        .arg(share.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("can't start a process for a share")?;
    Ok(tokio::spawn(attend(child, share, events, phase)))
}

/// Passes a child's events on and the phase's changes down to it.
async fn attend(
    mut child: Child,
    share: u32,
    events: UnboundedSender<Event>,
    mut phase: watch::Receiver<Phase>,
) -> anyhow::Result<()> {
    let mut input = child.stdin.take().context("no standard input")?;
    let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    tokio::spawn(async move {
        while phase.changed().await.is_ok() && *phase.borrow_and_update() == Phase::Running {
            if input.write_all(b"go\n").await.is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.next_line().await? {
        let event = serde_json::from_str(&line).with_context(|| format!("share {share} sent {line:?}"))?;
        let _ = events.send(event);
    }
    // After the end of its output: a share that failed has said so on standard error.
    let status = child.wait().await?;
    anyhow::ensure!(status.success(), "the process of share {share} ended with {status}");
    Ok(())
}

/// Handles events until every share has ended.
async fn listen(
    args: &DronesArgs,
    mut told: UnboundedReceiver<Event>,
    phases: watch::Sender<Phase>,
) -> anyhow::Result<()> {
    let mut report = Report::new(args);
    let interrupted = tokio::signal::ctrl_c();
    let closed = input_closed(args.json);
    let (mut interrupted, mut closed) = (std::pin::pin!(interrupted), std::pin::pin!(closed));
    let mut deadline = None;
    loop {
        tokio::select! {
            event = told.recv() => {
                let Some(event) = event else { break };
                if report.take(event)? && *phases.borrow() == Phase::Waiting {
                    phases.send_replace(Phase::Running);
                    let seconds = Duration::try_from_secs_f64(args.seconds).unwrap_or_default();
                    deadline = (!seconds.is_zero()).then(|| tokio::time::Instant::now() + seconds);
                }
                if report.is_complete() {
                    break;
                }
            }
            _ = &mut interrupted, if *phases.borrow() != Phase::Stopped => deadline = stop(&phases),
            () = &mut closed, if *phases.borrow() != Phase::Stopped => deadline = stop(&phases),
            () = until(deadline), if deadline.is_some() => {
                if *phases.borrow() == Phase::Stopped {
                    break;
                }
                deadline = stop(&phases);
            }
        }
    }
    phases.send_replace(Phase::Stopped);
    report.finish()
}

fn stop(phases: &watch::Sender<Phase>) -> Option<tokio::time::Instant> {
    phases.send_replace(Phase::Stopped);
    Some(tokio::time::Instant::now() + SUMMARIES)
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns at the end of standard input if another program drives this one, as with `--json`: it then means to stop.
async fn input_closed(driven: bool) {
    if !driven {
        return std::future::pending().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}
