//! Status transitions by time.

use std::time::Duration;

use muster_core::status::Status;

use crate::setting::{Setting, parked};

const ONLINE: &str = r#"{"status":"online","message":"Running"}"#;

#[tokio::test]
async fn mg39_agent_is_offline_after_five_minutes_and_online_after_a_check_in() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    drop(parked(setting.check_in(&entry, ONLINE).await));
    setting.clock.advance(Duration::from_secs(299));
    setting.fleet.statuses().transition_due().await.unwrap();
    assert_eq!(setting.stored("a").await.status, Status::Online);
    setting.clock.advance(Duration::from_secs(2));
    setting.fleet.statuses().transition_due().await.unwrap();
    assert_eq!(setting.stored("a").await.status, Status::Offline);
    drop(parked(setting.check_in(&entry, ONLINE).await));
    assert_eq!(setting.stored("a").await.status, Status::Online);
}

#[tokio::test]
async fn mg40_ea57_connected_agent_is_never_offline() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = parked(setting.check_in(&entry, ONLINE).await);
    for _ in 0..5 {
        setting.clock.advance(Duration::from_secs(299));
        setting.fleet.statuses().transition_due().await.unwrap();
        let stored = setting.stored("a").await;
        assert_eq!(stored.status, Status::Online);
        assert_eq!(setting.fleet.registry().last_seen(&stored.id, setting.now()), Some(setting.now()));
    }
    drop(held);
    setting.clock.advance(Duration::from_secs(301));
    setting.fleet.statuses().transition_due().await.unwrap();
    assert_eq!(setting.stored("a").await.status, Status::Offline);
}

#[tokio::test]
async fn last_sighting_is_written_at_shutdown() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = parked(setting.check_in(&entry, ONLINE).await);
    setting.clock.advance(Duration::from_secs(100));
    setting.fleet.statuses().flush_presence().await.unwrap();
    assert_eq!(setting.stored("a").await.last_checkin, Some(setting.now()));
    drop(held);
}

#[tokio::test]
async fn last_sighting_is_written_before_an_agent_is_evicted() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = parked(setting.check_in(&entry, ONLINE).await);
    setting.clock.advance(Duration::from_secs(250));
    drop(held);
    let left = setting.now();
    drop(entry);
    setting.clock.advance(Duration::from_secs(901));
    setting.fleet.statuses().retire_quiet().await.unwrap();
    assert!(setting.fleet.registry().is_empty());
    assert_eq!(setting.stored("a").await.last_checkin, Some(left));
}
