//! Learns the maximum duration of a poll from polls that a device on the network path cut.
//!
//! Load balancers, NAT gateways and firewalls close idle connections, with a reset, with an error response, or
//! silently. A poll that was held and then cut is not a failed attempt. The agent checks in again immediately, with a
//! poll that is short enough to end before the next cut, and stores the limit.
//!
//! A server that crashes also cuts its polls, so that a single cut proves nothing. If no connection is possible after it,
//! the limit is dropped. After a few short polls, it is tested with a full-length poll, and is dropped if that poll
//! succeeds.

use std::time::Duration;

use tokio::time::Instant;

use crate::state::PollLimit;

/// A poll that fails earlier than this was not held: the server failed, or is not a server of this protocol.
pub const HELD_AFTER: Duration = Duration::from_secs(2);
/// Timeout of a poll without a limit. By default, servers hold polls for at most five minutes.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(600);

/// Servers subtract this from `poll_timeout` (EA68).
const SERVER_MARGIN: Duration = Duration::from_secs(120);
/// Minimum time that servers hold a poll, regardless of `poll_timeout` (EA68). The agent itself ends shorter polls.
const SERVER_MINIMUM: Duration = Duration::from_secs(60);
/// Time for the response to arrive after the server has stopped holding the poll.
const REPLY_GRACE: Duration = Duration::from_secs(30);
/// Minimum duration of a poll. Shorter polls would cost more than the back-off that they avoid.
const SHORTEST: Duration = Duration::from_secs(2);
/// Number of consecutive cuts that are retried immediately. After that, the back-off applies, in case a server accepts
/// and drops every request.
const CUTS_MAX: u32 = 3;
/// Number of short polls that must succeed before an unconfirmed limit is tested.
const SHORT_POLLS: u32 = 3;
/// Interval at which a confirmed limit is tested, because the network may have changed.
const TEST_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Parameters of the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `poll_timeout` of the request; `None` means the server's default.
    pub poll_timeout: Option<Duration>,
    /// Time after which the agent ends the poll itself, without an error.
    pub give_up: Option<Duration>,
    /// Time after which a missing response is a connection failure.
    pub timeout: Duration,
}

/// Meaning of a poll that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A failed attempt; the back-off applies.
    Failure,
    /// The poll was held and then cut; check in again soon.
    Cut,
}

/// A cut after which no connection has been made yet: the server may have crashed.
#[derive(Clone, Copy, Debug)]
struct LastCut {
    /// The limit before it.
    before: Option<PollLimit>,
    /// The new maximum duration of a poll, if it should be logged.
    news: Option<Duration>,
}

/// The limit on the duration of polls, and the progress of its test.
#[derive(Clone, Debug)]
pub struct PollLength {
    limit: Option<PollLimit>,
    last_cut: Option<LastCut>,
    cuts_in_a_row: u32,
    short_polls: u32,
    testing: bool,
    test_at: Instant,
}

impl PollLength {
    /// Starts with the stored limit.
    pub fn new(limit: Option<PollLimit>, now: Instant) -> Self {
        let (last_cut, test_at) = (None, now + TEST_EVERY);
        Self { limit, last_cut, cuts_in_a_row: 0, short_polls: 0, testing: false, test_at }
    }

    /// Returns the limit to store.
    pub fn limit(&self) -> Option<PollLimit> {
        self.last_cut.map_or(self.limit, |cut| cut.before)
    }

    /// Records that the server was reached again. Returns the maximum duration of a poll, if that is new and should be logged.
    pub fn reached(&mut self) -> Option<Duration> {
        self.last_cut.take().and_then(|cut| cut.news)
    }

    /// Records that no connection was possible. After a cut, this means that the server has gone, and no device cut the poll.
    pub fn unreachable(&mut self) {
        if let Some(cut) = self.last_cut.take() {
            self.limit = cut.before;
            (self.cuts_in_a_row, self.short_polls) = (0, 0);
        }
    }

    /// Removes the limit, because other servers may be reached through another network path.
    pub fn forget(&mut self, now: Instant) {
        *self = Self::new(None, now);
    }

    /// Returns the parameters of the next poll.
    pub fn ask(&mut self, now: Instant) -> Ask {
        self.testing = match self.limit {
            None => false,
            Some(PollLimit { confirmed: true, .. }) => now >= self.test_at,
            Some(PollLimit { confirmed: false, .. }) => self.short_polls >= SHORT_POLLS,
        };
        match self.limit.filter(|_| !self.testing).map(longest) {
            None => Ask { poll_timeout: None, give_up: None, timeout: POLL_TIMEOUT },
            Some(longest) if longest >= SERVER_MINIMUM => {
                Ask { poll_timeout: Some(longest + SERVER_MARGIN), give_up: None, timeout: longest + REPLY_GRACE }
            }
            // With the minimum duration, the server frees its slot soon even if it does not detect the disconnect.
            Some(longest) => Ask {
                poll_timeout: Some(SERVER_MINIMUM + SERVER_MARGIN),
                give_up: Some(longest),
                timeout: POLL_TIMEOUT,
            },
        }
    }

    /// Records a poll that ended after `held` with a response, or because the agent ended it.
    pub fn ended_well(&mut self, held: Duration) {
        self.cuts_in_a_row = 0;
        let Some(limit) = self.limit else { return };
        if self.testing {
            // A response before the time of the cut proves nothing. The test continues with the next poll.
            if held > cut_after(limit) {
                self.limit = None;
            }
        } else if held >= longest(limit) / 2 {
            self.short_polls += 1;
        }
    }

