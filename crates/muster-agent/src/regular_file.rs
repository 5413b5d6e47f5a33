//! Opens files that somebody else has put where they are.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::Utf8Path;
use nix::fcntl::OFlag;

/// Opens a file to read it. Fails if it is no regular file: a named pipe would block the agent until somebody writes to it.
pub fn open(path: &Utf8Path) -> Result<File> {
    // Without effect on regular files.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Error::new(ErrorKind::InvalidInput, "not a regular file")) }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_named_pipe_and_a_directory_are_errors_and_do_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        nix::unistd::mkfifo(base.join("pipe").as_std_path(), Mode::S_IRWXU).unwrap();
        for path in [base.join("pipe"), base.to_owned()] {
            assert!(open(&path).unwrap_err().to_string().contains("not a regular file"), "{path}");
        }
        assert_eq!(open(&base.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
        fs_err::write(base.join("file"), "x").unwrap();
        assert_eq!(std::io::read_to_string(open(&base.join("file")).unwrap()).unwrap(), "x");
    }
}
