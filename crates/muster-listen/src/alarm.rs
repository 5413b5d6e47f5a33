//! A timer that all deadlines of a connection share.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is reset only if it would fire too late. On a busy connection, it sometimes fires early and is then
/// reset. This is cheaper than a reset with each request, because a reset takes the lock of tokio's timer wheel.
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// Creates a timer that first fires at `first`.
    pub fn new(first: Instant) -> Self {
        Self(Box::pin(sleep_until(first)))
    }

    /// Ready when `deadline` has passed. Each call can pass another deadline, which replaces the previous one.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if deadline < self.0.deadline() {
                self.0.as_mut().reset(deadline);
            }
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // The timer fired for an earlier deadline that has been replaced.
            self.0.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_deadline_of_the_latest_poll() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut alarm = Alarm::new(at(5));
        poll_fn(|cx| alarm.poll(at(9), cx)).await;
        assert_eq!(began.elapsed().as_secs(), 9);
        poll_fn(|cx| alarm.poll(at(3), cx)).await;
        poll_fn(|cx| alarm.poll(at(12), cx)).await;
        assert_eq!(began.elapsed().as_secs(), 12);
    }
}
