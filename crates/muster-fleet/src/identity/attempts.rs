//! Throttling of failed logins, per address and per account, which locks nobody out who knows the password.
//!
//! Failures use up a budget of the address, and one of the account. Without the first, no password of that address is checked
//! for a while. Without the second, somebody is guessing the password of one account, perhaps from many addresses: then
//! addresses from which its owner logged in before are not affected, and others may try once a minute. Addresses from which nobody
//! logged in before share a third budget of the account, because an attacker may have any number of them. So a stranger slows the
//! owner down at a new address, and never locks the account. An account and an address from which its owner logged in before have
//! a budget of their own, because many people may share an address (NAT, a proxy).
//!
//! API tokens are not refused here: they have 256 random bits, and looking one up costs less than any bookkeeping. Their
//! failures only turn 401 into 429.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::id::UserId;
use muster_core::time::Timestamp;

/// Stands for the address of a user of this host.
pub(super) const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Maximum number of keys in a table.
const REMEMBERED: usize = 4_096;
/// Minimum time between two audit events about failed passwords of one account from one address.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// A budget of failures that refills with time.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Failures that may follow each other at once.
    most: u32,
    /// Time in which one is given back.
    refill: Duration,
}

const PASSWORDS_OF_ADDRESS: Budget = Budget { most: 10, refill: Duration::from_secs(30) };
const PASSWORDS_OF_ACCOUNT: Budget = Budget { most: 10, refill: Duration::from_secs(60) };
const PASSWORDS_OF_OWNER: Budget = Budget { most: 10, refill: Duration::from_secs(30) };
const NEW_ADDRESS_OF_ACCOUNT: Budget = Budget { most: 1, refill: Duration::from_secs(60) };
const NEW_ADDRESSES_OF_ACCOUNT: Budget = Budget { most: 10, refill: Duration::from_secs(6) };
const FEDERATED_OF_ADDRESS: Budget = Budget { most: 20, refill: Duration::from_secs(10) };
const DEVICES_OF_ADDRESS: Budget = Budget { most: 20, refill: Duration::from_secs(10) };
const CODES_OF_USER: Budget = Budget { most: 10, refill: Duration::from_secs(30) };
const TOKENS_OF_ADDRESS: Budget = Budget { most: 100, refill: Duration::from_secs(1) };

/// The failed and successful attempts of this node. In memory: other nodes throttle what they see.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    addresses: Spent<IpAddr>,
    accounts: Spent<String>,
    pairs: Spent<(String, IpAddr)>,
    /// Attempts at an account under attack, from addresses from which nobody logged in before.
    strangers: Spent<String>,
    /// Failures at an account from an address from which its owner logged in before.
    owners: Spent<(String, IpAddr)>,
    tokens: Spent<IpAddr>,
    /// Refused logins at OpenID providers.
    federated: Spent<IpAddr>,
    /// Logins of devices that were begun.
    devices: Spent<IpAddr>,
    /// Wrong codes of devices.
    codes: Spent<UserId>,
    /// When the audit log was told last of failures of an account from an address, and how many there were since.
    told: HashMap<(Option<String>, IpAddr), (Timestamp, u64)>,
    /// Addresses from which each account logged in, with the time.
    known: HashMap<(String, IpAddr), Timestamp>,
}

/// Returns the address that is counted: of IPv6 the /64 prefix, because a single host can use all addresses in it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

impl Attempts {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a password may be checked, or the time until then; counts the attempt of a new address at an account
    /// that is under attack.
    pub fn may_try(&self, account: &str, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let (mut tables, address) = (self.tables(), network(address));
        let pair = (account.to_owned(), address);
        if tables.known.contains_key(&pair) {
            return tables.owners.left(&pair, PASSWORDS_OF_OWNER, now);
        }
        tables.addresses.left(&address, PASSWORDS_OF_ADDRESS, now)?;
        if tables.accounts.left(&pair.0, PASSWORDS_OF_ACCOUNT, now).is_ok() {
            // Nobody is guessing the password of this account.
            return Ok(());
        }
        tables.pairs.left(&pair, NEW_ADDRESS_OF_ACCOUNT, now)?;
        // New to this server, not only to the account.
        if !tables.known.keys().any(|(_, known)| *known == address) {
            tables.strangers.left(&pair.0, NEW_ADDRESSES_OF_ACCOUNT, now)?;
            tables.strangers.spend(pair.0.clone(), NEW_ADDRESSES_OF_ACCOUNT, now);
        }
        tables.pairs.spend(pair, NEW_ADDRESS_OF_ACCOUNT, now);
        Ok(())
    }

