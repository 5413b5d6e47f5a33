//! Verification of an export, line by line, in one pass and with memory that does not depend on the number of events.
//!
//! A second pass over the same lines ([`Seals`]) is needed only if the file has events of several nodes: it compares what the nodes
//! sealed of each other's chains. It needs memory for each sealed position.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::export::{
    EventLine, FORMAT, Header, HeaderLine, Part, Trailer, TrailerLine, WithheldLine, fingerprint, finish, line,
    signed_bytes,
};
use super::{AuditEvent, ChainCheck, ChainFault, ChainHead, SEAL, chain_start, sha256};
use crate::action::Signed;
use crate::hex;
use crate::signing;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// An event.
    #[error(transparent)]
    Event(#[from] ChainFault),
    /// The line is not JSON of the expected form.
    #[error("the line is malformed: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The line is not in the form in which an export is written.
    #[error("the line was changed: it is not in the form in which it was exported")]
    Form,
    /// The file is not an export, or of another version.
    #[error("the format is {0:?}; this program reads {FORMAT:?}")]
    Format(String),
    /// The first line does not match its own hash, or the signed one.
    #[error("the header was changed")]
    Header,
    /// The key is not the expected one.
    #[error("the file is signed with the key {0}, not with the expected one")]
    Key(String),
    /// The event belongs to another chain than the one that the header announces here.
    #[error("the line is out of order, or its chain is not the one that the header announces for this place")]
    Order,
    /// The signature of the trailer is wrong.
    #[error("the signature does not match: the last line was changed, or signed with another key")]
    Signature,
    /// The signed hash differs from that of the lines, although each of them is consistent.
    #[error("the lines differ from what was signed: events were replaced and their hashes computed again")]
    Lines,
    /// The file ends before the trailer, or within a line.
    #[error("the file is truncated")]
    Truncated,
    /// Lines follow the trailer.
    #[error("the line follows the end of the export")]
    Trailing,
}

/// The first defect of a file.
#[derive(Debug, thiserror::Error)]
#[error("line {line}{}: {fault}", place.as_ref().map(|(chain, position)| format!(", event {position} of chain {chain}")).unwrap_or_default())]
pub struct FileDefect {
    /// Number of the line, from 1.
    pub line: u64,
    /// Chain and position of the event that is expected there.
    pub place: Option<(String, i64)>,
    /// What is wrong.
    #[source]
    pub fault: FileFault,
}

/// An intact file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The header.
    pub header: Header,
    /// Number of events.
    pub events: u64,
    /// The last event of each chain that has any in the file.
    pub heads: Vec<ChainHead>,
}

/// Verifies the lines of a file in order.
pub struct Verifier {
    /// Public key in base64, or its fingerprint.
    expected_key: Option<String>,
    number: u64,
    lines: Context,
    state: State,
}

enum State {
    Header,
    Events(Box<Events>),
    Done(Box<Verified>),
}

/// Where in the chains the file is.
struct Events {
    header: Header,
    header_hash: String,
    events: u64,
    /// Index of the chain among those of the header.
    part: usize,
    check: ChainCheck,
    heads: Vec<ChainHead>,
}

impl Verifier {
    /// Starts before the first line. `expected_key` is a public key in base64 or its fingerprint; without it, the signature proves
    /// only that the file was not changed after it was signed with the key that it names.
    pub fn new(expected_key: Option<String>) -> Self {
        Self { expected_key, number: 0, lines: Context::new(&SHA256), state: State::Header }
    }

    /// Verifies the next line, which includes its `\n`.
    pub fn line(&mut self, raw: &[u8]) -> Result<(), FileDefect> {
        self.number += 1;
        let place = self.place();
        let number = self.number;
        self.next(raw).map_err(|fault| match fault {
            // The header is the only earlier line that a later one can prove wrong.
            FileFault::Header => FileDefect { line: 1, place: None, fault },
            fault => FileDefect { line: number, place, fault },
        })
    }

    /// Ends the file.
    pub fn end(self) -> Result<Verified, FileDefect> {
        match self.state {
            State::Done(verified) => Ok(*verified),
            _ => Err(FileDefect { line: self.number + 1, place: self.place(), fault: FileFault::Truncated }),
        }
    }

    /// Returns the chain and the position of the event that comes next.
    fn place(&self) -> Option<(String, i64)> {
        let State::Events(events) = &self.state else { return None };
        let part = events.current()?;
        Some((part.chain.clone(), events.check.position() + 1))
    }

