use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn wave(members: Members) -> Wave {
    Wave { members, soak: minutes(10), needs_approval: false }
}

fn rollout(waves: Vec<Wave>) -> Rollout {
    Rollout {
        id: RolloutId::trusted("r"),
        space: SpaceId::default(),
        subject: Subject::Policy { policy: PolicyId::trusted("p"), revision: 2, last_good: 1 },
        plan: Plan { waves, gate: Gate::default() },
        started: Vec::new(),
        state: State::Created,
        version: 1,
        created_at: Timestamp::default(),
        created_by: "system".into(),
        updated_at: Timestamp::default(),
    }
}

fn percents() -> Rollout {
    rollout([5, 50, 100].map(|percent| wave(Members::Percent(percent))).to_vec())
}

fn at(count: u64) -> Timestamp {
    Timestamp::default().plus(minutes(count))
}

/// Carries out a step, as the service does.
fn carry_out(rollout: &mut Rollout, step: Step, now: Timestamp) {
    match step {
        Step::Start { wave } => {
            assert_eq!(wave, rollout.started.len(), "waves start in order");
            let baseline = Baseline { agents: 100, unhealthy: 2 };
            rollout.start(StartedWave { at: now, below: Some(Place::share(5)), baseline });
        }
        Step::AskApproval => rollout.state = State::AwaitingApproval,
        Step::AwaitAgents => rollout.state = State::AwaitingAgents,
        Step::Halt { breach } => rollout.state = State::Halted { breach, at: now },
        Step::Complete => rollout.state = State::Completed,
        Step::Wait { .. } => {}
    }
}

fn healthy() -> Observation {
    Observation { agents: 100, reachable: 100, applied: 100, wave_applied: 50, unhealthy: 2, failed: 0, silent: 0 }
}

#[test]
fn healthy_waves_follow_each_other_after_their_soak_time() {
    let mut rollout = percents();
    for (minute, state, waves) in [
        (0, "running", 1),
        (9, "running", 1),
        (10, "running", 2),
        (19, "running", 2),
        (20, "running", 3),
        (30, "completed", 3),
    ] {
        let step = rollout.decide(&healthy(), at(minute));
        carry_out(&mut rollout, step, at(minute));
        assert_eq!((rollout.state.as_str(), rollout.started.len()), (state, waves), "minute {minute}");
    }
}

/// A wave of nobody, or of agents that are all offline.
fn nobody() -> Observation {
    Observation { reachable: 0, applied: 0, wave_applied: 0, unhealthy: 0, ..healthy() }
}

#[test]
fn a_wave_that_no_agent_has_applied_holds_the_next_one() {
    let mut rollout = percents();
    carry_out(&mut rollout, Step::Start { wave: 0 }, at(0));
    assert_eq!(rollout.decide(&nobody(), at(9)), Step::Wait { until: Some(at(10)) });
    assert_eq!(rollout.decide(&nobody(), at(10)), Step::AwaitAgents);
    carry_out(&mut rollout, Step::AwaitAgents, at(10));
    assert_eq!(rollout.decide(&nobody(), at(6_000)), Step::Wait { until: None });
    let returned = Observation { reachable: 1, ..nobody() };
    assert_eq!(rollout.decide(&returned, at(6_000)), Step::Wait { until: None }, "it has yet to apply the change");
    let applied = Observation { reachable: 1, applied: 1, wave_applied: 1, ..nobody() };
    assert_eq!(rollout.decide(&applied, at(6_000)), Step::Start { wave: 1 });
    assert!(matches!(rollout.approve(&returned, at(6_000)), Ok(Step::Halt { .. })), "the gate is closed");
    assert_eq!(rollout.approve(&nobody(), at(6_000)), Ok(Step::Start { wave: 1 }));
    // The last wave opens nothing.
    let mut last = percents();
    (0..3).for_each(|wave| carry_out(&mut last, Step::Start { wave }, at(0)));
    assert_eq!(last.decide(&nobody(), at(10)), Step::Complete);
}

#[test]
fn each_limit_of_the_gate_halts_the_rollout() {
    let mut rollout = percents();
    carry_out(&mut rollout, Step::Start { wave: 0 }, at(0));
    let halts = |seen: Observation, minute| match rollout.decide(&seen, at(minute)) {
        Step::Halt { breach } => breach.to_string(),
        other => format!("{other:?}"),
    };
    let all = healthy();
    assert_eq!(
        halts(Observation { unhealthy: 8, ..all }, 1),
        "8 of 100 agents are degraded or failed; 2 were before the wave"
    );
    assert_eq!(halts(Observation { failed: 6, ..all }, 1), "6 of 100 agents rejected the change");
    assert_eq!(halts(Observation { silent: 6, ..all }, 1), "6 of 100 agents went offline after the change");
    assert_eq!(
        halts(Observation { applied: 80, ..all }, 31),
        "only 80 of 100 connected agents applied the change in time"
    );
    // At the limit, and before the deadline, it goes on.
    let at_limit = Observation { unhealthy: 7, failed: 5, silent: 5, applied: 90, ..all };
    assert_eq!(rollout.decide(&at_limit, at(9)), Step::Wait { until: Some(at(10)) });
    assert_eq!(rollout.decide(&Observation { applied: 80, ..all }, at(11)), Step::Wait { until: Some(at(30)) });
}

