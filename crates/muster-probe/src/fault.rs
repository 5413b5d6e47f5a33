//! The steps of a test, and what ends it.

use std::io;

use muster_core::certificate_names::plain;
use muster_core::connection_test::{Cause, Failure, Step, StepName};
use muster_core::error_chain::chain;
use muster_core::reported::shortened_to;
use muster_fleet::outgoing::ResolveError;
use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// Maximum length of a reason, bytes.
const REASON: usize = 300;

/// What ends a test.
pub(crate) enum Fault {
    /// Something went wrong on the way.
    Cause(Cause, String),
    /// The response is not what agents need.
    Judged(Failure),
}

impl Fault {
    pub(crate) fn of(cause: Cause, reason: impl Into<String>) -> Self {
        Self::Cause(cause, reason.into())
    }

    fn failure(self) -> Failure {
        match self {
            Self::Cause(cause, reason) => cause.because(shortened_to(&plain(&reason), REASON).into_owned()),
            Self::Judged(failure) => failure,
        }
    }
}

/// The steps so far.
pub(crate) struct Trail {
    steps: Vec<Step>,
    current: StepName,
}

impl Default for Trail {
    fn default() -> Self {
        Self { steps: Vec::new(), current: StepName::Settings }
    }
}

impl Trail {
    /// Begins a step. A failure from now on is one of this step.
    pub(crate) fn at(&mut self, step: StepName) {
        self.current = step;
    }

    /// Records that the current step passed. A step that passes again, over another connection, is recorded once.
    pub(crate) fn passed(&mut self, found: String) {
        if !self.steps.iter().any(|step| step.name == self.current) {
            self.steps.push(Step { name: self.current, outcome: Ok(found) });
        }
    }

    /// Returns the steps, with the failure that ended the test.
    pub(crate) fn ended(mut self, result: Result<(), Fault>) -> Vec<Step> {
        if let Err(fault) = result {
            self.steps.retain(|step| step.name != self.current);
            self.steps.push(Step { name: self.current, outcome: Err(fault.failure()) });
        }
        self.steps
    }
}

pub(crate) fn unresolved(error: ResolveError) -> Fault {
    match error {
        ResolveError::NotPermitted(reason) => Fault::of(Cause::NotPermitted, reason),
        ResolveError::Failed(reason) => Fault::of(Cause::Unresolved, reason),
    }
}

/// Returns the fault of an error of the network, or of TLS, which reports its errors as such.
pub(crate) fn of_io(error: &io::Error) -> Fault {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return Fault::of(cause_of(tls), chain(tls).to_string());
    }
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::TimedOut => Cause::Late,
        _ => Cause::Other,
    };
    Fault::of(cause, chain(error).to_string())
}

fn cause_of(error: &TlsError) -> Cause {
    match error {
        TlsError::InvalidCertificate(invalid) => match invalid {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Cause::WrongName,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Cause::Expired,
            // A CA of the same name with another key gives a wrong signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Cause::UnknownIssuer,
            _ => Cause::Other,
        },
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::HandshakeFailure,
        ) => Cause::ClientCertificate,
        TlsError::InvalidMessage(_) => Cause::NotTls,
        _ => Cause::Other,
    }
}
