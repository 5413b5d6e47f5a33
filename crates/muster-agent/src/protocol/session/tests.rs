use super::*;

const PERIOD: Duration = Duration::from_secs(30);

fn unit(id: &str, direction: Direction, config: &Value) -> Unit {
    Unit { id: id.into(), direction, config: Arc::new(config.clone()), level: Level::Info, fault: None }
}

fn component(units: Vec<Unit>) -> Arc<Component> {
    let work = Err("not run in this test".into());
    let (features, limits) = (json!({"fqdn": {"enabled": true}}), json!({"go_max_procs": 2}));
    Arc::new(Component { id: "fake-default".into(), kind: "fake".into(), units, work, features, limits })
}

/// A component with an output and one input.
fn two(output: &Value, input: &Value) -> Arc<Component> {
    component(vec![unit("fake-default", Direction::Output, output), unit("fake-default-1", Direction::Input, input)])
}

fn session(component: &Arc<Component>) -> Session {
    let mut session = Session::new(component.clone(), AgentInfo { id: "agent-1".into(), ..AgentInfo::default() });
    session.started(7, Instant::now());
    session
}

/// What a component reports that does what it was told.
fn obedient(expected: &CheckinExpected) -> CheckinObserved {
    let unit = |unit: &UnitExpected| UnitObserved {
        id: unit.id.clone(),
        kind: unit.kind,
        config_state_idx: unit.config_state_idx,
        state: unit.state,
        message: "fine".into(),
        payload: None,
    };
    CheckinObserved {
        units: expected.units.iter().map(unit).collect(),
        features_idx: expected.features_idx,
        component_idx: expected.component_idx,
        ..CheckinObserved::default()
    }
}

fn unit_of<'a>(expected: &'a CheckinExpected, id: &str) -> &'a UnitExpected {
    expected.units.iter().find(|unit| unit.id == id).unwrap()
}

fn states(session: &Session) -> Vec<(String, Health)> {
    session.report().units.into_iter().map(|unit| (unit.id, unit.state)).collect()
}

