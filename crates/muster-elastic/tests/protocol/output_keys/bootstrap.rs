//! Outputs with bootstrap settings: which settings the server uses, and when (AG103–AG105).

use muster_core::authorization::PoliciesRead;

use super::*;

/// A server whose output `main` has bootstrap settings that lead to a second cluster, so that it is visible which settings
/// are in use.
struct Two {
    world: World,
    boot: Stub,
}

impl Two {
    async fn new(own: Value) -> Self {
        let (world, boot) = (World::new().await, Stub::start().await);
        boot.set_created(1_000);
        let block = json!({"hosts": [boot.url()], "service_token": TOKEN});
        let mut settings = json!({"hosts": [world.stub.url()], "service_token": null, "bootstrap": block});
        settings.as_object_mut().unwrap().extend(fields(&own));
        world.policy("p", input("nginx")).await;
        world.change_output("main", settings).await;
        Self { world, boot }
    }

    /// The policy of a new agent, after what the background does.
    async fn policy_of_new_agent(&self) -> Value {
        let agent = self.world.agent("p").await;
        let parked = self.world.poll(&agent, "p", 0).await;
        self.world.work().await;
        woken(parked).await
    }

    /// Whether the key of a new agent is one of the bootstrap cluster.
    async fn uses_bootstrap(&self) -> bool {
        let key = key_of(&self.policy_of_new_agent().await, "default");
        let (own, boot) = (self.world.stub.authenticate(&key), self.boot.authenticate(&key));
        assert_ne!(own.is_some(), boot.is_some(), "one of them");
        boot.is_some()
    }

    async fn wait(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
        self.world.work().await;
    }

    fn tests(&self) -> usize {
        self.world.stub.calls().version
    }

    async fn events(&self) -> Vec<String> {
        let events = self.world.fleet.store().events_after(0, 100).await.unwrap();
        let of_output = events.into_iter().filter(|(_, event)| event.subject.kind == "output");
        of_output.map(|(_, event)| format!("{} {}", event.kind, event.subject.name)).collect()
    }
}

#[tokio::test]
async fn ag103_ag172_an_output_without_a_credential_gets_that_of_its_bootstrap_settings() {
    let two = Two::new(json!({})).await;
    let policy = two.policy_of_new_agent().await;
    assert!(
        two.world.stub.authenticate(&key_of(&policy, "default")).is_some(),
        "the hosts of the output take precedence"
    );
    assert_eq!((two.boot.calls().version, two.boot.calls().create), (0, 0));
    assert_eq!(policy["outputs"]["default"]["hosts"], json!([two.world.stub.url()]));
    let text = policy.to_string();
    assert!(!text.contains("bootstrap") && !text.contains(TOKEN) && !text.contains(&two.boot.url()), "{text}");
    assert_eq!(two.events().await, Vec::<String>::new());
    two.world.well();
}

#[tokio::test]
async fn ag104_the_bootstrap_settings_are_used_until_those_of_the_output_work_again() {
    let two = Two::new(json!({})).await;
    two.world.stub.set(Mode::Status(503, None));
    assert!(two.uses_bootstrap().await);
    let (state, message) = two.world.health().await;
    assert!(
        state == "DEGRADED" && message.contains("bootstrap settings are in use") && message.contains("503"),
        "{message}"
    );
    two.world.stub.set(Mode::Well);
    two.wait(59).await;
    assert!(two.uses_bootstrap().await, "the next test is a minute after the last one");
    let tests = two.tests();
    two.wait(1).await;
    assert_eq!(two.tests(), tests + 1, "without any other work");
    assert!(!two.uses_bootstrap().await);
    assert_eq!(two.events().await, ["output.fallback main", "output.recovered main"]);
    two.world.well();
}

#[tokio::test]
async fn ag104_an_output_that_fails_later_is_replaced_too() {
    let two = Two::new(json!({})).await;
    assert!(!two.uses_bootstrap().await);
    two.world.stub.set(Mode::Html(502));
    let agent = two.world.agent("p").await;
    let parked = two.world.poll(&agent, "p", 0).await;
    // One round fails, which causes a test, after which the other settings are used without a pause.
    two.world.work().await;
    two.world.work().await;
    let withheld = woken(parked).await;
    assert!(two.boot.calls().create == 1 && two.boot.complaints().is_empty(), "{withheld}");
    two.boot.set(Mode::Status(503, None));
    two.world.stub.set(Mode::Well);
    two.wait(60).await;
    assert!(!two.uses_bootstrap().await, "a failure of the bootstrap settings delays no test");
}

#[tokio::test]
async fn ag104_a_rejected_credential_falls_back_and_an_old_version_is_not_tested_again() {
    let two = Two::new(json!({"service_token": "no-such-token"})).await;
    assert!(two.uses_bootstrap().await);
    assert!(two.world.health().await.1.contains("401"));
    let two = Two::new(json!({})).await;
    two.world.stub.set_version("8.4.3");
    assert!(two.uses_bootstrap().await);
    assert!(two.world.health().await.1.contains("8.4.3"));
    two.world.stub.set_version("9.0.0");
    two.wait(3_600).await;
    assert_eq!(two.tests(), 1, "the version does not change by itself");
    let block = json!({"hosts": [two.boot.url()], "service_token": TOKEN});
    let changed = json!({"hosts": [two.world.stub.url(), "http://127.0.0.1:1"], "bootstrap": block});
    two.world.change_output("main", changed).await;
    assert!(!two.uses_bootstrap().await, "new settings are tested at once");
}

#[tokio::test]
async fn ag105_insecure_bootstrap_settings_do_not_weaken_an_output_with_a_fingerprint() {
    let block = |ssl: Value| json!({"hosts": ["https://boot:9200"], "service_token": "t", "ssl": ssl});
    let insecure = json!({"verification_mode": "none"});
    let two = Two::new(json!({"ssl": {"ca_trusted_fingerprint": "ab"}, "bootstrap": block(insecure)})).await;
    let compiled = two.world.fleet.policies().find::<PoliciesRead>(&root(), "p").await.unwrap();
    let revision = two.world.fleet.store().policy_revision(&compiled.id, compiled.revision).await.unwrap().unwrap();
    let stored = &revision.compiled["issuers"]["default"]["connection"];
    let settings = muster_core::policy::bootstrap::settings(&stored.to_string());
    let used: Value = serde_json::from_str(&settings.of_output).unwrap();
    assert_eq!(used["ssl"], json!({"ca_trusted_fingerprint": "ab"}));
    let delivered = &revision.compiled["outputs"]["default"];
    assert_eq!(delivered["ssl"], json!({"ca_trusted_fingerprint": "ab"}));
    assert!(delivered.get("bootstrap").is_none() && delivered.get("secrets").is_none(), "{delivered}");
}
