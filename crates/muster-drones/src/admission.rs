//! Enrollment of the agents of one share.

use http::HeaderValue;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::args::DronesArgs;
use crate::back_off::BackOff;
use crate::drone::{Drone, authorization};

/// How the agents of a share enroll.
pub struct Admission {
    token: Option<HeaderValue>,
    secret: String,
    tags: Vec<String>,
    permits: Semaphore,
    in_flight: usize,
}

impl Admission {
    /// Creates an admission from the arguments.
    ///
    /// # Errors
    /// If the enrollment token contains characters that are not allowed in a header.
    pub fn new(args: &DronesArgs) -> anyhow::Result<Self> {
        let token = args.enrollment_token.as_deref().filter(|_| !args.invent).map(authorization).transpose()?;
        let in_flight = args.in_flight_of_share();
        let secret = args.enrollment_token.clone().unwrap_or_default();
        Ok(Self { token, secret, tags: args.tags.clone(), permits: Semaphore::new(in_flight), in_flight })
    }

    /// Maximum number of concurrent enrollments.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the enrollment token; empty if ids are generated.
    #[must_use]
    pub fn token(&self) -> &HeaderValue {
        static NONE: HeaderValue = HeaderValue::from_static("");
        self.token.as_ref().unwrap_or(&NONE)
    }

    /// Returns the enroll secret of fleetd.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Waits until another enrollment may begin. `None` never occurs: the semaphore is not closed.
    pub async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// Returns the tags of new agents.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Enrolls an agent, and retries until it succeeds.
    pub async fn admit(&self, drone: &mut Drone, back_off: &mut BackOff) {
        loop {
            // Without a limit, all agents would enroll at the same time, and many would time out.
            let permit = self.permit().await;
            let outcome = if self.token.is_some() {
                drone.enroll(None, self.token(), &self.tags).await
            } else {
                drone.invent().map_err(Into::into)
            };
            // Released before the pause, so that others can enroll in the meantime.
            drop(permit);
            let Err(fault) = outcome else { return back_off.reset() };
            drone.count_failure(&format!("enroll: {fault}"));
            tokio::time::sleep(back_off.next_pause()).await;
        }
    }
}
