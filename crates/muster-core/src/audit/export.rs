//! The signed export of the audit log: a file that proves itself without a server (M25).
//!
//! Every line is a JSON object and ends with `\n`. The first line is the header, with the part of each chain that follows. Then come
//! the events, chain by chain, in the form in which they were hashed. The last line is the trailer, whose signature covers the hash
//! of all lines before it. [`verify`](super::verify) checks a file.
//!
//! The export of a space has the events of this space. In place of the others, which its reader must not see, there is the number of
//! them that follow each other, and the hash of the last one: the chain goes on from it. That nothing but events of other spaces was
//! left out follows from the signature alone.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{ChainHead, sha256};
use crate::hex;
use crate::signing::{Signer, SigningError};

/// Name and version of the format. The signed bytes start with it, so that no signature of a policy or an action can be taken for
/// one of an export.
pub const FORMAT: &str = "muster audit export 1";

/// What the file contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// The id of the fleet.
    pub fleet: String,
    /// The space whose events the file contains; `None` for those of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Time of the export (RFC 3339).
    pub created_at: String,
    /// Start of the period, inclusive (RFC 3339); `None` from the beginning.
    pub since: Option<String>,
    /// End of the period, exclusive (RFC 3339); `None` to the newest event.
    pub until: Option<String>,
    /// The fleet's public signing key: base64 of its DER SubjectPublicKeyInfo.
    pub public_key: String,
    /// SHA-256 of the DER, in hex.
    pub fingerprint: String,
    /// The chains, in the order in which their events follow.
    pub chains: Vec<Part>,
}

/// The contiguous part of a chain that a file contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the chain: the id of its node.
    pub chain: String,
    /// Position of the event before the first one; 0 from the beginning.
    pub after: i64,
    /// Hash of that event in hex; at position 0, the hash with which the chain starts.
    pub hash: String,
    /// Position of the last event; the same as `after` for an empty part.
    pub last: i64,
}

/// The first line. The hash shows that the header was changed before anything in it is used.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderLine {
    pub(super) header: Box<RawValue>,
    pub(super) sha256: String,
}

/// The line of an event.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventLine {
    pub(super) chain: String,
    pub(super) position: i64,
    pub(super) hash: String,
    /// The bytes that were hashed. If they are not the JSON of an object in one line, a string that contains them.
    pub(super) event: Box<RawValue>,
}

/// The line in place of events of other spaces.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WithheldLine {
    pub(super) chain: String,
    /// Position of the last of them.
    pub(super) position: i64,
    /// Hash of the last of them.
    pub(super) hash: String,
    /// Their number.
    pub(super) withheld: i64,
}

/// What is signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    /// SHA-256 of the first line.
    pub(super) header: String,
    /// SHA-256 of all lines before the trailer.
    pub(super) lines: String,
    /// Number of events.
    pub(super) events: u64,
    /// Hash of the last event of each chain.
    pub(super) heads: Vec<ChainHead>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrailerLine {
    pub(super) trailer: Box<RawValue>,
    pub(super) signature: String,
}

/// Returns the bytes that the signature of a trailer covers.
pub(super) fn signed_bytes(trailer: &RawValue) -> Vec<u8> {
    [FORMAT.as_bytes(), b"\n", trailer.get().as_bytes()].concat()
}

/// Returns the fingerprint of a public key: SHA-256 of its DER in hex. `None` if it is not base64.
pub fn fingerprint(public_key: &str) -> Option<String> {
    STANDARD.decode(public_key).ok().map(|der| hex::encode(&sha256(&[&der])))
}

/// Reason why an export could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The signature failed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// A line could not be encoded.
    #[error("cannot encode a line")]
    Encoding(#[from] serde_json::Error),
}

/// Composes the lines of a file.
pub struct Writer {
    lines: Context,
    header: String,
    events: u64,
    heads: Vec<ChainHead>,
    /// The last event that was withheld, and how many before it.
    withheld: Option<(ChainHead, i64)>,
}

impl Writer {
    /// Begins a file. Returns the writer and the first line.
    pub fn begin(header: &Header) -> Result<(Self, String), ExportError> {
        let header = to_raw_value(header)?;
        let hash = hex::encode(&sha256(&[header.get().as_bytes()]));
        let line = line(&HeaderLine { header, sha256: hash })?;
        let mut lines = Context::new(&SHA256);
        lines.update(line.as_bytes());
        let header = hex::encode(&sha256(&[line.as_bytes()]));
        Ok((Self { lines, header, events: 0, heads: Vec::new(), withheld: None }, line))
    }

    /// Leaves an event out. The next line tells that.
    pub fn withhold(&mut self, chain: &str, position: i64, hash: &[u8; 32]) {
        let before = self.withheld.take().map_or(0, |(_, number)| number);
        self.withheld = Some((ChainHead::new(chain, position, hash), before + 1));
    }

    /// Returns the line in place of the events that were left out, if any; must be called at the end of each chain.
    pub fn flush(&mut self) -> Result<String, ExportError> {
        let Some((head, withheld)) = self.withheld.take() else { return Ok(String::new()) };
        let ChainHead { chain, position, hash } = head.clone();
        let line = line(&WithheldLine { chain, position, hash, withheld })?;
        self.push(head, &line);
        Ok(line)
    }

    /// Returns the line of an event. Events are passed in the order of the header's chains and of their positions.
    pub fn event(&mut self, chain: &str, position: i64, text: &str, hash: &[u8; 32]) -> Result<String, ExportError> {
        let withheld = self.flush()?;
        let head = ChainHead::new(chain, position, hash);
        let line = line(&EventLine { chain: chain.to_owned(), position, hash: head.hash.clone(), event: raw(text)? })?;
        self.push(head, &line);
        self.events += 1;
        Ok(withheld + &line)
    }

    fn push(&mut self, head: ChainHead, line: &str) {
        self.lines.update(line.as_bytes());
        match self.heads.last_mut().filter(|last| last.chain == head.chain) {
            Some(last) => *last = head,
            None => self.heads.push(head),
        }
    }

    /// Ends the file. Returns the last line.
    pub fn end(self, signer: &Signer) -> Result<String, ExportError> {
        let Self { lines, header, events, heads, withheld: _ } = self;
        let trailer = to_raw_value(&Trailer { header, lines: finish(lines), events, heads })?;
        let signature = signer.sign(&signed_bytes(&trailer))?.signature;
        Ok(line(&TrailerLine { trailer, signature })?)
    }
}

pub(super) fn finish(context: Context) -> String {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hex::encode(&hash)
}

/// Encodes a line. A verifier encodes what it read once more, and compares the bytes.
pub(super) fn line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|text| text + "\n")
}

/// Returns the text of an event as a JSON value.
fn raw(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    // A corrupt event must appear in the file as it is, so that the file shows where the log is broken.
    // A line break would end the line of the file.
    let is_object = text.starts_with('{') && text.ends_with('}') && !text.contains(['\n', '\r']);
    match RawValue::from_string(text.to_owned()) {
        Ok(value) if is_object => Ok(value),
        _ => to_raw_value(text),
    }
}
