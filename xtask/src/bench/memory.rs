//! Measures the kernel memory of connections.
//!
//! Both ends of every connection are on this machine, so that half of the growth of the kernel's socket caches and
//! buffers belongs to the server. Only root can read `/proc/slabinfo`. Without it, only the buffers in
//! `/proc/net/sockstat` are counted, and the benchmark prints a warning.

use super::say;

/// Slab caches that contain objects of connections.
const CACHES: [&str; 6] = ["TCP", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq", "ep_head"];

/// Returns the number of bytes that the kernel currently uses for both ends of connections.
pub fn kernel_sockets() -> u64 {
    let buffers = std::fs::read_to_string("/proc/net/sockstat").map(|text| socket_pages(&text) * 4096).unwrap_or(0);
    match std::fs::read_to_string("/proc/slabinfo") {
        Ok(text) => buffers + slabs(&text),
        Err(_) => {
            say("cannot read /proc/slabinfo: the kernel's memory is underestimated");
            buffers
        }
    }
}

/// Returns `mem` of the line `TCP:`.
fn socket_pages(sockstat: &str) -> u64 {
    let line = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem").skip(1);
    words.next().and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Returns the size of the objects in use in these caches, in bytes.
fn slabs(slabinfo: &str) -> u64 {
    let cache = |line: &str| {
        let mut words = line.split_whitespace();
        let known = words.next().is_some_and(|name| CACHES.contains(&name));
        let mut number = || words.next()?.parse::<u64>().ok();
        let (active, _, size) = (number()?, number()?, number()?);
        known.then_some(active * size)
    };
    slabinfo.lines().filter_map(cache).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_sockets_is_read_from_proc() {
        assert_eq!(
            socket_pages("sockets: used 9\nTCP: inuse 2 orphan 0 tw 0 alloc 2 mem 225\nUDP: inuse 0 mem 7\n"),
            225
        );
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs>\nTCPv6 5 5 2496 13 8\nTCP 10 13 2000 13 8\nfilp 100 110 256 16 1\n";
        assert_eq!(slabs(slabinfo), 10 * 2000 + 100 * 256);
    }
}