#[tokio::test(start_paused = true)]
async fn ag68_ag162_configurations_are_sent_until_confirmed_and_the_rest_always() {
    let mut session = session(&two(&json!({"type": "elasticsearch"}), &json!({"id": "1"})));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).expect("first contact");
    assert!(first.units.iter().all(|unit| unit.config.is_some() && unit.config_state_idx == 1));
    let mut partly = obedient(&first);
    partly.units[0].config_state_idx = 0;
    let again = session.check_in(partly.clone(), Instant::now()).expect("one unit does not have its configuration");
    let with_config = again.units.iter().filter(|unit| unit.config.is_some()).count();
    assert_eq!((with_config, again.features.is_some(), again.component.is_some()), (1, true, true));
    assert_eq!((again.features_idx, again.component_idx), (first.features_idx, first.component_idx));
    assert_eq!(again.component.unwrap().limits.unwrap().go_max_procs, 2);
    assert!(again.features.unwrap().fqdn.unwrap().enabled);
    assert_eq!(session.check_in(obedient(&first), Instant::now()), None, "settled");
    assert_eq!(session.report().state, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn ag67_a_changed_output_is_sent_at_once_with_a_higher_index() {
    let input = json!({"id": "1", "policy": {"revision": 1}});
    let mut session = session(&two(&json!({"hosts": ["a"]}), &input));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    session.check_in(obedient(&first), Instant::now());
    let pushed = session.update(two(&json!({"hosts": ["b"]}), &input)).expect("the component is connected");
    let (output, unchanged) = (unit_of(&pushed, "fake-default"), unit_of(&pushed, "fake-default-1"));
    assert_eq!((output.config_state_idx, output.config.is_some()), (2, true));
    assert_eq!((unchanged.config_state_idx, unchanged.config.is_some()), (1, false));
    assert_eq!(states(&session)[1], ("fake-default".into(), Health::Configuring));
    assert_eq!(session.check_in(obedient(&pushed), Instant::now()), None);
    assert!(session.update(two(&json!({"hosts": ["b"]}), &input)).is_none(), "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn ag162_a_new_revision_renews_every_input_and_a_log_level_none() {
    let with = |revision: i64| two(&json!({}), &json!({"id": "1", "policy": {"revision": revision}}));
    let mut session = session(&with(1));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    session.check_in(obedient(&first), Instant::now());
    let pushed = session.update(with(2)).unwrap();
    assert_eq!(unit_of(&pushed, "fake-default-1").config_state_idx, 2);
    assert_eq!(unit_of(&pushed, "fake-default").config_state_idx, 1);
    session.check_in(obedient(&pushed), Instant::now());
    let mut quieter = (*with(2)).clone();
    quieter.units[1].level = Level::Error;
    let pushed = session.update(Arc::new(quieter)).expect("a new level is told");
    let unit = unit_of(&pushed, "fake-default-1");
    assert_eq!((unit.config_state_idx, unit.config.is_some(), unit.log_level), (2, false, LogLevel::Error.into()));
}

#[tokio::test(start_paused = true)]
async fn ag69_a_unit_that_is_missing_or_unknown_fails() {
    let mut session = session(&two(&json!({}), &json!({})));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    assert!(states(&session).iter().all(|(_, state)| *state == Health::Starting), "not reported yet");
    let mut report = obedient(&first);
    session.check_in(report.clone(), Instant::now());
    let missing = report.units.pop().unwrap();
    let stranger = UnitObserved { id: "who".into(), state: State::Healthy.into(), ..UnitObserved::default() };
    report.units.push(stranger.clone());
    assert!(session.check_in(report.clone(), Instant::now()).is_some());
    let found = session.report();
    let of = |id: &str| found.units.iter().find(|unit| unit.id == id).unwrap();
    assert_eq!((of(&missing.id).state, of("who").state), (Health::Failed, Health::Failed));
    assert!(of(&missing.id).message.contains("not reported") && of("who").message.contains("unknown"));
    // It may say that a unit it was not told about has stopped.
    report.units = vec![report.units[0].clone(), missing, UnitObserved { state: State::Stopped.into(), ..stranger }];
    assert_eq!(session.check_in(report, Instant::now()), None);
    assert!(states(&session).iter().all(|(_, state)| *state == Health::Healthy));
}

#[tokio::test(start_paused = true)]
async fn unknown_units_are_counted_and_not_all_listed() {
    let mut session = session(&two(&json!({}), &json!({})));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    let mut report = obedient(&first);
    let known = report.units.len();
    let stranger = |number: usize| UnitObserved {
        id: format!("{number}{}", "\u{1}".repeat(5000)),
        state: State::Healthy.into(),
        ..UnitObserved::default()
    };
    report.units.extend((0..1000).map(stranger));
    session.check_in(report, Instant::now());
    let found = session.report().units;
    assert_eq!(found.len(), known + STRANGERS_MAX);
    assert_eq!(found.last().unwrap().message, "Failed: unknown unit, as are 984 others");
    assert!(found.iter().all(|unit| unit.id.chars().count() <= 256));
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_leaves_is_told_to_stop_and_begins_again_when_it_returns() {
    let (output, input) = (json!({}), json!({"a": 1}));
    let mut session = session(&two(&output, &input));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    session.check_in(obedient(&first), Instant::now());
    session.update(two(&output, &json!({"a": 2})));
    let only_output = component(vec![unit("fake-default", Direction::Output, &output)]);
    let pushed = session.update(only_output.clone()).unwrap();
    let leaving = unit_of(&pushed, "fake-default-1");
    assert_eq!((leaving.state, leaving.config.is_some(), leaving.config_state_idx), (State::Stopped.into(), false, 2));
    let mut report = obedient(&pushed);
    assert_eq!(session.check_in(report.clone(), Instant::now()), None);
    assert_eq!(states(&session).len(), 1, "it has left");
    report.units.pop();
    session.check_in(report, Instant::now());
    let back = session.update(two(&output, &json!({"a": 3}))).unwrap();
    assert_eq!(unit_of(&back, "fake-default-1").config_state_idx, 1);
}

#[tokio::test(start_paused = true)]
async fn ag61_missed_check_ins_degrade_and_the_third_kills() {
    let mut session = session(&two(&json!({}), &json!({})));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    session.check_in(obedient(&first), Instant::now());
    let tick = async |session: &mut Session| {
        tokio::time::advance(PERIOD).await;
        session.tick(Instant::now(), PERIOD, MISSES_MAX)
    };
    for missed in 1..3 {
        assert_eq!(tick(&mut session).await, Verdict::Fine);
        let report = session.report();
        assert_eq!(report.state, Health::Degraded);
        assert!(report.message.contains(&format!("missed {missed}")), "{report:?}");
        assert!(report.units.iter().all(|unit| unit.state == Health::Healthy), "units keep their state");
    }
    session.check_in(obedient(&first), Instant::now());
    assert_eq!(session.report().state, Health::Healthy);
    assert_eq!((tick(&mut session).await, tick(&mut session).await), (Verdict::Fine, Verdict::Fine));
    assert_eq!(tick(&mut session).await, Verdict::Kill);
    assert_eq!(session.report().state, Health::Failed);
    assert_eq!(session.check_in(obedient(&first), Instant::now()), None, "late check-ins are ignored");
}

#[tokio::test(start_paused = true)]
async fn ag163_indexes_survive_a_restart_of_the_component() {
    let mut session = session(&two(&json!({"a": 1}), &json!({})));
    session.check_in(CheckinObserved::default(), Instant::now());
    session.update(two(&json!({"a": 2}), &json!({})));
    session.ended(Health::Failed, "Failed: exited".into());
    assert!(states(&session).iter().all(|(_, state)| *state == Health::Failed));
    session.started(8, Instant::now());
    let again = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    let output = unit_of(&again, "fake-default");
    assert_eq!((output.config_state_idx, output.config.is_some()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn what_a_component_claims_is_bounded() {
    let mut session = session(&two(&json!({}), &json!({})));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    let mut report = obedient(&first);
    report.units[0].message = "x".repeat(1 << 20);
    report.units[0].payload = Some(to_struct(&json!({"big": "y".repeat(1 << 20)})));
    report.units[1].state = 77;
    report.units[1].payload = Some(to_struct(&json!({"token": 5})));
    session.check_in(report, Instant::now());
    let found = session.report();
    assert!(found.units.iter().all(|unit| unit.message.len() <= MESSAGE_MAX));
    let payloads: Vec<_> = found.units.iter().map(|unit| unit.payload.clone()).collect();
    assert!(payloads.contains(&None) && payloads.contains(&Some(json!({"token": 5}))));
    assert!(found.units.iter().any(|unit| unit.state == Health::Failed), "an unknown state is a failure");
}

#[tokio::test(start_paused = true)]
async fn a_unit_without_a_configuration_stays_failed_and_is_not_sent() {
    let mut model = (*two(&json!({}), &json!({}))).clone();
    model.units[1].fault = Some("Failed: path: malformed".into());
    let mut session = session(&Arc::new(model));
    let first = session.check_in(CheckinObserved::default(), Instant::now()).unwrap();
    assert_eq!(first.units.len(), 1);
    assert_eq!(session.check_in(obedient(&first), Instant::now()), None, "settled without it");
    assert_eq!(states(&session)[0], ("fake-default-1".into(), Health::Failed));
}
