//! Why the fleet denies an agent what it asks for. Each adapter says it in its own protocol's words.

use crate::error::{Error, ErrorKind};

/// A reason that protocols tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The key opens nothing: unknown, revoked, expired or malformed.
    UnknownKey,
    /// The key is live, but somebody else's (EA54).
    ForeignKey,
    /// The key is live, but not an agent's.
    NotAnAgent,
    /// The id belongs to a living agent, which this one may not replace (EA40).
    NotReplaceable,
    /// Others enrol under the same id at this moment (EA46).
    EnrolmentRace,
    /// The enrollment key names a policy that is gone.
    PolicyGone,
    /// The agent reported before that it left for good (EA138).
    LeftForGood,
    /// Uploads are switched off.
    UploadsDisabled,
    /// The upload lacks a field, or has an unknown value in it; the message names it.
    UploadField,
    /// The upload does not state its size.
    UploadSizeMissing,
    /// The stated size is no size.
    UploadSizeInvalid,
    /// The file, or all of the agent's files, would be too large.
    UploadTooLarge,
    /// The agent has too many uploads under way.
    TooManyUploads,
    /// There is no such upload.
    UnknownUpload,
    /// The upload took too long (EA134).
    UploadExpired,
    /// The upload takes no more chunks.
    UploadStopped,
    /// The file has no chunk of that number.
    ChunkNumber,
    /// The chunk's bytes don't have the stated hash.
    ChunkHash,
    /// The end of an upload needs the hash over its chunks.
    UploadHashMissing,
    /// The upload has ended.
    UploadClosed,
    /// Chunks are missing.
    ChunksMissing,
    /// The file is not the one that was announced.
    UploadInvalid,
    /// There is no such file for this agent.
    UnknownFile,
    /// The file's bytes are gone.
    FileGone,
}

impl Denial {
    /// Who has to act, the stable word, and the message.
    const fn row(self) -> (ErrorKind, &'static str, &'static str) {
        use ErrorKind::{Conflict, Forbidden, Invalid, NotFound, TooMany, Unauthenticated};
        match self {
            Self::UnknownKey => (Unauthenticated, "unauthorized", "unauthorized"),
            Self::ForeignKey => (Forbidden, "foreign_key", "the key belongs to another agent"),
            Self::NotAnAgent => (NotFound, "not_an_agent", "the key is not an agent's access key"),
            Self::NotReplaceable => (Forbidden, "agent_not_replaceable", "existing agent cannot be replaced"),
            Self::EnrolmentRace => (TooMany, "enrolment_race", "concurrent enrollment for the same id: retry"),
            Self::PolicyGone => (Invalid, "policy_gone", "the policy of the enrollment key does not exist"),
            Self::LeftForGood => (Conflict, "agent_left_for_good", "the agent was reported as orphaned"),
            Self::UploadsDisabled => (Forbidden, "uploads_disabled", "uploads are disabled"),
            Self::UploadField => (Invalid, "upload_field", "a field of the upload is missing or invalid"),
            Self::UploadSizeMissing => (Invalid, "upload_size_missing", "file.size is required"),
            Self::UploadSizeInvalid => (Invalid, "upload_size_invalid", "file.size must be greater than zero"),
            Self::UploadTooLarge => (Invalid, "upload_too_large", "this file exceeds the maximum allowed file size"),
            Self::TooManyUploads => (TooMany, "too_many_uploads", "this agent has too many uploads in progress"),
            Self::UnknownUpload => (Invalid, "unknown_upload", "no such upload"),
            Self::UploadExpired => (Invalid, "upload_expired", "upload has expired"),
            Self::UploadStopped => (Invalid, "upload_stopped", "upload has stopped"),
            Self::ChunkNumber => (Invalid, "chunk_number", "invalid chunk number"),
            Self::ChunkHash => (Invalid, "chunk_hash", "hash does not match"),
            Self::UploadHashMissing => (Invalid, "upload_hash_missing", "the hash over all chunks is required"),
            Self::UploadClosed => (Invalid, "upload_closed", "file closed, not accepting uploads"),
            Self::ChunksMissing => (Invalid, "chunks_missing", "file data incomplete, not all chunks were uploaded"),
            Self::UploadInvalid => (Invalid, "upload_invalid", "file contents failed validation"),
            Self::UnknownFile => (NotFound, "unknown_file", "file not found"),
            Self::FileGone => (NotFound, "file_gone", "file not found"),
        }
    }

    /// The denial with a message of its own.
    pub fn because(self, message: impl Into<String>) -> Error {
        Error { message: message.into(), ..self.into() }
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        let (kind, code, message) = denial.row();
        Self { denial: Some(denial), ..Self::new(kind, code, message) }
    }
}
