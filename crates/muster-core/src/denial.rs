//! Reasons for denying a request of an agent. Each adapter maps them to the error codes of its protocol.

use crate::error::{Error, ErrorKind};

/// Reason for a denial. There is one for each case that a supported protocol distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    // The core decides, and each adapter owns the codes of its protocol: a match without a wildcard in the adapter makes a
    // new reason a compile error there.
    /// The key is unknown, revoked, expired or malformed. One reason for all, so that a response reveals nothing about
    /// a key.
    UnknownKey,
    /// The key is unknown, and the store was restored from a backup: the agent may have enrolled after it.
    EnrolledAfterBackup,
    /// The key is valid, but belongs to another agent (EA54).
    ForeignKey,
    /// The key is valid, but is not the access key of an agent.
    NotAnAgent,
    /// The host is bound to another client certificate (FL148).
    OtherCertificate,
    /// The requested id belongs to an active agent, which this request may not replace (EA40).
    NotReplaceable,
    /// Another enrollment under the same id is in progress (EA46).
    EnrollmentRace,
    /// The one-time secret has been used by this program of a host, or the time for its second use is over (FL82).
    OneTimeSecretSpent,
    /// The one-time secret is for another host (FL83).
    OneTimeSecretMismatch,
    /// The host enrolled a short time ago (FL11).
    EnrollCooldown,
    /// The policy of the enrollment key was deleted.
    PolicyGone,
    /// The agent was reported as orphaned, which is final (EA138).
    LeftForGood,
    /// Uploads are disabled.
    UploadsDisabled,
    /// A field of the upload is missing or invalid; the message names it.
    UploadField,
    /// The size of the upload is missing.
    UploadSizeMissing,
    /// The size of the upload is not positive.
    UploadSizeInvalid,
    /// The file exceeds the limit for one file or for all files of the agent.
    UploadTooLarge,
    /// The agent has too many uploads in progress.
    TooManyUploads,
    /// The upload does not exist.
    UnknownUpload,
    /// The upload was not completed in time (EA134).
    UploadExpired,
    /// The upload accepts no more chunks.
    UploadStopped,
    /// The chunk number is out of range.
    ChunkNumber,
    /// The chunk does not match its hash.
    ChunkHash,
    /// The hash over all chunks is missing.
    UploadHashMissing,
    /// The upload is closed.
    UploadClosed,
    /// Chunks are missing.
    ChunksMissing,
    /// The file does not match its announced size or hash.
    UploadInvalid,
    /// The file does not exist, or not for this agent.
    UnknownFile,
    /// The contents of the file were deleted.
    FileGone,
}

impl Denial {
    /// Returns the kind, the stable code and the default message.
    const fn row(self) -> (ErrorKind, &'static str, &'static str) {
        // One table instead of three functions, so that a new variant is complete or does not compile.
        use ErrorKind::{Conflict, Forbidden, Invalid, NotFound, TooMany, Unauthenticated, Unavailable};
        match self {
            Self::UnknownKey => (Unauthenticated, "unauthorized", "unauthorized"),
            Self::EnrolledAfterBackup => (
                Unavailable,
                "enrolled_after_backup",
                "the server was restored from a backup and does not know this key",
            ),
            Self::ForeignKey => (Forbidden, "foreign_key", "the key belongs to another agent"),
            Self::NotAnAgent => (NotFound, "not_an_agent", "the key is not an agent's access key"),
            Self::OtherCertificate => {
                (Unauthenticated, "other_certificate", "the host is bound to another client certificate")
            }
            Self::NotReplaceable => (Forbidden, "agent_not_replaceable", "existing agent cannot be replaced"),
            Self::EnrollmentRace => (TooMany, "enrollment_race", "concurrent enrollment for the same id: retry"),
            Self::OneTimeSecretSpent => (Unauthenticated, "one_time_secret_spent", "the one-time secret is used up"),
            Self::OneTimeSecretMismatch => {
                (Unauthenticated, "one_time_secret_identifier_mismatch", "the one-time secret is for another host")
            }
            Self::EnrollCooldown => (TooMany, "enroll_cooldown", "the host enrolled a short time ago"),
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

    /// Creates the error with a specific message.
    pub fn because(self, message: impl Into<String>) -> Error {
        // Kind and code stay the same: the message is for people only.
        Error { message: message.into(), ..self.into() }
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        let (kind, code, message) = denial.row();
        // The management API uses kind and code; the adapters of agents use only `denial`.
        Self { denial: Some(denial), ..Self::new(kind, code, message) }
    }
}
