//! Secrets of the command line: a value, `@FILE`, or `-` for standard input, so that they need not be in the process
//! list.

use std::io::Read;

use crate::exit::{self, Failure};

/// Maximum size of a file with a secret.
const FILE_MAX: u64 = 64 << 10;

/// Returns the secret of `flag`. A line break at the end of a file is not part of it.
pub fn resolve(flag: &str, given: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::new(exit::USAGE, format!("{flag}: {given}: {error}"));
    let text = match given.strip_prefix('@') {
        Some(path) => read(std::fs::File::open(path).map_err(failed)?).map_err(failed)?,
        None if given == "-" => read(std::io::stdin().lock()).map_err(failed)?,
        None => return Ok(given.to_owned()),
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn read(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_a_file_without_its_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let given = format!("@{}", file.display());
        for (content, secret) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("a\nb\n", "a\nb")] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(resolve("--token", &given).unwrap(), secret);
        }
        assert_eq!(resolve("--token", "abc\n").unwrap(), "abc\n", "a value is used as it is");
        std::fs::write(&file, vec![b'x'; 70_000]).unwrap();
        assert_eq!(resolve("--token", &given).unwrap_err().code, exit::USAGE);
        assert!(resolve("--token", "@/nowhere").unwrap_err().message.contains("/nowhere"));
    }
}
