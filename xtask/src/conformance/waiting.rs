//! Statements without tests, with the reasons.

use super::names::{List, Number};

/// Returns the reason that a statement is not, or not completely, tested.
pub fn reason(number: Number) -> Option<&'static str> {
    let of_list = WAITING.iter().filter(|(list, _, _)| *list == number.list);
    let found = of_list.flat_map(|(list, reason, numbers)| numbers.iter().map(|n| (Number::of(*list, *n), *reason)));
    found.into_iter().find(|(waiting, _)| *waiting == number).map(|(_, reason)| reason)
}

/// What is not there yet, and the statements that wait for it.
const WAITING: &[(List, &str, &[u16])] = &[
    (
        List::Mg,
        "a policy, its keys, agents and secrets belong to one space, which is the boundary between tenants; sharing it is rejected",
        &[73],
    ),
    (List::Mg, "integration packages are not implemented", &[109, 175]),
    (
        List::Mg,
        "agents are unenrolled at the timeout and not an hour later, as in older releases of the original: there is no action to cancel",
        &[152],
    ),
    (List::Mg, "verified by hand with Elastic Agents 8.18.8 and 9.5.2", &[176]),
    (
        List::Mg,
        "no test runs Elastic Agent, or a command on macOS or Windows: the commands for them are compared as texts (MG184)",
        &[179],
    ),
    (List::Mg, "verified by hand with OpenTofu 1.12.6 and the provider elasticstack 0.11.17", &[173, 174]),
    (
        List::Ag,
        "the agent keeps its old hosts, reports this, and applies and acks the rest of the policy, which can contain what is needed to reach the new ones",
        &[108],
    ),
    (
        List::Ag,
        "the agent stores its acks until they are delivered, and has no reason to repeat them at each start",
        &[159],
    ),
    (
        List::Ag,
        "a unit that was left behind is replaced on hosts with systemd, which `cargo xtask systemd-test` checks",
        &[155],
    ),
    (
        List::Ag,
        "the server's component is HEALTHY, and not DEGRADED, when it runs without an enrolled agent; the agent itself is STARTING then",
        &[99],
    ),
    (
        List::Ag,
        "the rush in the test is of 16 hosts for as long as five actions of the local agent take, not of 10,000 check-ins",
        &[106],
    ),
    (
        List::Ag,
        "files, service and command have names and modes of their own, which the tests of AG38, AG47 and AG49 check",
        &[153],
    ),
    (
        List::Ag,
        "files with certificates and keys of the connection may be relative, because the command reads them at once and stores their content",
        &[10],
    ),
    (
        List::Ag,
        "`human` shows healthy components, too, and hides only their healthy units; versions have no commit",
        &[18],
    ),
    (
        List::Ag,
        "there is no `inspect components`; `status` lists the components and inputs that do not run, with the reason",
        &[23],
    ),
    (
        List::Fl,
        "measured by hand: 10,000 simulated hosts for an hour (9.0 million requests), beside builds on the same two cores: no error, p99 44 ms; the first minute, in which each host enrolls and reports its details, has up to 442 ms",
        &[43],
    ),
    (List::Fl, "the server is no MDM server: there are no pending hosts of Apple Business to take over", &[49]),
    (List::Fl, "users of hosts do not authenticate at the enrollment", &[65, 66]),
    (List::Fl, "no route of the device API returns a file", &[76]),
];

/// Returns the statements that a statement summarizes, whose tests verify it.
pub fn proved_by(number: Number) -> Vec<Number> {
    let ea = |number| Number::of(List::Ea, number);
    let d = |number| Number::of(List::D, number);
    // EA108: the access key, apart from the keys at outputs. D9: keys are revoked immediately, so that caches need not expire early.
    let rows = [(ea(108), vec![ea(122)]), (d(9), vec![d(20), d(21)]), (d(24), vec![ea(59), ea(131), ea(141)])];
    rows.into_iter().find(|(sum, _)| *sum == number).map(|(_, parts)| parts).unwrap_or_default()
}
