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
    (List::Ag, "a unit that was left behind is replaced on hosts with systemd only; not tested", &[155]),
    (List::Ag, "all inputs come from a server: without one, the agent is installed and waits for its enrollment", &[7]),
    (List::Ag, "a fleet server has no Elasticsearch options", &[11, 103, 104, 105, 172]),
    (
        List::Ag,
        "a managed agent may be upgraded by hand, because no option skips the signature of a trusted release key",
        &[21],
    ),
    (List::Ag, "the control protocol is Muster's own, and its clients poll the status", &[51]),
    (List::Ag, "the server is a program without units; it is ready when it listens", &[99]),
    (List::Ag, "the local listener has limits of its own; not measured together with an agent", &[106]),
    (
        List::Ag,
        "files, service and command have names and modes of their own, which the tests of AG38, AG47 and AG49 check",
        &[153],
    ),
    (List::Fl, "the identifier is always the one that osqueryd sends, and there is no cooldown", &[9, 10, 11, 84]),
    (List::Fl, "a host is online while it polls, whatever intervals its configuration has", &[19]),
    (List::Fl, "orbit gets no extensions", &[57]),
    (List::Fl, "packs have the names that the document of the space gives them", &[15]),
    (List::Fl, "the server knows no query by its name", &[162]),
    (List::Fl, "labels are not implemented yet", &[32]),
    (List::Fl, "a host without checks is not asked: nothing has a time that must move", &[29]),
    (List::Fl, "results are sent as server-sent events, not over WebSocket", &[36]),
    (List::Fl, "carves are not implemented yet", &[38, 39, 40, 165]),
    (List::Fl, "not measured yet", &[43]),
    (
        List::Fl,
        "MDM, scripts, installations of software and disk keys are not implemented",
        &[49, 56, 59, 60, 61, 62, 63, 64, 65, 66],
    ),
    (List::Fl, "a record is of one enrollment: facts of the former one are replaced", &[50]),
    (List::Fl, "there are no settings of the page, and no files for devices", &[74, 76]),
    (List::Fl, "keys are hashed like those of other agents; not tested separately", &[81]),
    (List::Fl, "one-time secrets are not implemented yet", &[82, 83, 85]),
];

/// Returns the statements that a statement summarizes, whose tests verify it.
pub fn proved_by(number: Number) -> Vec<Number> {
    let ea = |number| Number::of(List::Ea, number);
    let d = |number| Number::of(List::D, number);
    // EA108: the access key, apart from the keys at outputs. D9: keys are revoked immediately, so that caches need not expire early.
    let rows = [(ea(108), vec![ea(122)]), (d(9), vec![d(20), d(21)]), (d(24), vec![ea(59), ea(131), ea(141)])];
    rows.into_iter().find(|(sum, _)| *sum == number).map(|(_, parts)| parts).unwrap_or_default()
}