    fn next(&mut self, raw: &[u8]) -> Result<(), FileFault> {
        // A line without its end was cut off, whatever it contains.
        let Some(text) = raw.strip_suffix(b"\n") else { return Err(FileFault::Truncated) };
        match &mut self.state {
            State::Header => {
                let header = read_header(text, self.expected_key.as_deref())?;
                self.lines.update(raw);
                self.state = State::Events(Box::new(Events::new(header, hex::encode(&sha256(&[raw])))));
            }
            State::Events(events) if events.current().is_some() => {
                events.event(text)?;
                self.lines.update(raw);
            }
            State::Events(events) => {
                // Before the trailer itself is added, which contains this hash.
                let verified = events.trailer(text, &finish(self.lines.clone()))?;
                self.state = State::Done(Box::new(verified));
            }
            State::Done(_) => return Err(FileFault::Trailing),
        }
        Ok(())
    }
}

/// Decodes a line, and fails unless encoding it again gives the same bytes.
fn decode<T: DeserializeOwned + Serialize>(text: &[u8]) -> Result<T, FileFault> {
    let value: T = serde_json::from_slice(text).map_err(FileFault::Malformed)?;
    let again = line(&value).map_err(FileFault::Malformed)?;
    if again.strip_suffix('\n').map(str::as_bytes) == Some(text) { Ok(value) } else { Err(FileFault::Form) }
}

fn read_header(text: &[u8], expected_key: Option<&str>) -> Result<Header, FileFault> {
    let line: HeaderLine = decode(text)?;
    if hex::encode(&sha256(&[line.header.get().as_bytes()])) != line.sha256 {
        return Err(FileFault::Header);
    }
    let header: Header = decode(line.header.get().as_bytes())?;
    if header.format != FORMAT {
        return Err(FileFault::Format(header.format));
    }
    let found = fingerprint(&header.public_key).ok_or(FileFault::Header)?;
    let starts =
        // A chain that begins at 0 must begin with the hash that follows from its name; any other start could be
        // invented.
        header.chains.iter().all(|part| part.after != 0 || part.hash == hex::encode(&chain_start(&part.chain)));
    let is_part = |part: &Part| 0 <= part.after && part.after <= part.last && unhex(&part.hash).is_some();
    let ranges = header.chains.iter().all(is_part);
    // In ascending order, so that the same events have exactly one form as a file.
    let names = header.chains.windows(2).all(|pair| pair[0].chain < pair[1].chain);
    if found != header.fingerprint || !starts || !ranges || !names {
        return Err(FileFault::Header);
    }
    match expected_key.map(str::trim) {
        // Either form of the key: people compare fingerprints, programs keep keys.
        Some(key) if key != header.public_key && !key.eq_ignore_ascii_case(&found) => Err(FileFault::Key(found)),
        _ => Ok(header),
    }
}

