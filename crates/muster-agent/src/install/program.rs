//! Copies the running program into a versioned home.

use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use aws_lc_rs::digest::{Context, SHA256};
use camino::Utf8Path;
use muster_core::Entropy;
use muster_core::entropy::random_uuid;

use crate::homes::{Home, HomeName};
use crate::paths::{Layout, PROGRAM};
use crate::state::atomic;
use crate::upgrade::pack::VERSION_FILE;

/// Size of the pieces in which the program is copied.
const PIECE: usize = 256 << 10;
/// Path of the running program. It is valid even if the file was replaced or deleted.
const RUNNING: &str = "/proc/self/exe";

/// Copies the running program, version `version`, into its home. Returns the name of the home.
pub fn install(layout: &Layout, version: &str, entropy: &dyn Entropy) -> io::Result<HomeName> {
    atomic::private_subdir(&layout.homes())?;
    // The name depends on the contents, so that the copy is made under another name first.
    let staging = Home::new(layout.homes().join(format!(".{}", random_uuid(entropy))));
    let made = stage(&staging, version).and_then(|name| settle(layout, &staging, name));
    if made.is_err() {
        let _ = std::fs::remove_dir_all(staging.path());
    }
    made
}

/// Copies the running program to `directory/muster-agent`.
pub fn copy(directory: &Utf8Path) -> io::Result<[u8; 32]> {
    let mut source = std::fs::File::open(RUNNING)?;
    let mut options = std::fs::OpenOptions::new();
    // The directory is new, so that the file cannot exist. A link is not followed.
    let mut target = options.write(true).create_new(true).mode(0o700).open(directory.join(PROGRAM))?;
    let (mut hash, mut piece) = (Context::new(&SHA256), vec![0; PIECE]);
    loop {
        let length = source.read(&mut piece)?;
        if length == 0 {
            break;
        }
        hash.update(&piece[..length]);
        target.write_all(&piece[..length])?;
    }
    target.sync_all()?;
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok(digest)
}

fn stage(staging: &Home, version: &str) -> io::Result<HomeName> {
    std::fs::DirBuilder::new().mode(0o700).create(staging.path())?;
    let digest = copy(staging.path())?;
    // As in a package: the version can differ from that of the build.
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(staging.path().join(VERSION_FILE))?;
    file.write_all(format!("{version}\n").as_bytes())?;
    file.sync_all()?;
    atomic::sync(staging.path())?;
    HomeName::new(version, &digest).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Gives the home its name. A home with this name has the same program already.
fn settle(layout: &Layout, staging: &Home, name: HomeName) -> io::Result<HomeName> {
    let home = layout.home(&name);
    match home.program().symlink_metadata() {
        Ok(_) => fs_err::remove_dir_all(staging.path())?,
        Err(_) => {
            // An incomplete home of an interrupted installation.
            match std::fs::remove_dir_all(home.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs_err::rename(staging.path(), home.path())?;
        }
    }
    atomic::sync(&layout.homes())?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::System;
    use crate::homes;

    #[test]
    fn the_program_is_copied_once_and_named_by_its_contents() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        let name = install(&layout, "0.1.0", &System).unwrap();
        let program = fs_err::read(layout.home(&name).program()).unwrap();
        assert_eq!(program, fs_err::read(RUNNING).unwrap());
        assert_eq!(name, HomeName::new("0.1.0", &muster_core::hex::sha256(&program)).unwrap());
        assert_eq!(install(&layout, "0.1.0", &System).unwrap(), name);
        assert_eq!(homes::installed(&layout).unwrap(), [name]);
        assert_eq!(fs_err::read_dir(layout.homes()).unwrap().count(), 1, "no staging directory is left");
    }
}
