//! A crash at every change on disk: the old or the new version starts afterwards, and is complete.

use std::sync::Arc;

use muster_agent::clock::SystemClock;
use muster_agent::homes::{self, HomeName};
use muster_agent::upgrade::disk::{Disk, HostDisk};
use muster_agent::upgrade::record::{Record, Step, Terms};
use muster_agent::upgrade::switch::{self, Resumed, Start};
use muster_core::time::Clock;

use crate::faulty::{Faulty, Part};
use crate::host::{Host, NEW, OLD, assert_complete, name};

/// The watcher's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    GoBack,
}

/// Carries out an upgrade, as the daemon of the old version, the daemon of the new one and the watcher do.
async fn upgrade(host: &Host, disk: Arc<dyn Disk>, decision: Decision) -> std::io::Result<()> {
    let prepared = host.preparation(host.directory(), disk.clone()).run(NEW).await;
    let to = prepared.map_err(|failed| std::io::Error::other(failed.message))?;
    let record = Record::new("id".into(), "action".into(), name(OLD), to.clone(), Terms::default());
    switch::store(&*disk, &host.layout, &record)?;
    disk.activate(&host.layout, &to)?;
    let Start::Run(Resumed::Watching(record)) = switch::resume(&*disk, &host.layout, &to)? else {
        panic!("the new version is watched")
    };
    // As every daemon does at its start.
    switch::expire(&*disk, &host.layout, &to, SystemClock.now())?;
    match decision {
        Decision::Keep => {
            switch::store(&*disk, &host.layout, &Record { step: Step::Kept, ..record })?;
            switch::finish(&*disk, &host.layout, &to, SystemClock.now())
        }
        Decision::GoBack => {
            switch::go_back(&*disk, &host.layout, &record.rolled_back("it is bad"))?;
            let Start::Run(Resumed::RolledBack(_)) = switch::resume(&*disk, &host.layout, &name(OLD))? else {
                panic!("the roll-back is reported")
            };
            switch::finish(&*disk, &host.layout, &name(OLD), SystemClock.now())
        }
    }
}

/// Starts the agent after a crash, as a service manager does; returns the version that runs and what it found.
fn boot(host: &Host) -> (HomeName, Resumed) {
    for _ in 0..3 {
        let active = homes::active(&host.layout).unwrap().expect("neither version is active");
        assert_complete(&host.layout, &active);
        match switch::resume(&HostDisk, &host.layout, &active).unwrap() {
            Start::Run(resumed) => {
                assert_complete(&host.layout, &active);
                assert_eq!(homes::active(&host.layout).unwrap().as_ref(), Some(&active), "{resumed:?}");
                return (active, resumed);
            }
            Start::Become => {}
        }
    }
    panic!("the versions keep starting each other")
}

/// Finishes what a crash interrupted.
async fn complete(host: &Host, decision: Decision) -> HomeName {
    let (running, resumed) = boot(host);
    match resumed {
        Resumed::Kept(_) | Resumed::RolledBack(_) => {
            switch::finish(&HostDisk, &host.layout, &running, SystemClock.now()).unwrap();
        }
        Resumed::Watching(record) if decision == Decision::Keep => {
            switch::store(&HostDisk, &host.layout, &Record { step: Step::Kept, ..record }).unwrap();
            switch::finish(&HostDisk, &host.layout, &running, SystemClock.now()).unwrap();
        }
        Resumed::Watching(record) => {
            switch::go_back(&HostDisk, &host.layout, &record.rolled_back("it is bad")).unwrap();
            let (running, resumed) = boot(host);
            assert!(matches!(resumed, Resumed::RolledBack(_)), "{resumed:?}");
            switch::finish(&HostDisk, &host.layout, &running, SystemClock.now()).unwrap();
        }
        // The action is still queued, and runs again.
        Resumed::Interrupted | Resumed::Nothing if running == name(OLD) => {
            upgrade(host, Arc::new(HostDisk), decision).await.unwrap();
        }
        Resumed::Interrupted | Resumed::Nothing => {}
    }
    boot(host).0
}

async fn crash_everywhere(decision: Decision) {
    let whole = Host::new();
    whole.offer(NEW);
    let counter = Arc::new(Faulty::new(usize::MAX, Part::Nothing));
    upgrade(&whole, counter.clone(), decision).await.unwrap();
    let changes = counter.changes();
    assert!(changes > 15, "{changes} changes");
    for dies_at in 0..changes {
        for part in [Part::Nothing, Part::Half, Part::All] {
            let host = Host::new();
            host.offer(NEW);
            let disk = Arc::new(Faulty::new(dies_at, part));
            let died = upgrade(&host, disk.clone(), decision).await;
            assert!(died.is_err() || disk.is_dead(), "change {dies_at}");
            let running = complete(&host, decision).await;
            let expected = if decision == Decision::Keep { NEW } else { OLD };
            assert_eq!(running, name(expected), "change {dies_at}, {part:?}");
            assert!(host.is_clean(), "change {dies_at}, {part:?}: something is left");
            let mut versions = vec![name(OLD).to_string()];
            versions.extend((decision == Decision::Keep).then(|| name(NEW).to_string()));
            assert_eq!(host.installed(), versions, "change {dies_at}, {part:?}");
        }
    }
}

#[tokio::test]
async fn ag124_ag128_ag130_after_a_crash_at_any_change_the_upgrade_completes() {
    crash_everywhere(Decision::Keep).await;
}

#[tokio::test]
async fn ag124_ag128_after_a_crash_at_any_change_the_roll_back_completes() {
    crash_everywhere(Decision::GoBack).await;
}

#[tokio::test]
async fn ag130_the_previous_version_is_kept_for_a_week_and_can_be_activated_again() {
    let host = Host::new();
    host.offer(NEW);
    upgrade(&host, Arc::new(HostDisk), Decision::Keep).await.unwrap();
    let (now, running) = (SystemClock.now(), name(NEW));
    let kept = switch::kept(&HostDisk, &host.layout, &running, now);
    assert_eq!(kept.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [name(OLD)]);
    let day = std::time::Duration::from_secs(24 * 3600);
    switch::expire(&HostDisk, &host.layout, &running, now.plus(day * 6)).unwrap();
    assert_eq!(host.installed().len(), 2);
    assert!(switch::kept(&HostDisk, &host.layout, &running, now.plus(day * 8)).is_empty(), "not offered any more");
    switch::expire(&HostDisk, &host.layout, &running, now.plus(day * 8)).unwrap();
    assert_eq!(host.installed(), [name(NEW).to_string()]);
}

#[tokio::test]
async fn a_corrupt_record_does_not_stop_the_agent() {
    let host = Host::new();
    fs_err::write(host.layout.upgrade(), b"{\"version\": 1").unwrap();
    let (running, resumed) = boot(&host);
    assert_eq!((running, resumed), (name(OLD), Resumed::Nothing));
    assert!(host.is_clean());
}
