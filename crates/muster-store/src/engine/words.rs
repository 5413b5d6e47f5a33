//! Enumerations as the words stored in columns.

use muster_core::action::{ActionType, TargetState};
use muster_core::agent::{AgentType, AuditReason, Family};
use muster_core::carve::CarveState;
use muster_core::credential::CredentialKind;
use muster_core::enrollment_key::KeyFamily;
use muster_core::file::FileStatus;
use muster_core::fleetd::inventory::Kind;
use muster_core::fleetd::platform::Platform;
use muster_core::fleetd::software::Source;
use muster_core::host_run::OnHostState;
use muster_core::identity::UserKind;
use muster_core::install::InstallKind;
use muster_core::installer::Format;
use muster_core::live_query::EndReason;
use muster_core::network_object::NetworkObjectKind;
use muster_core::output_key::{FailureKind, KeyState};
use muster_core::status::Status;

use crate::port::LeaseName;

/// A value that is stored as a word.
pub(crate) trait Word: Sized {
    /// Returns the word.
    fn word(self) -> &'static str;
    /// Returns the value of a word.
    fn from_word(word: &str) -> Option<Self>;
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl Word for $type {
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            fn from_word(word: &str) -> Option<Self> {
                // An unknown word belongs to a newer version. The caller decides whether the row is unreadable or
                // left out.
                Some(match word { $($word => Self::$variant,)+ _ => return None })
            }
        }
    };
}

words!(AgentType { Permanent = "PERMANENT", Ephemeral = "EPHEMERAL", Temporary = "TEMPORARY" });
words!(CredentialKind { AccessKey = "access_key", NodeKey = "node_key", DeviceToken = "device_token" });
words!(Family {
    Elastic = "elastic",
    Muster = "muster",
    Orbit = "orbit",
    Osquery = "osquery",
    Opamp = "opamp",
});
words!(UserKind { Person = "person", ServiceAccount = "service_account" });
words!(ActionType {
    Cancel = "CANCEL",
    InputAction = "INPUT_ACTION",
    PolicyReassign = "POLICY_REASSIGN",
    RequestDiagnostics = "REQUEST_DIAGNOSTICS",
    Settings = "SETTINGS",
    Unenroll = "UNENROLL",
    Upgrade = "UPGRADE",
    Migrate = "MIGRATE",
    Reenroll = "REENROLL",
    PrivilegeLevelChange = "PRIVILEGE_LEVEL_CHANGE",
    UpdateTags = "UPDATE_TAGS",
    ForceUnenroll = "FORCE_UNENROLL",
    PolicyChange = "POLICY_CHANGE",
});
words!(KeyState {
    Wanted = "wanted",
    Outdated = "outdated",
    Widened = "widened",
    Confirmed = "confirmed",
    Live = "live",
});
words!(FailureKind {
    Refused = "refused",
    Overloaded = "overloaded",
    Unavailable = "unavailable",
    Unusable = "unusable",
});
words!(FileStatus {
    AwaitingUpload = "AWAITING_UPLOAD",
    Ready = "READY",
    UploadError = "UPLOAD_ERROR",
    Deleted = "DELETED",
});

words!(OnHostState { Pending = "pending", Begun = "begun", Done = "done", Gone = "gone" });

words!(LeaseName {
    Statuses = "statuses",
    Housekeeping = "housekeeping",
    OutputKeys = "output_keys",
    Actions = "actions",
    Rollouts = "rollouts",
    Alerts = "alerts",
    AutoUpgrades = "auto_upgrades",
    Software = "software",
});

impl Word for Source {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for Kind {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for KeyFamily {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for CarveState {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for InstallKind {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for Format {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for Platform {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for EndReason {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for NetworkObjectKind {
    fn word(self) -> &'static str {
        self.word()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::from_word(word)
    }
}

impl Word for AuditReason {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

impl Word for Status {
    fn word(self) -> &'static str {
        self.as_str()
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
}

/// State of a target that is not eligible. The domain sees it as failed; it is never delivered.
pub(super) const INELIGIBLE: &str = "ineligible";

/// State of a target that the server ended with an error. The domain sees it as failed; it is no longer delivered.
pub(super) const ENDED: &str = "ended";

impl Word for TargetState {
    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Acked => "acked",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "queued" => Self::Queued,
            "acked" => Self::Acked,
            "cancelled" => Self::Cancelled,
            "failed" | INELIGIBLE | ENDED => Self::Failed,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde_json::json;

    use super::*;

    fn check<T: Word + Copy + PartialEq + Debug>(values: &[T], wire: fn(&T) -> serde_json::Value) {
        for value in values {
            assert_eq!(T::from_word(value.word()), Some(*value));
            assert_eq!(wire(value), json!(value.word()), "the column and the API say it alike");
        }
        assert_eq!(T::from_word("nonsense"), None);
    }

    #[test]
    fn words_are_the_wire_words_and_come_back() {
        check(&Family::ALL, |v| json!(v));
        check(&[CredentialKind::AccessKey, CredentialKind::NodeKey, CredentialKind::DeviceToken], |v| json!(v));
        check(&[AgentType::Permanent, AgentType::Ephemeral, AgentType::Temporary], |v| json!(v));
        check(&[AuditReason::Uninstall, AuditReason::Orphaned, AuditReason::KeyRevoked, AuditReason::Migrated], |v| {
            json!(v)
        });
        check(&[FileStatus::AwaitingUpload, FileStatus::Ready, FileStatus::UploadError, FileStatus::Deleted], |v| {
            json!(v)
        });
        check(&[UserKind::Person, UserKind::ServiceAccount], |v| json!(v));
        check(&Status::ALL, |v| json!(v));
        check(&[TargetState::Queued, TargetState::Acked, TargetState::Failed, TargetState::Cancelled], |v| json!(v));
    }

    #[test]
    fn words_of_output_keys_come_back() {
        assert!(KeyState::ALL.iter().all(|state| KeyState::from_word(state.word()) == Some(*state)));
        assert!(FailureKind::ALL.iter().all(|kind| FailureKind::from_word(kind.word()) == Some(*kind)));
        assert_eq!((KeyState::from_word("x"), FailureKind::from_word("")), (None, None));
    }

    #[test]
    fn action_types_are_the_wire_words() {
        let all = [
            ActionType::Cancel,
            ActionType::InputAction,
            ActionType::PolicyReassign,
            ActionType::RequestDiagnostics,
            ActionType::Settings,
            ActionType::Unenroll,
            ActionType::Upgrade,
            ActionType::Migrate,
            ActionType::Reenroll,
            ActionType::PrivilegeLevelChange,
            ActionType::UpdateTags,
            ActionType::ForceUnenroll,
            ActionType::PolicyChange,
        ];
        check(&all, |v| json!(v));
    }
}
