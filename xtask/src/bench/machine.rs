//! `docs/benchmarks.md`: the table with the machine and the date.

use super::table::Table;

/// The page.
pub fn page(table: &Table) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = crate::process::field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) / (1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let date = jiff::Zoned::now().strftime("%-d %B %Y");
    format!(
        "# Benchmarks\n\n{HEAD}\n{date}; {} with {cores} cores, {memory} GiB, Linux {}.\n\n{}\n{HOW}",
        model.unwrap_or("a processor"),
        kernel.trim(),
        table.render()
    )
}

const HEAD: &str = "The last table of `cargo xtask bench --write`; don't edit it by hand.";

const HOW: &str = "\
## How it is measured

* Everything is on one machine: the server, the drones (two processes) and, for ratios, a bare Go server (`bench/go-hold`) that
  reads a request, holds it and answers a fixed line: it authenticates nobody, decodes nothing and stores nothing. All over TLS 1.3 on loopback.
* Drones behave on the wire as real agents do (`crates/muster-drones`): gzip check-ins of some 2 KB, ack tokens, acks, 1 to 1.5 s between check-ins.
* *Per core of server CPU*: check-ins answered, divided by the processor seconds (user and system) that the server used meanwhile.
* *Memory per parked agent*: growth of the server's resident memory from the moment before the first agent came, and half of the growth of the kernel's
  socket caches and buffers (the other half belongs to the drones), divided by the agents.
* *All acked*: from the moment before the request that changes the policy until the last agent's ack was answered.
* *Action*: from the moment before the request that makes it until the drone has read it.
* *Start*: from the start of the process until it accepts, after `kill -9`; the middle one of five.
* What a check-in costs without the network, by thread and in bytes written: `cargo bench -p muster-elastic --bench check_in -- change 256 64 6`
  (or `heartbeat`; agents, agents at a time, seconds, and if wanted check-ins a second).
";