    /// Returns how many failed passwords of an account from an address the audit log is to be told of now, with this one:
    /// the first one at once, and those after it once a minute. `None` stands for all accounts that do not exist.
    pub fn to_tell(&self, account: Option<&str>, address: IpAddr, now: Timestamp) -> Option<u64> {
        let told = &mut self.tables().told;
        let pair = (account.map(str::to_owned), address);
        if told.len() >= REMEMBERED && !told.contains_key(&pair) {
            told.retain(|_, (at, _)| now.since(*at) < TOLD_EVERY);
            if told.len() >= REMEMBERED {
                // Untold, because an attacker chooses the keys, and thereby their number.
                return None;
            }
        }
        let is_new = !told.contains_key(&pair);
        let (at, untold) = told.entry(pair).or_insert((now, 0));
        *untold += 1;
        if is_new || now.since(*at) >= TOLD_EVERY {
            *at = now;
            return Some(std::mem::take(untold));
        }
        None
    }

    /// Records a wrong password. Accounts that do not exist are counted too, so that they cannot be told from others.
    pub fn failed(&self, account: &str, address: IpAddr, now: Timestamp) {
        let (mut tables, address) = (self.tables(), network(address));
        tables.addresses.spend(address, PASSWORDS_OF_ADDRESS, now);
        let pair = (account.to_owned(), address);
        if tables.known.contains_key(&pair) {
            // Does not count against the account: forgetting a password is no attack on it.
            tables.owners.spend(pair, PASSWORDS_OF_OWNER, now);
        } else {
            tables.accounts.spend(pair.0, PASSWORDS_OF_ACCOUNT, now);
        }
    }

    /// Records a successful login.
    pub fn succeeded(&self, account: &str, address: IpAddr, now: Timestamp) {
        let (mut tables, address) = (self.tables(), network(address));
        tables.addresses.0.remove(&address);
        tables.owners.0.remove(&(account.to_owned(), address));
        if tables.known.len() >= REMEMBERED {
            // The login that is longest ago makes room.
            let oldest = tables.known.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| pair.clone());
            oldest.and_then(|pair| tables.known.remove(&pair));
        }
        tables.known.insert((account.to_owned(), address), now);
    }

    /// Returns whether a login at an OpenID provider may be begun or completed, or the time until then. Apart from
    /// passwords: an outage of a provider must not keep anybody from logging in with one.
    pub fn may_federate(&self, address: Option<IpAddr>, now: Timestamp) -> Result<(), Duration> {
        self.tables().federated.left(&network(address.unwrap_or(LOCAL)), FEDERATED_OF_ADDRESS, now)
    }

    /// Records a refused login at an OpenID provider.
    pub fn federation_failed(&self, address: Option<IpAddr>, now: Timestamp) {
        self.tables().federated.spend(network(address.unwrap_or(LOCAL)), FEDERATED_OF_ADDRESS, now);
    }

    /// Returns whether a device may begin a login, or the time until then, and counts it.
    pub fn may_begin_device(&self, address: Option<IpAddr>, now: Timestamp) -> Result<(), Duration> {
        let (mut tables, address) = (self.tables(), network(address.unwrap_or(LOCAL)));
        let may = tables.devices.left(&address, DEVICES_OF_ADDRESS, now);
        tables.devices.spend(address, DEVICES_OF_ADDRESS, now);
        may
    }

    /// Returns whether a user may try the code of a device, or the time until then.
    pub fn may_try_code(&self, user: &UserId, now: Timestamp) -> Result<(), Duration> {
        self.tables().codes.left(user, CODES_OF_USER, now)
    }

    /// Records a wrong code of a device.
    pub fn code_failed(&self, user: &UserId, now: Timestamp) {
        self.tables().codes.spend(user.clone(), CODES_OF_USER, now);
    }

    /// Records an invalid token. Returns the time to wait if the address has sent too many.
    pub fn token_failed(&self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let (mut tables, address) = (self.tables(), network(address));
        let left = tables.tokens.left(&address, TOKENS_OF_ADDRESS, now);
        tables.tokens.spend(address, TOKENS_OF_ADDRESS, now);
        left
    }
}

