//! Copies the server's program into the base path, where only the agent's user can change it.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};

use crate::paths::Layout;
use crate::state::atomic;

/// Name of the server's program.
const PROGRAM: &str = "muster";

/// Returns the program that is beside this one, or else the first one in `PATH`.
pub fn find() -> Option<Utf8PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
    let beside = own.and_then(|own| own.parent().map(|directory| directory.join(PROGRAM)));
    let path = std::env::var("PATH").unwrap_or_default();
    let named = path.split(':').filter(|directory| !directory.is_empty()).map(|dir| Utf8Path::new(dir).join(PROGRAM));
    beside.into_iter().chain(named).find(|program| is_executable(program))
}

/// Returns whether a path leads to a program.
pub fn is_executable(path: &Utf8Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// Copies `program` into the base path. The previous copy is replaced in one step, even if it is running.
pub fn install(layout: &Layout, program: &Utf8Path) -> io::Result<()> {
    let target = layout.server_program();
    let directory = layout.server_programs();
    atomic::private_subdir(&directory)?;
    if program == target {
        return Ok(());
    }
    let fresh = directory.join(".muster.new");
    // What an interrupted copy has left is never written to: it could be a link.
    atomic::remove(&fresh)?;
    let mut source = std::fs::File::open(program)?;
    let mut options = std::fs::OpenOptions::new();
    let mut copy = std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o700).open(&fresh)?;
    io::copy(&mut source, &mut copy)?;
    // The umask may have taken permissions away.
    copy.set_permissions(std::fs::Permissions::from_mode(0o700))?;
    copy.sync_all()?;
    drop(copy);
    fs_err::rename(&fresh, &target)?;
    atomic::sync(&directory)
}