#[test]
fn approval_starts_the_next_wave_only_while_the_gate_is_open() {
    let mut rollout = percents();
    rollout.plan.waves[0].needs_approval = true;
    carry_out(&mut rollout, Step::Start { wave: 0 }, at(0));
    assert_eq!(rollout.decide(&healthy(), at(10)), Step::AskApproval);
    assert!(rollout.approve(&healthy(), at(10)).is_err(), "nobody was asked");
    carry_out(&mut rollout, Step::AskApproval, at(10));
    let sick = Observation { unhealthy: 50, ..healthy() };
    assert!(matches!(rollout.approve(&sick, at(11)), Ok(Step::Halt { .. })));
    assert_eq!(rollout.approve(&healthy(), at(11)), Ok(Step::Start { wave: 1 }));
}

#[test]
fn paused_and_halted_rollouts_resume_with_another_soak_time() {
    let mut rollout = percents();
    carry_out(&mut rollout, Step::Start { wave: 0 }, at(0));
    rollout.pause().unwrap();
    assert_eq!(rollout.decide(&healthy(), at(60)), Step::Wait { until: None });
    rollout.resume(at(60)).unwrap();
    assert_eq!(rollout.decide(&healthy(), at(69)), Step::Wait { until: Some(at(70)) });
    assert!(rollout.resume(at(70)).is_err(), "it is running");
    rollout.roll_back().unwrap();
    assert!(rollout.pause().is_err() && rollout.resume(at(80)).is_err() && rollout.roll_back().is_err());
}

#[test]
fn an_agent_keeps_its_place_and_waves_contain_each_other() {
    let places: Vec<Place> = (0..2_000).map(|n| Place::of(&AgentId::trusted(format!("agent-{n}")))).collect();
    assert_eq!(Place::of(&AgentId::trusted("agent-7")), places[7]);
    for percent in [1, 5, 50, 99] {
        let reached = places.iter().filter(|place| **place < Place::share(percent)).count();
        let wanted = 20 * usize::from(percent);
        assert!(reached.abs_diff(wanted) <= 90, "{reached} of 2,000 at {percent} percent");
    }
    assert!(places.iter().all(|place| *place < Place::share(100)) && Place::share(100) == Place::END);
}

#[test]
fn plans_must_grow_and_end_with_everybody() {
    let check = |members: Vec<Members>| {
        let plan = Plan { waves: members.into_iter().map(wave).collect(), gate: Gate::default() };
        plan.check().map_err(|error| error.message)
    };
    use Members::{Count, Percent, Tags};
    assert_eq!(check(vec![Tags(vec!["lab".into()]), Count(3), Percent(10), Percent(100)]), Ok(()));
    for (bad, message) in [
        (vec![], "waves: 0 waves; must be 1 to 20"),
        (
            vec![Percent(50), Percent(50)],
            "waves[1].members: 50 percent; must be more than the previous 50, and at most 100",
        ),
        (vec![Percent(50)], "waves: the last wave must contain 100 percent of the agents"),
        (vec![Percent(100), Tags(vec!["a".into()])], "waves: the last wave must contain 100 percent of the agents"),
        (vec![Tags(vec![]), Percent(100)], "waves[0].members: needs at least one tag"),
    ] {
        assert_eq!(check(bad), Err(message.to_owned()));
    }
}

/// What happens to a rollout at one moment.
#[derive(Clone, Debug)]
enum Event {
    Look(Observation),
    Approve(Observation),
    Pause,
    Resume,
}

fn observations() -> impl Strategy<Value = Observation> {
    (0..120_u64, 0..120_u64, 0..3_u64, 0..30_u64, 0..12_u64, 0..12_u64).prop_map(
        |(reachable, applied, wave_applied, unhealthy, failed, silent)| Observation {
            agents: 100,
            reachable,
            applied,
            wave_applied: wave_applied.min(applied),
            unhealthy,
            failed,
            silent,
        },
    )
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let one = prop_oneof![
        6 => observations().prop_map(Event::Look),
        2 => Just(Event::Look(healthy())),
        2 => Just(Event::Look(nobody())),
        1 => Just(Event::Approve(nobody())),
        1 => observations().prop_map(Event::Approve),
        1 => Just(Event::Pause),
        1 => Just(Event::Resume),
    ];
    vec((0..15_u64, one), 0..60)
}

proptest! {
    #[test]
    fn an_unhealthy_wave_is_never_followed_by_another(needs_approval in any::<bool>(), events in events()) {
        let mut rollout = percents();
        rollout.plan.waves.iter_mut().for_each(|wave| wave.needs_approval = needs_approval);
        let mut minute = 0;
        for (pause, event) in events {
            minute += pause;
            let (now, before) = (at(minute), rollout.clone());
            let is_approval = matches!(event, Event::Approve(_));
            let seen = match event {
                Event::Look(seen) => {
                    let step = rollout.decide(&seen, now);
                    carry_out(&mut rollout, step, now);
                    seen
                }
                Event::Approve(seen) => {
                    if let Ok(step) = rollout.approve(&seen, now) {
                        carry_out(&mut rollout, step, now);
                    }
                    seen
                }
                Event::Pause => { let _ = rollout.pause(); continue }
                Event::Resume => { let _ = rollout.resume(now); continue }
            };
            let has_started = rollout.started.len() > before.started.len();
            if let (true, Some((wave, newest))) = (has_started, before.current()) {
                let elapsed = now.since(newest.at);
                prop_assert!(before.plan.gate.breach(&seen, &newest.baseline, elapsed).is_none());
                prop_assert!(elapsed >= wave.soak, "it has soaked");
                let waits = matches!(before.state, State::AwaitingApproval | State::AwaitingAgents);
                prop_assert!(waits || before.state == State::Running);
                prop_assert!(is_approval || seen.wave_applied > 0, "an agent of the wave has applied it");
                prop_assert!(!needs_approval || is_approval);
            }
        }
    }
}
