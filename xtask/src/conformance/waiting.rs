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
    (List::Mg, "verified by hand with OpenTofu 1.12.6 and the provider elasticstack 0.11.17", &[173, 174]),
    (List::Ag, "the agent keeps its old hosts, reports this, and applies and acks the rest of the policy", &[108]),
    (
        List::Ag,
        "the agent stores its acks until they are delivered, and has no reason to repeat them at each start",
        &[159],
    ),
    (
        List::Ag,
        "verified in a booted Debian by `cargo xtask systemd-test`, which `./check` does not run",
        &[2, 35, 47, 49, 155],
    ),
    (List::Ag, "`install` never prompts; without a URL, it installs without an enrollment", &[6]),
    (List::Ag, "there is no standalone mode", &[7]),
    (List::Ag, "a fleet server has no Elasticsearch options", &[11, 103, 104, 105, 172]),
    (
        List::Ag,
        "the command may upgrade any agent, but only to a package that is signed with a trusted release key",
        &[21],
    ),
    (List::Ag, "the control socket, with its liveness endpoint, opens after the enrollment", &[34]),
    (
        List::Ag,
        "components connect to a Unix socket, or, if its path is too long, to a port that the system chooses",
        &[36, 151],
    ),
    (List::Ag, "the control socket has no such call", &[51, 53]),
    (List::Ag, "the server is a program without units; it is ready when it listens", &[99]),
    (List::Ag, "the local listener has limits of its own; not measured together with an agent", &[106]),
    (List::Ag, "there are no packages for package managers yet", &[146]),
    (List::Ag, "files, service and command are Muster's own", &[153]),
    (
        List::Fl,
        "every request counts as a contact, and orbit sends one every 30 s whatever the configuration of osquery; a plain osqueryd with intervals above five minutes is shown as offline in between",
        &[19],
    ),
    (
        List::Fl,
        "lines without a name are dropped, but none because of its name: a query may have been removed from the schedule while its results were buffered",
        &[162],
    ),
    (List::Fl, "results are sent as server-sent events, not over WebSocket", &[36]),
    (List::Fl, "carves are not implemented yet", &[38, 39, 40, 165]),
    (List::Fl, "not measured yet", &[43]),
    (
        List::Fl,
        "MDM, scripts, installations of software and disk keys are not implemented",
        &[49, 56, 59, 60, 61, 62, 63, 64, 65, 66],
    ),
    (List::Fl, "there are no settings of the page, and no files for devices", &[74, 76]),
];

/// Returns the statements that a statement summarizes, whose tests verify it.
pub fn proved_by(number: Number) -> Vec<Number> {
    let ea = |number| Number::of(List::Ea, number);
    let d = |number| Number::of(List::D, number);
    // EA108: the access key, apart from the keys at outputs. D9: keys are revoked immediately, so that caches need not expire early.
    let rows = [(ea(108), vec![ea(122)]), (d(9), vec![d(20), d(21)]), (d(24), vec![ea(59), ea(131), ea(141)])];
    rows.into_iter().find(|(sum, _)| *sum == number).map(|(_, parts)| parts).unwrap_or_default()
}