/// Spent budgets: for each key, when it will be whole again.
#[derive(Debug)]
struct Spent<K>(HashMap<K, Timestamp>);

impl<K> Default for Spent<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone> Spent<K> {
    /// Returns whether something of a budget is left, or the time until then.
    fn left(&self, key: &K, budget: Budget, now: Timestamp) -> Result<(), Duration> {
        let owed = self.0.get(key).map_or(Duration::ZERO, |whole| whole.since(now));
        let most = budget.refill * budget.most;
        let wait = (owed + budget.refill).saturating_sub(most);
        // A time further away was recorded before the clock was set back.
        if owed > most || wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    fn spend(&mut self, key: K, budget: Budget, now: Timestamp) {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&key) {
            self.0.retain(|_, whole| *whole > now);
        }
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&key) {
            // The one that is whole again first has the least to lose.
            let first = self.0.iter().min_by_key(|(_, whole)| **whole).map(|(key, _)| key.clone());
            first.and_then(|key| self.0.remove(&key));
        }
        let most = now.plus(budget.refill * budget.most);
        let whole = self.0.entry(key).or_insert(now);
        *whole = (*whole).max(now).plus(budget.refill).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_audit_log_is_told_of_failures_once_a_minute_for_each_account_and_address() {
        let attempts = Attempts::default();
        let told = |account: Option<&str>, last, second| attempts.to_tell(account, address(last), at(second));
        assert_eq!((told(Some("ann"), 1, 0), told(Some("ann"), 1, 1), told(Some("ann"), 1, 59)), (Some(1), None, None));
        assert_eq!(told(Some("ann"), 1, 60), Some(3));
        assert_eq!((told(Some("ann"), 2, 60), told(None, 1, 60), told(None, 1, 61)), (Some(1), Some(1), None));
    }

    #[test]
    fn an_address_that_guesses_is_refused_for_a_while() {
        let attempts = Attempts::default();
        for n in 0..10 {
            assert!(attempts.may_try(&format!("user{n}"), address(1), at(0)).is_ok());
            attempts.failed(&format!("user{n}"), address(1), at(0));
        }
        assert!(attempts.may_try("ann", address(1), at(0)).is_err());
        assert!(attempts.may_try("ann", address(2), at(0)).is_ok(), "others are not affected");
        assert!(attempts.may_try("ann", address(1), at(31)).is_ok());
    }

    #[test]
    fn guessing_from_many_addresses_does_not_lock_the_owner_out() {
        let attempts = Attempts::default();
        attempts.succeeded("ann", address(250), at(0));
        for n in 0..100 {
            if attempts.may_try("ann", address(n), at(1)).is_ok() {
                attempts.failed("ann", address(n), at(1));
            }
            if attempts.may_try("ann", address(n), at(2)).is_ok() {
                attempts.failed("ann", address(n), at(2));
            }
        }
        assert!(attempts.may_try("ann", address(50), at(3)).is_err());
        assert!(attempts.may_try("ann", address(250), at(3)).is_ok(), "where the owner logged in before");
        assert!(
            attempts.may_try("ann", address(251), at(3)).is_err(),
            "the others have spent what new addresses share"
        );
        assert!(attempts.may_try("ann", address(251), at(9)).is_ok(), "a new address may try once");
        assert!(attempts.may_try("ann", address(251), at(30)).is_err(), "and then waits");
        assert!(attempts.may_try("ann", address(251), at(70)).is_ok());
        assert!(attempts.may_try("bob", address(251), at(4)).is_ok(), "other accounts are not affected");
    }

