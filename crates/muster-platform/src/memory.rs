//! The memory of this process.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Gives back the memory of program code and constant data, of this program and of its libraries. What is used afterwards
/// is mapped again, from the kernel's cache of the files, which other processes share.
///
/// The kernel maps 64 KiB around each page that is used once, and unmaps them only when the host is short of memory. After
/// the start of a program that then waits for hours, most of this is never used again.
pub fn release_program_pages() -> io::Result<()> {
    for mapping in unmodified_files(BufReader::new(File::open("/proc/self/smaps")?))? {
        discard(&mapping)?;
    }
    Ok(())
}

/// Returns the private mappings of files that cannot be written, and of which no page was ever written, in the format of
/// `/proc/PID/smaps`.
fn unmodified_files(smaps: impl BufRead) -> io::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    // The mapping whose lines are being read, and how many of its counts of written pages were zero.
    let mut current: Option<(Range<usize>, usize)> = None;
    for line in smaps.lines() {
        let line = line?;
        match line.split_once(' ') {
            Some((head, rest)) if !head.ends_with(':') => current = read_only_file(head, rest).map(|range| (range, 0)),
            // Pages that were written and then protected, such as those with relocations, are kept, as are those in swap.
            Some(("Anonymous:" | "Swap:", size)) if size.trim() == "0 kB" => {
                if let Some((range, zeros)) = &mut current {
                    *zeros += 1;
                    if *zeros == 2 {
                        found.push(range.clone());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Parses the first line of a mapping: `START-END PERMISSIONS OFFSET DEVICE INODE PATH`.
fn read_only_file(range: &str, rest: &str) -> Option<Range<usize>> {
    let mut fields = rest.split_ascii_whitespace();
    let is_private = matches!(fields.next()?, "r--p" | "r-xp");
    let is_file = fields.nth(2)? != "0";
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16));
    (is_private && is_file).then_some(start.ok()?..end.ok()?)
}

/// Unmaps the pages of a mapping that [`unmodified_files`] returned.
fn discard(mapping: &Range<usize>) -> io::Result<()> {
    let Some(start) = NonNull::new(std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start)) else {
        return Ok(());
    };
    #[allow(unsafe_code, reason = "no library has a safe function for this")]
    // SAFETY: The mapping is private, of a file, and has no page of its own, so that every later access reads the same bytes
    // from the same file again. It cannot be written, and the program never makes such a mapping writable, so that
    // this cannot have changed since it was read. Unmapped meanwhile, the address is an error; and the loader
    // alone, which is not used after the start, would put another mapping there.
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
        5b00-5c00 r--s 0005a000 fe:00 43 /shared\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5c00-5d00 r--p 00000000 00:00 0\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5d00-5e00 r--p 00000000 00:00 0  [vvar]\nAnonymous:  0 kB\nSwap:  0 kB\n\
        5e00-5f00 r--p 00000000 fe:00 44 /unknown kernel\n\
        6000-6100 r--p 00000000 fe:00 44 /lib/c\nAnonymous:  0 kB\nSwap:  0 kB\n";

    #[test]
    fn only_files_without_a_written_page_are_released() {
        let found = unmodified_files(SMAPS.as_bytes()).unwrap();
        assert_eq!(found, [0x5600..0x5800, 0x6000..0x6100]);
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
