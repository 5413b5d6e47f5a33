//! The steps of the demo and their times.

use std::time::{Duration, Instant};

/// Maximum time of a step.
const PATIENCE: Duration = Duration::from_secs(60);

/// Completed steps.
pub struct Steps {
    began: Instant,
    last: String,
}

impl Steps {
    /// Starts the clock.
    pub fn begin() -> Self {
        Self { began: Instant::now(), last: "nothing".to_owned() }
    }

    /// Completes a step.
    pub fn done(&mut self, what: &str) {
        println!("[{:6.2} s] {what}", self.began.elapsed().as_secs_f64());
        what.clone_into(&mut self.last);
    }

    /// Returns the last completed step.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Polls until there is a value.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                self.done(what);
                return Ok(found);
            }
            anyhow::ensure!(Instant::now() < deadline, "timeout after {} s: {what}", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_the_condition_is_met() {
        let mut steps = Steps::begin();
        let mut looks = 0;
        let found = steps.wait("third look", || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!((found.unwrap(), steps.last()), (3, "third look"));
    }

    #[test]
    fn a_failed_check_ends_the_wait() {
        let failed = Steps::begin().wait("x", || anyhow::bail!("broken") as anyhow::Result<Option<()>>);
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