    #[test]
    fn any_number_of_new_addresses_have_few_guesses_together() {
        let attempts = Attempts::default();
        attempts.succeeded("ann", address(1), at(0));
        attempts.succeeded("bob", address(2), at(0));
        let guesses = |from: u32, second| {
            let new = (from..from + 1000).map(|n| IpAddr::from(n.to_be_bytes()));
            let tried = new.filter(|address| {
                let may = attempts.may_try("ann", *address, at(second)).is_ok();
                may.then(|| attempts.failed("ann", *address, at(second))).is_some()
            });
            tried.count()
        };
        assert_eq!(guesses(0, 1), 20, "the budget of the account, and that of all new addresses");
        assert_eq!(guesses(1000, 1), 0);
        assert_eq!(guesses(2000, 61), 11, "what both give back in a minute");
        assert!(attempts.may_try("ann", address(1), at(61)).is_ok(), "the owner is not affected");
        assert!(attempts.may_try("ann", address(2), at(61)).is_ok(), "nor an address from which somebody logged in");
        assert!(attempts.may_try("bob", address(9), at(61)).is_ok());
    }

    #[test]
    fn the_owners_own_mistakes_do_not_slow_others_down() {
        let attempts = Attempts::default();
        attempts.succeeded("ann", address(1), at(0));
        (0..20).for_each(|_| attempts.failed("ann", address(1), at(1)));
        assert!(
            attempts.may_try("ann", address(1), at(1)).is_err() && attempts.may_try("ann", address(2), at(1)).is_ok()
        );
    }

    #[test]
    fn tables_are_bounded_and_a_clock_that_is_set_back_refuses_nobody() {
        let attempts = Attempts::default();
        for n in 0..20_000u32 {
            attempts.failed(&n.to_string(), IpAddr::from(n.to_be_bytes()), at(1_000));
            attempts.succeeded(&n.to_string(), IpAddr::from(n.to_be_bytes()), at(1_000));
        }
        let tables = attempts.tables();
        assert!(tables.accounts.0.len() <= REMEMBERED && tables.known.len() <= REMEMBERED);
        drop(tables);
        (0..20).for_each(|_| attempts.failed("x", address(1), at(90_000)));
        assert!(attempts.may_try("x", address(1), at(0)).is_ok());
    }

    #[test]
    fn an_ipv6_host_is_counted_by_its_network() {
        let attempts = Attempts::default();
        let host = |n: u32| format!("2001:db8:1:1::{n:x}").parse::<IpAddr>().unwrap();
        (0..10).for_each(|n| attempts.failed("nobody", host(n), at(0)));
        assert!(attempts.may_try("bob", host(99), at(0)).is_err());
        assert!(attempts.may_try("bob", "2001:db8:1:2::1".parse().unwrap(), at(0)).is_ok());
        (0..10).for_each(|_| attempts.failed("nobody", "::ffff:192.0.2.7".parse().unwrap(), at(0)));
        assert!(attempts.may_try("bob", "192.0.2.7".parse().unwrap(), at(0)).is_err());
    }

    #[test]
    fn many_invalid_tokens_of_an_address_are_noticed() {
        let attempts = Attempts::default();
        assert!((0..100).all(|_| attempts.token_failed(address(1), at(0)).is_ok()));
        assert_eq!(attempts.token_failed(address(1), at(0)), Err(Duration::from_secs(1)));
        assert!(attempts.token_failed(address(2), at(0)).is_ok());
    }

    #[test]
    fn others_who_guess_at_the_owners_address_do_not_lock_the_owner_out() {
        let attempts = Attempts::default();
        attempts.succeeded("ann", address(1), at(0));
        (0..100).for_each(|_| attempts.failed("nobody", address(1), at(1)));
        assert!(attempts.may_try("ann", address(1), at(1)).is_ok());
        assert_eq!(attempts.may_try("bob", address(1), at(1)), Err(Duration::from_secs(30)));
        (0..10).for_each(|_| attempts.failed("ann", address(1), at(1)));
        assert_eq!(attempts.may_try("ann", address(1), at(1)), Err(Duration::from_secs(30)));
        assert!(attempts.may_try("ann", address(1), at(31)).is_ok());
    }
}