impl Part {
    /// Returns the check of the events that follow.
    fn check(&self) -> ChainCheck {
        // `read_header` has rejected every hash that is none.
        // The hash of the last event before the file. What came before it is proved by the signature only.
        ChainCheck { position: self.after, hash: unhex(&self.hash).unwrap_or_default() }
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    // No capitals: the hash would be the same, but the line would not be.
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl Events {
    fn new(header: Header, header_hash: String) -> Self {
        let check = ChainCheck::new("");
        let mut events = Self { header, header_hash, events: 0, part: 0, check, heads: Vec::new() };
        events.skip_empty();
        events
    }

    fn current(&self) -> Option<&Part> {
        self.header.chains.get(self.part)
    }

    /// Goes on to the next chain that has events.
    fn skip_empty(&mut self) {
        while self.current().is_some_and(|part| part.after == part.last) {
            self.part += 1;
        }
        if let Some(check) = self.current().map(Part::check) {
            self.check = check;
        }
    }

    fn event(&mut self, text: &[u8]) -> Result<(), FileFault> {
        // Only in the export of a space: elsewhere, a gap is a defect.
        let withheld = self.header.space.is_some().then(|| decode::<WithheldLine>(text).ok()).flatten();
        if let Some(line) = withheld {
            return self.withheld(&line);
        }
        let line: EventLine = decode(text).map_err(|fault| ended_early(text, fault))?;
        let hash = self.follows(&line.chain, line.position, &line.hash)?;
        self.check.next(line.position, &event_text(&line.event)?, &hash)?;
        self.events += 1;
        self.passed(line.chain);
        Ok(())
    }

    /// Goes on after events of other spaces.
    fn withheld(&mut self, line: &WithheldLine) -> Result<(), FileFault> {
        let hash = self.follows(&line.chain, line.position, &line.hash)?;
        let is_within = self.current().is_some_and(|part| line.position <= part.last);
        // The count is part of the line, so that a gap cannot be made larger unnoticed.
        if !is_within || line.position - self.check.position() != line.withheld {
            return Err(ChainFault::Missing.into());
        }
        self.check = ChainCheck { position: line.position, hash };
        self.passed(line.chain.clone());
        Ok(())
    }

    /// Returns the hash of a line, which must belong to the current chain and to a later position.
    fn follows(&self, chain: &str, position: i64, hash: &str) -> Result<[u8; 32], FileFault> {
        if self.current().is_none_or(|part| part.chain != chain) {
            return Err(FileFault::Order);
        }
        let is_later = position > self.check.position();
        unhex(hash).filter(|_| is_later).ok_or(FileFault::Event(ChainFault::Changed))
    }

    /// Goes on to the next chain if this was the last event of the part.
    fn passed(&mut self, chain: String) {
        if self.current().is_some_and(|part| part.last == self.check.position()) {
            self.heads.push(ChainHead::new(chain, self.check.position(), self.check.hash()));
            self.part += 1;
            self.skip_empty();
        }
    }

    fn trailer(&self, text: &[u8], lines: &str) -> Result<Verified, FileFault> {
        let line: TrailerLine = decode(text)?;
        let data = STANDARD.encode(signed_bytes(&line.trailer));
        let signed = Signed { data, signature: line.signature };
        // Before the content of the trailer is looked at.
        signing::verify(&self.header.public_key, &signed).map_err(|_| FileFault::Signature)?;
        let trailer: Trailer = decode(line.trailer.get().as_bytes())?;
        // From here on, the last line is what the server wrote.
        if trailer.header != self.header_hash {
            return Err(FileFault::Header);
        }
        if trailer.lines != lines || trailer.events != self.events || trailer.heads != self.heads {
            return Err(FileFault::Lines);
        }
        Ok(Verified { header: self.header.clone(), events: self.events, heads: self.heads.clone() })
    }
}

/// If a trailer comes where an event is expected, the events before it were removed.
fn ended_early(text: &[u8], fault: FileFault) -> FileFault {
    match decode::<TrailerLine>(text) {
        Ok(_) => ChainFault::Missing.into(),
        Err(_) => fault,
    }
}

/// Returns the text that was hashed.
fn event_text(event: &RawValue) -> Result<Cow<'_, str>, FileFault> {
    let text = event.get();
    // Most events are JSON as it was stored; those that JSON would change are strings.
    match text.starts_with('"') {
        true => serde_json::from_str(text).map(Cow::Owned).map_err(FileFault::Malformed),
        false => Ok(text.into()),
    }
}

/// What the nodes sealed of each other's chains, in a file that [`Verifier`] found intact. The first pass over its lines collects, the
/// second compares.
#[derive(Debug, Default)]
pub struct Seals {
    sealed: HashMap<(String, i64), String>,
}

impl Seals {
    /// Collects what an event seals. Lines that are not seals are not decoded.
    pub fn collect(&mut self, raw: &[u8]) {
        for head in seal(raw) {
            self.sealed.insert((head.chain, head.position), head.hash);
        }
    }

    /// Whether there is nothing to compare.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Compares a line with what was sealed of it. `number` is its number.
    pub fn compare(&mut self, number: u64, raw: &[u8]) -> Result<(), FileDefect> {
        // The lines were verified before, so one that cannot be read here is no event.
        let Ok(line) = serde_json::from_slice::<EventLine>(raw) else { return Ok(()) };
        let place = (line.chain, line.position);
        match self.sealed.remove(&place) {
            Some(hash) if hash != line.hash => Err(sealed_otherwise(number, place)),
            _ => Ok(()),
        }
    }

    /// Ends the second pass: fails if a sealed event should be in the file and is not.
    pub fn end(self, verified: &Verified, lines: u64) -> Result<(), FileDefect> {
        let header = &verified.header;
        let part = |chain: &str| header.chains.iter().find(|part| part.chain == chain);
        let is_missing = |(chain, position): &(String, i64)| match part(chain) {
            // Within the file, or after its end if the export claims to contain everything.
            Some(part) => *position > part.after && (*position <= part.last || header.until.is_none()),
            None => header.since.is_none() && header.until.is_none(),
        };
        match self.sealed.into_keys().filter(is_missing).min() {
            Some(place) => Err(sealed_otherwise(lines, place)),
            None => Ok(()),
        }
    }
}

fn sealed_otherwise(line: u64, place: (String, i64)) -> FileDefect {
    FileDefect { line, place: Some(place), fault: ChainFault::Sealed.into() }
}

fn seal(raw: &[u8]) -> Vec<ChainHead> {
    let is_seal = raw.windows(SEAL.len()).any(|window| window == SEAL.as_bytes());
    let line = if is_seal { serde_json::from_slice::<EventLine>(raw).ok() } else { None };
    let event = line.and_then(|line| serde_json::from_str::<AuditEvent>(line.event.get()).ok());
    event.map(|event| event.sealed_heads()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
