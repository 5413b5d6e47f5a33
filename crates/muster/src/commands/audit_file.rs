//! `muster audit export`, and the verification of the exported file on any machine.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use muster_client::Client;
use muster_core::audit::verify::{FileDefect, FileFault, Seals, Verified, Verifier};
use muster_protocol::management::audit::ExportAuditEvents;
use serde::Serialize;

use super::failure::Failed;
use super::listing::{Column, Format, column, or_dash, print_one, wide};
use super::out_file::OutFile;
use super::text::print_line;

/// Maximum length of a line in bytes, so that a file without line ends does not fill the memory.
const LONGEST_LINE: u64 = 64 << 20;

/// Flags of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// File to write; must not exist
    #[arg(long, value_name = "FILE")]
    out: Utf8PathBuf,
    /// Only events at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl ExportArgs {
    /// Exports the log.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut out = OutFile::create(&self.out)?;
        let mut file = tokio::fs::File::from_std(out.take()?);
        let query = ExportAuditEvents { since: self.since, until: self.until };
        let bytes = client.export_audit(&query, &mut file).await?;
        out.finish(&file.into_std().await)?;
        print_line(format!("{} ({bytes} bytes)", self.out))
    }
}

/// Result of the verification of a file.
#[derive(Serialize)]
struct Report {
    intact: bool,
    file: String,
    /// Number of events.
    lines: u64,
    fleet: Option<String>,
    /// The space whose events the file contains; `None` for the installation.
    space: Option<String>,
    created_at: Option<String>,
    since: Option<String>,
    until: Option<String>,
    /// Fingerprint of the key that signed it.
    fingerprint: Option<String>,
    heads: Vec<Head>,
    broken: Option<Broken>,
}

#[derive(Serialize)]
struct Head {
    chain: String,
    position: i64,
    hash: String,
}

#[derive(Serialize)]
struct Broken {
    line: u64,
    chain: Option<String>,
    position: Option<i64>,
    reason: String,
}

const COLUMNS: &[Column<Report>] = &[
    column("INTACT", |report| if report.intact { "yes" } else { "no" }.to_owned()),
    column("EVENTS", |report| report.lines.to_string()),
    column("EXPORTED", |report| or_dash(report.created_at.as_deref())),
    column("FLEET", |report| or_dash(report.fleet.as_deref())),
    wide("SPACE", |report| or_dash(report.space.as_deref())),
    column("SIGNED BY", |report| or_dash(report.fingerprint.as_deref())),
];

/// Verifies a file, and prints the result. Without an expected key, the signature proves only that nobody without the key that the file
/// names changed it.
pub fn verify(path: &Utf8Path, public_key: Option<String>, format: Format) -> Result<(), Failed> {
    let has_key = public_key.is_some();
    let checked = check(path, public_key)?;
    let report = report(path, checked);
    print_one(&report, format, COLUMNS, |report| or_dash(report.fingerprint.as_deref()))?;
    match report.broken {
        Some(Broken { line, chain, position, reason }) => {
            let event = chain.zip(position).map(|(chain, position)| format!(", event {position} of chain {chain}"));
            Err(Failed::new(format!("{path}, line {line}{}: {reason}", event.unwrap_or_default()))
                .remedy("everything before this line is unchanged; export the log again, or compare with another copy"))
        }
        None => {
            if !has_key {
                let hint = "compare the fingerprint with that of the fleet, or pass the fleet's key with --public-key";
                eprintln!("muster: the file has not been changed since it was signed\n  hint: {hint}");
            }
            Ok(())
        }
    }
}

fn report(path: &Utf8Path, checked: Result<Verified, FileDefect>) -> Report {
    let mut report = Report {
        intact: checked.is_ok(),
        file: path.to_string(),
        lines: 0,
        fleet: None,
        space: None,
        created_at: None,
        since: None,
        until: None,
        fingerprint: None,
        heads: Vec::new(),
        broken: None,
    };
    match checked {
        Ok(Verified { header, events, heads }) => {
            (report.lines, report.fleet, report.created_at) = (events, Some(header.fleet), Some(header.created_at));
            report.space = header.space;
            (report.since, report.until, report.fingerprint) = (header.since, header.until, Some(header.fingerprint));
            let head = |head: muster_core::audit::ChainHead| Head {
                chain: head.chain,
                position: head.position,
                hash: head.hash,
            };
            report.heads = heads.into_iter().map(head).collect();
        }
        Err(FileDefect { line, place, fault }) => {
            let (chain, position) = place.unzip();
            report.broken = Some(Broken { line, chain, position, reason: fault.to_string() });
        }
    }
    report
}

fn check(path: &Utf8Path, public_key: Option<String>) -> Result<Result<Verified, FileDefect>, Failed> {
    let failed = |error: std::io::Error| Failed::new(format!("cannot read {path}: {error}"));
    let opened = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failed::not_found(format!("{path} does not exist")),
        _ => failed(error),
    });
    let mut file = BufReader::new(opened?);
    let (mut verifier, mut seals) = (Verifier::new(public_key), Seals::default());
    let first = each_line(&mut file, |_, line| {
        verifier.line(line)?;
        seals.collect(line);
        Ok(())
    });
    let lines = match first.map_err(failed)? {
        Ok(lines) => lines,
        Err(defect) => return Ok(Err(defect)),
    };
    let verified = match verifier.end() {
        Ok(verified) => verified,
        Err(defect) => return Ok(Err(defect)),
    };
    if seals.is_empty() {
        return Ok(Ok(verified));
    }
    file.rewind().map_err(failed)?;
    let second = each_line(&mut file, |number, line| seals.compare(number, line)).map_err(failed)?;
    Ok(second.and_then(|_| seals.end(&verified, lines)).map(|()| verified))
}

/// Passes each line with its number to `check`, up to the first defect. Returns the number of lines.
fn each_line(
    file: &mut BufReader<File>,
    mut check: impl FnMut(u64, &[u8]) -> Result<(), FileDefect>,
) -> std::io::Result<Result<u64, FileDefect>> {
    let (mut number, mut line) = (0, Vec::new());
    loop {
        line.clear();
        if file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(Ok(number));
        }
        number += 1;
        if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
            return Ok(Err(FileDefect { line: number, place: None, fault: FileFault::Form }));
        }
        if let Err(defect) = check(number, &line) {
            return Ok(Err(defect));
        }
    }
}
