//! Durations on the command line.

/// Parses `90s`, `10m`, `4h` or `2d` into seconds.
pub fn seconds(text: &str) -> Result<i64, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<i64>() {
        Ok(number) if factor > 0 && number > 0 => Ok(number.saturating_mul(factor)),
        _ => Err("expected a number with a unit s, m, h or d, such as 4h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(seconds("4h").unwrap(), 14_400);
        for bad in ["", "h", "4", "-1h", "4y", "ä"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
