//! Several processes. The leading process starts the program again for each share, sends commands to its standard
//! input, and reads events from its standard output.
//!
//! Each share sends [`Event::Ready`]. When all shares are ready, each gets a line, and the measured part starts. A
//! share stops at the end of its input, so that it does not survive the leading process.

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

/// Maximum time for shares to send their summaries.
const SUMMARIES: Duration = Duration::from_secs(10);

/// Runs the load that the arguments describe until it is complete, the duration has passed, or it is interrupted.
///
/// # Errors
/// If the server's address or CA is unusable, or a process cannot be started.
pub async fn run(args: &DronesArgs) -> anyhow::Result<()> {
    match args.share {
        Some(share) => follow(args, share).await,
        None => lead(args).await,
    }
}

/// Runs one share in this process. Writes events to standard output, and reads commands from standard input.
async fn follow(args: &DronesArgs, share: u32) -> anyhow::Result<()> {
    let (events, mut told) = share::events();
    let (phases, phase) = watch::channel(Phase::Waiting);
    follow_commands(phases);
    // An interrupt is sent to the whole process group. This process ignores it, and stops when the leading process
    // stops it.
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

/// Reads standard input in a separate thread. Unlike tokio's, this thread does not prevent the program from exiting.
fn follow_commands(phases: watch::Sender<Phase>) {
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            phases.send_replace(Phase::Running);
        }
        phases.send_replace(Phase::Stopped);
    });
}

/// Runs the leading process: starts the shares, sends commands, and collects events.
async fn lead(args: &DronesArgs) -> anyhow::Result<()> {
    args.check()?;
    // Checked here, so that an unusable CA is reported once and not by every share.
    configuration(&args.ca, args.resume_tls)?;
    let (events, told) = share::events();
    // All shares watch the phase, which the leading process sets.
    let (phases, phase) = watch::channel(Phase::Waiting);
    let shares = if args.processes <= 1 {
        // With one process, the share runs in this one.
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

/// Starts this program again with the same arguments and the number of a share.
fn start(
    share: u32,
    events: UnboundedSender<Event>,
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    // With the same program and arguments, shares cannot differ from each other.
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--share")
        .arg(share.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a process for a share")?;
    Ok(tokio::spawn(attend(child, share, events, phase)))
}

/// Forwards events from a child process, and changes of the phase to it.
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
    // A share that failed has printed the reason to standard error.
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
                // The time counts from the start of the measured part, and not from the start of the program.
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
                // The time for the summaries has passed. A share without a summary is reported as an error.
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

/// Returns at the end of standard input if another program controls this one (`--json`). The end means to stop.
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
