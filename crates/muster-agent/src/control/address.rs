//! Addresses of sockets with paths of any length (AG45).

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::OFlag;

/// Maximum length of the path in the address of a socket, in bytes.
const PATH_MAX: usize = 107;

/// A path of a socket that fits into its address.
pub(super) struct Address {
    path: Utf8PathBuf,
    /// The directory to which the path leads. It must stay open while the address is used.
    _directory: Option<File>,
}

impl Address {
    /// Returns an address of the socket at `path`, through its open directory if the path is too long.
    pub(super) fn of(path: &Utf8Path) -> std::io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        if path.as_str().len() <= PATH_MAX {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        // Whoever may use the socket need not be able to list its directory.
        let directory = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(parent)?;
        let path = Utf8PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        Ok(Self { path, _directory: Some(directory) })
    }

    /// Returns the path.
    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }
}
