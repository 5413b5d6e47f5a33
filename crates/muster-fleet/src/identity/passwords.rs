//! Hashes of passwords: argon2id, computed on few threads beside the runtime.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use muster_core::entropy::random_bytes;
use muster_core::identity::PasswordHash;
use muster_core::{Entropy, Error, ErrorKind};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Minimum and maximum length of a password, in bytes.
/// Bytes of a password.
pub const LENGTH: std::ops::RangeInclusive<usize> = 12..=256;
/// Hashes computed at once. Each takes a core and the memory of [`PasswordCost`].
const AT_ONCE: usize = 2;
/// Logins that may wait for that.
const WAITING: usize = 32;

/// Cost of a hash.
#[derive(Clone, Copy, Debug)]
pub struct PasswordCost {
    /// Memory, in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        // The second choice of RFC 9106 §4 takes 64 MiB for each login; this one is OWASP's minimum, with more passes.
        Self { memory: 19 * 1024, passes: 3 }
    }
}

/// Computes and verifies hashes.
pub struct Passwords {
    entropy: Arc<dyn Entropy>,
    cost: PasswordCost,
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Passwords {
    pub(crate) fn new(entropy: Arc<dyn Entropy>, cost: PasswordCost) -> Self {
        Self { entropy, cost, running: Arc::new(Semaphore::new(AT_ONCE)), waiting: Semaphore::new(WAITING) }
    }

    /// Checks a new password of a user, and computes its hash.
    pub async fn hash(&self, name: &str, password: &str) -> Result<PasswordHash, Error> {
        check(name, password)?;
        let salt = random_bytes::<16>(&*self.entropy);
        let (cost, password) = (self.cost, Zeroizing::new(password.to_owned()));
        self.run(move || {
            let hash = hasher(cost).and_then(|argon2| argon2.hash_password_with_salt(password.as_bytes(), &salt));
            hash.map(|hash| PasswordHash(hash.to_string())).map_err(Error::internal)
        })
        .await?
    }

    /// Returns whether the password matches. Takes as long without a hash, so that nobody learns which users exist.
    pub async fn verify(&self, password: &str, hash: Option<&PasswordHash>) -> Result<bool, Error> {
        if password.len() > *LENGTH.end() {
            return Ok(false);
        }
        let (cost, password, hash) = (self.cost, Zeroizing::new(password.to_owned()), hash.cloned());
        self.run(move || match hash {
            // The parameters are those of the stored hash.
            Some(PasswordHash(hash)) => Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok(),
            None => {
                let _ = hasher(cost).map(|argon2| argon2.hash_password_with_salt(password.as_bytes(), &[0; 16]));
                false
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let busy = || {
            Error::new(ErrorKind::TooMany, "too_many_log_ins", "too many logins at the same time; retry in a second")
        };
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| busy())?;
        let work = move || {
            let _permit = permit;
            work()
        };
        // Not on the runtime's own threads: a hash takes tens of milliseconds.
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)
    }
}

fn hasher(cost: PasswordCost) -> argon2::password_hash::Result<Argon2<'static>> {
    let params = Params::new(cost.memory, cost.passes, 1, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn check(name: &str, password: &str) -> Result<(), Error> {
    if !LENGTH.contains(&password.len()) {
        return Err(Error::invalid("password", format!("must have {} to {} bytes", LENGTH.start(), LENGTH.end())));
    }
    let mut characters = password.chars();
    let first = characters.next();
    if characters.all(|other| Some(other) == first) || password.eq_ignore_ascii_case(name) {
        return Err(Error::invalid("password", "must not be the name or one character repeated"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_core::testing::Sequence;

    use super::*;

    #[tokio::test]
    async fn passwords_are_verified_against_their_hash() {
        let passwords = Passwords::new(Arc::new(Sequence::new()), PasswordCost { memory: 64, passes: 1 });
        let hash = passwords.hash("ann", "correct horse").await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.0);
        assert!(passwords.verify("correct horse", Some(&hash)).await.unwrap());
        assert!(!passwords.verify("correct horsf", Some(&hash)).await.unwrap());
        assert!(!passwords.verify("correct horse", None).await.unwrap());
        assert!(!passwords.verify("correct horse", Some(&PasswordHash("damaged".into()))).await.unwrap());
    }

    #[test]
    fn weak_passwords_are_rejected() {
        for weak in ["short", "aaaaaaaaaaaaaaaa", "Ann.Lee@Example", &"x y".repeat(100)] {
            assert_eq!(check("ann.lee@example", weak).unwrap_err().field.as_deref(), Some("password"), "{weak}");
        }
        assert_eq!(check("ann", "twelve chars"), Ok(()));
    }
}
