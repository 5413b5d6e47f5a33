//! The memory of this process.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Gives back the memory of code and constant data of this program and of the C library. What is used afterwards is mapped
/// again, from the kernel's cache of the files, which other processes share.
///
/// The kernel maps 64 KiB around each page that is used once, and unmaps them only when the host is short of memory. After
/// the start of a program that then waits for hours, most of this is never used again.
pub fn release_program_pages() -> io::Result<()> {
    // One function of each: both files are mapped before `main` and until the end.
    let own = release_program_pages as *const () as usize;
    let library = nix::libc::madvise as *const () as usize;
    for mapping in unmodified(BufReader::new(File::open("/proc/self/smaps")?), &[own, library])? {
        discard(&mapping)?;
    }
    Ok(())
}

/// A private mapping of a file that cannot be written.
struct Mapping {
    addresses: Range<usize>,
    /// Device and inode.
    file: (String, String),
    /// Whether no page was ever written: neither in memory nor in swap.
    unwritten: [bool; 2],
}

/// Returns the read-only mappings, without written pages, of the files that contain these functions. The format is that of
/// `/proc/PID/smaps`.
fn unmodified(smaps: impl BufRead, functions: &[usize]) -> io::Result<Vec<Range<usize>>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut is_relevant = false;
    for line in smaps.lines() {
        let line = line?;
        let Some((head, rest)) = line.split_once(' ') else { continue };
        if !head.ends_with(':') {
            let mapping = read_only_file(head, rest);
            is_relevant = mapping.is_some();
            mappings.extend(mapping);
        } else if let Some(mapping) = mappings.last_mut().filter(|_| is_relevant) {
            // Pages that were written and then protected, such as those with relocations, must be kept.
            let is_none = rest.trim() == "0 kB";
            match head {
                "Anonymous:" => mapping.unwritten[0] = is_none,
                "Swap:" => mapping.unwritten[1] = is_none,
                _ => {}
            }
        }
    }
    let contains = |mapping: &&Mapping| functions.iter().any(|function| mapping.addresses.contains(function));
    let files: Vec<_> = mappings.iter().filter(contains).map(|mapping| mapping.file.clone()).collect();
    let released = mappings.into_iter().filter(|mapping| mapping.unwritten == [true; 2]);
    Ok(released.filter(|mapping| files.contains(&mapping.file)).map(|mapping| mapping.addresses).collect())
}

/// Parses the first line of a mapping: `START-END PERMISSIONS OFFSET DEVICE INODE PATH`.
fn read_only_file(range: &str, rest: &str) -> Option<Mapping> {
    let mut fields = rest.split_ascii_whitespace();
    let is_private = matches!(fields.next()?, "r--p" | "r-xp");
    let (device, inode) = (fields.nth(1)?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16));
    let file = (device.to_owned(), inode.to_owned());
    (is_private && inode != "0").then_some(Mapping { addresses: start.ok()?..end.ok()?, file, unwritten: [false; 2] })
}

/// Unmaps the pages of a mapping that [`unmodified`] returned.
fn discard(mapping: &Range<usize>) -> io::Result<()> {
    let Some(start) = NonNull::new(std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start)) else {
        return Ok(());
    };
    #[allow(unsafe_code, reason = "no library has a safe function for this")]
    // SAFETY: The mapping is private, of a file, and has no page of its own, so that every later access reads the same bytes
    // from the same file again. It belongs to the program or to the C library. The loader maps these, and protects
    // what it has written, before `main`; nothing unmaps them or makes them writable later, so that the mapping is
    // still the one that was read.
    unsafe {
        madvise(start, mapping.len(), MmapAdvise::MADV_DONTNEED)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
        5600-5800 r-xp 00057000 fe:00 42 /opt/a program\nRss:  8 kB\nAnonymous:  0 kB\nSwap:  0 kB\nVmFlags: rd ex mr\n\
        5800-5900 r--p 00059000 fe:00 42 /opt/a program\nAnonymous:  4 kB\nSwap:  0 kB\n\
        5900-5a00 r--p 0005a000 fe:00 42 /opt/a program\nAnonymous:  0 kB\nSwap:  4 kB\n\
        5a00-5b00 rw-p 0005a000 fe:00 42 /opt/a program\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5b00-5c00 r--s 0005a000 fe:00 42 /opt/a program\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5c00-5d00 r--p 00000000 fe:00 42 /opt/a program\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5d00-5e00 r--p 00000000 00:00 0  [vvar]\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5e00-5f00 r--p 00000000 fe:00 42 /opt/a program of an unknown kernel\n\
        6000-6100 r-xp 00000000 fe:00 43 /lib/c\nAnonymous:  0 kB\nSwap:  0 kB\n\
        6100-6200 r--p 00000000 fe:00 44 /lib/loaded later\nAnonymous:  0 kB\nSwap:  0 kB\n\
        6200-6300 r--p 00000000 fe:01 42 /lib/on another device\nAnonymous:  0 kB\nSwap:  0 kB\n";

    #[test]
    fn only_own_files_without_a_written_page_are_released() {
        let found = |functions: &[usize]| unmodified(SMAPS.as_bytes(), functions).unwrap();
        assert_eq!(found(&[0x5700, 0x6000]), [0x5600..0x5800, 0x5c00..0x5d00, 0x6000..0x6100]);
        assert_eq!(found(&[0x6050]).len(), 1);
        assert_eq!(found(&[0x100, 0x6300]), []);
    }

    #[test]
    fn the_program_goes_on_with_less_memory() {
        static TABLE: [u8; 1 << 20] = [7; 1 << 20];
        // Pages of files that are resident, in bytes.
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(2).unwrap().parse::<usize>().unwrap() * 4096
        };
        let sum = || TABLE.iter().map(|byte| usize::from(std::hint::black_box(*byte))).sum::<usize>();
        let (total, before) = (sum(), resident());
        release_program_pages().unwrap();
        let after = resident();
        assert!(after + TABLE.len() / 2 < before, "{before} bytes, then {after}");
        assert_eq!(sum(), total, "what was released is read again");
    }
}