    /// Records a poll that failed after `held`.
    pub fn broke(&mut self, held: Duration, now: Instant) -> Broken {
        self.cuts_in_a_row += 1;
        // A quick failure says nothing about a time limit on the path.
        if held < HELD_AFTER || self.cuts_in_a_row > CUTS_MAX {
            return Broken::Failure;
        }
        let before = self.limit;
        let same = self.testing && before.is_some_and(|limit| about_equal(held, cut_after(limit)));
        // The shorter of two similar times, because the time of cuts varies slightly.
        let held = if same { held.min(before.map_or(held, cut_after)) } else { held };
        let limit = PollLimit { cut_after_ms: u64::try_from(held.as_millis()).unwrap_or(u64::MAX), confirmed: same };
        self.limit = Some(limit);
        (self.short_polls, self.testing, self.test_at) = (0, false, now + TEST_EVERY);
        let known = before.is_some_and(|before| same || held >= cut_after(before));
        self.last_cut = Some(LastCut { before, news: (!known).then(|| longest(limit)) });
        Broken::Cut
    }

    /// Records a poll without a response or an error within `waited`. The time of the cut is unknown. Half of `waited`
    /// is a guess, which becomes shorter with further losses.
    pub fn lost(&mut self, waited: Duration, now: Instant) -> Broken {
        self.broke(waited / 2, now)
    }
}

fn cut_after(limit: PollLimit) -> Duration {
    Duration::from_millis(limit.cut_after_ms)
}

/// Returns the maximum duration of a poll under a limit.
pub fn longest(limit: PollLimit) -> Duration {
    // A quarter is a margin for the response and for variations of the cut.
    (cut_after(limit) * 3 / 4).max(SHORTEST)
}

fn about_equal(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= (other / 4).max(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Records a cut after which the server is reached again, and returns the new limit.
    fn cut(length: &mut PollLength, held: Duration, now: Instant) -> Option<Duration> {
        assert_eq!(length.broke(held, now), Broken::Cut);
        length.reached()
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_shortens_the_next_poll_and_is_reported_once() {
        let now = Instant::now();
        let mut length = PollLength::new(None, now);
        assert_eq!(length.ask(now), Ask { poll_timeout: None, give_up: None, timeout: POLL_TIMEOUT });
        assert_eq!(cut(&mut length, seconds(100), now), Some(seconds(75)));
        let ask = length.ask(now);
        assert_eq!(ask, Ask { poll_timeout: Some(seconds(195)), give_up: None, timeout: seconds(105) });
        for _ in 0..SHORT_POLLS {
            length.ask(now);
            length.ended_well(seconds(60));
        }
        assert_eq!(length.ask(now).poll_timeout, None, "the limit is tested");
        assert_eq!(cut(&mut length, seconds(101), now), None);
        assert_eq!(length.limit(), Some(PollLimit { cut_after_ms: 100_000, confirmed: true }));
        assert_eq!(length.ask(now + DAY - seconds(1)).poll_timeout, Some(seconds(195)));
        assert_eq!(length.ask(now + DAY).poll_timeout, None, "it is tested once a day");
        length.ended_well(seconds(3));
        assert_eq!(length.ask(now + DAY).poll_timeout, None, "a quick answer is no test");
        length.ended_well(seconds(280));
        assert_eq!(length.limit(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_below_the_servers_minimum_are_ended_by_the_agent() {
        let now = Instant::now();
        let mut length = PollLength::new(None, now);
        assert_eq!(cut(&mut length, seconds(60), now), Some(seconds(45)));
        let ask = length.ask(now);
        assert_eq!((ask.poll_timeout, ask.give_up), (Some(seconds(180)), Some(seconds(45))));
        assert_eq!(cut(&mut length, seconds(20), now), Some(seconds(15)), "a shorter limit is news");
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_crash_of_the_server_leaves_no_limit() {
        let now = Instant::now();
        let mut length = PollLength::new(None, now);
        length.broke(seconds(10), now);
        for _ in 0..SHORT_POLLS {
            length.ask(now);
            length.ended_well(seconds(8));
        }
        length.ask(now);
        length.ended_well(seconds(290));
        assert_eq!(length.limit(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_by_a_server_that_is_gone_leaves_no_limit() {
        let now = Instant::now();
        let mut length = PollLength::new(None, now);
        length.broke(seconds(10), now);
        assert_eq!(length.limit(), None, "not stored yet");
        length.unreachable();
        assert_eq!((length.ask(now).give_up, length.limit(), length.reached()), (None, None, None));
        assert_eq!(cut(&mut length, seconds(60), now), Some(seconds(45)));
        length.broke(seconds(8), now);
        length.unreachable();
        assert_eq!(length.limit().map(cut_after), Some(seconds(60)), "what was learned before is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn quick_and_endless_cuts_are_failures() {
        let now = Instant::now();
        let mut length = PollLength::new(None, now);
        assert_eq!(length.broke(seconds(1), now), Broken::Failure);
        assert_eq!(length.limit(), None);
        length.ended_well(seconds(300));
        for _ in 0..CUTS_MAX {
            assert_eq!(length.broke(seconds(3), now), Broken::Cut);
        }
        assert_eq!(length.broke(seconds(3), now), Broken::Failure);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_lost_without_an_error_become_shorter() {
        let now = Instant::now();
        let mut length = PollLength::new(None, now);
        for limit in [225_000, 95_625] {
            let waited = length.ask(now).timeout;
            assert_eq!((length.lost(waited, now), length.reached()), (Broken::Cut, Some(Duration::from_millis(limit))));
        }
    }
}
