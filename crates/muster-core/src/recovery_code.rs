//! Recovery codes: with one, a protected agent can be uninstalled after its server, and the uninstall token with it, is
//! lost (AG142).
//!
//! A code is shown once, when it is created. The server and its agents have only a slow hash of it, because people may
//! write a code where others can see a part of it.

use zeroize::Zeroizing;

use crate::entropy::{Entropy, random_bytes};
use crate::replace_token;

/// The digits: Crockford's base 32, without letters that look like a digit or like another letter.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Number of digits of a code, 5 random bits each: 100 bits.
const LENGTH: usize = 20;
/// Digits between two hyphens.
const GROUP: usize = 5;

/// Generates a code: four groups of five digits, as `7RK2M-0D9VW-XQ4TB-H31NZ`.
pub fn generate(entropy: &dyn Entropy) -> Zeroizing<String> {
    let bytes = Zeroizing::new(random_bytes::<LENGTH>(entropy));
    let mut code = Zeroizing::new(String::with_capacity(LENGTH + LENGTH / GROUP));
    for (n, byte) in bytes.iter().enumerate() {
        if n > 0 && n % GROUP == 0 {
            code.push('-');
        }
        // 256 is a multiple of 32, so that every digit is equally likely.
        code.push(char::from(DIGITS[usize::from(byte % 32)]));
    }
    code
}

/// Returns the hash of a generated code, in the format of [`replace_token`]. Deliberately slow: do not call it on a
/// runtime thread.
pub fn hash(code: &str, entropy: &dyn Entropy) -> String {
    let digits = normalized(code).unwrap_or_default();
    replace_token::hash(&digits, replace_token::ITERATIONS, entropy)
}

/// Returns whether `given` is the code with this hash, in any spelling: case, hyphens and spaces do not count, and `I`,
/// `L` and `O` are read as the digits that they look like. As slow as [`hash`], but only for what can be a code.
pub fn verify(given: &str, stored: &str) -> bool {
    normalized(given).is_some_and(|digits| replace_token::verify(&digits, stored))
}

/// Returns the digits of a code without hyphens; `None` if the text cannot be a code.
fn normalized(code: &str) -> Option<Zeroizing<String>> {
    let mut digits = Zeroizing::new(String::with_capacity(LENGTH));
    for c in code.chars().filter(|c| !matches!(c, '-' | ' ')) {
        let digit = match c.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            other => other,
        };
        if digits.len() == LENGTH || !DIGITS.iter().any(|known| char::from(*known) == digit) {
            return None;
        }
        digits.push(digit);
    }
    (digits.len() == LENGTH).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    #[test]
    fn a_code_has_four_groups_and_is_accepted_in_any_spelling() {
        let entropy = Sequence::new();
        let code = generate(&entropy);
        let groups: Vec<&str> = code.split('-').collect();
        assert!(groups.len() == 4 && groups.iter().all(|group| group.len() == 5), "{}", *code);
        assert!(code.bytes().all(|byte| byte == b'-' || DIGITS.contains(&byte)), "{}", *code);
        assert_ne!(code, generate(&entropy));
        let stored = hash(&code, &entropy);
        assert!(!stored.contains(code.as_str()) && stored.starts_with("$pbkdf2-sha512$"), "{stored}");
        for spelling in [code.to_string(), code.to_lowercase(), code.replace('-', ""), code.replace('-', " ")] {
            assert!(verify(&spelling, &stored), "{spelling}");
        }
        let other = code.replacen(|_: char| true, if code.starts_with('Z') { "Y" } else { "Z" }, 1);
        for wrong in [other, format!("{}0", *code), code[1..].to_owned(), String::new()] {
            assert!(!verify(&wrong, &stored), "{wrong}");
        }
    }

    #[test]
    fn letters_that_look_like_digits_are_read_as_these() {
        let stored = hash("01010-22222-22222-22222", &Sequence::new());
        assert!(verify("oIoLo-22222-22222-22222", &stored));
        assert!(!verify("01010-22222-22222-2222U", &stored), "not a digit");
    }
}
