//! Unpacks an archive into a new directory. Nothing in an archive decides where files are written outside of it.

use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};
use flate2::read::MultiGzDecoder;

use super::disk::Disk;

/// Maximum number of entries.
const ENTRIES_MAX: usize = 4096;
/// Maximum depth of directories.
const DEPTH_MAX: usize = 8;

/// Unpacks the archive at `path` into `directory`, which is created. All entries are in one top directory, which is left
/// out. The files must not be larger than `limit` bytes in total.
pub fn unpack(disk: &dyn Disk, path: &Utf8Path, directory: &Utf8Path, limit: u64) -> io::Result<()> {
    disk.create_dir(directory)?;
    let file = fs_err::File::open(path)?;
    // The limit also applies to the headers, whose size is not in the manifest: each file has up to three.
    let overhead = u64::try_from(ENTRIES_MAX).unwrap_or(u64::MAX) * 2048;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(file).take(limit + overhead));
    let mut left = limit;
    for (number, entry) in archive.entries()?.enumerate() {
        if number >= ENTRIES_MAX {
            return Err(bad("too many entries"));
        }
        let mut entry = entry?;
        let Some(target) = target(&entry)? else { continue };
        let target = directory.join(target);
        match entry.header().entry_type() {
            tar::EntryType::Directory => disk.create_dir(&target)?,
            tar::EntryType::Regular => {
                left = left.checked_sub(entry.size()).ok_or_else(|| bad("larger than its manifest says"))?;
                parents(disk, directory, &target)?;
                // The owner and all other bits of the mode stay those of the agent.
                let mode = if entry.header().mode()? & 0o100 == 0 { 0o640 } else { 0o750 };
                disk.create(&target, mode, &mut entry)?;
            }
            // Links, devices and pipes are never part of a package.
            _ => return Err(bad("an entry that is neither a file nor a directory")),
        }
    }
    Ok(())
}

/// Returns the path of an entry below the top directory; `None` for the top directory itself.
fn target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Option<Utf8PathBuf>> {
    let path = entry.path()?;
    let path = Utf8Path::from_path(&path).ok_or_else(|| bad("a name that is not UTF-8"))?;
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            camino::Utf8Component::Normal(part) => parts.push(part),
            camino::Utf8Component::CurDir => {}
            _ => return Err(bad("a path that leaves its directory")),
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err(bad("directories that are nested too deeply"));
    }
    Ok((parts.len() > 1).then(|| parts[1..].iter().collect()))
}

fn parents(disk: &dyn Disk, directory: &Utf8Path, target: &Utf8Path) -> io::Result<()> {
    let between: Vec<&Utf8Path> =
        target.ancestors().skip(1).take_while(|parent| *parent != directory && parent.starts_with(directory)).collect();
    between.into_iter().rev().try_for_each(|parent| disk.create_dir(parent))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the archive contains {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::upgrade::disk::HostDisk;
    use crate::upgrade::pack::{SigningKey, pack};

    struct Place {
        _directory: tempfile::TempDir,
        archive: Utf8PathBuf,
        home: Utf8PathBuf,
    }

    fn place(bytes: &[u8]) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        let (archive, home) = (base.join("a.tar.gz"), base.join("home"));
        fs_err::write(&archive, bytes).unwrap();
        Place { _directory: directory, archive, home }
    }

    fn archive(add: impl FnOnce(&mut tar::Builder<flate2::write::GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(encoder);
        add(&mut builder);
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn header(kind: tar::EntryType, size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(u64::try_from(size).unwrap());
        header.set_mode(0o4777);
        header
    }

    #[test]
    fn a_package_is_unpacked_with_the_agents_modes() {
        let key = SigningKey::generate().unwrap();
        let packed = pack("0.2.0", b"program", &[("components/log.spec.yml", b"version: 2")], &key).unwrap();
        let place = place(&packed.archive);
        unpack(&HostDisk, &place.archive, &place.home, 100).unwrap();
        let mode = |name: &str| fs_err::metadata(place.home.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("muster-agent"), mode("components/log.spec.yml"), mode("")), (0o750, 0o640, 0o700));
        assert_eq!(fs_err::read(place.home.join("package.version")).unwrap(), b"0.2.0\n");
    }

    #[test]
    fn nothing_is_written_outside_of_the_directory() {
        for (kind, name) in [
            (tar::EntryType::Regular, "top/../../evil"),
            (tar::EntryType::Regular, "/etc/evil"),
            (tar::EntryType::Symlink, "top/link"),
            (tar::EntryType::Link, "top/hard"),
            (tar::EntryType::Fifo, "top/pipe"),
        ] {
            let bytes = archive(|builder| {
                let mut header = header(kind, 0);
                // Set directly, because the builder rejects such names too.
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_link_name("/etc/passwd").unwrap();
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            });
            let place = place(&bytes);
            let error = unpack(&HostDisk, &place.archive, &place.home, 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
            assert_eq!(fs_err::read_dir(place.home).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn a_link_that_is_already_there_is_not_written_through() {
        let bytes = archive(|builder| {
            let mut one = header(tar::EntryType::Regular, 3);
            builder.append_data(&mut one, "top/dir/file", &b"abc"[..]).unwrap();
        });
        let place = place(&bytes);
        let victim = place.home.with_file_name("victim");
        fs_err::create_dir_all(&place.home).unwrap();
        fs_err::create_dir(&victim).unwrap();
        std::os::unix::fs::symlink(&victim, place.home.join("dir")).unwrap();
        assert!(unpack(&HostDisk, &place.archive, &place.home, 100).is_err());
        assert_eq!(fs_err::read_dir(victim).unwrap().count(), 0);
    }

    #[test]
    fn an_archive_stops_at_its_limits() {
        let bytes = archive(|builder| {
            let mut big = header(tar::EntryType::Regular, 101);
            builder.append_data(&mut big, "top/big", &[0_u8; 101][..]).unwrap();
        });
        let place = place(&bytes);
        let error = unpack(&HostDisk, &place.archive, &place.home, 100).unwrap_err();
        assert!(error.to_string().contains("manifest"), "{error}");
        let mut cut = bytes;
        cut.truncate(40);
        let place = self::place(&cut);
        assert!(unpack(&HostDisk, &place.archive, &place.home, 1000).is_err());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"no archive").unwrap();
        let place = self::place(&gzip.finish().unwrap());
        assert!(unpack(&HostDisk, &place.archive, &place.home, 1000).is_err());
    }
}
