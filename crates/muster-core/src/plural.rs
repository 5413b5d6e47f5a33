//! Numbers with their noun, for messages.

/// Returns the number with the noun in singular or plural: `1 agent`, `3 agents`.
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    // A number that no `u64` holds is negative, or too large to be shown exactly.
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(
            [counted(0_u64, "key"), counted(1_i64, "key"), counted(2_usize, "key")],
            ["0 keys", "1 key", "2 keys"]
        );
    }
}
