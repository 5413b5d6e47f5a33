//! Upgrades of the program on this host.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::chain;
use muster_core::time::Clock;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::details::Stage;
use super::disk::{Disk, HostDisk};
use super::package::ReleaseKey;
use super::prepare::Preparation;
use super::record::{Kept, Record};
use super::source::{Mirrors, Source};
use super::{Failed, Progress, Request, Resumed, Switch, Upgrades, switch};
use crate::clock::SystemClock;
use crate::components::child;
use crate::entropy::System;
use crate::fleet::FleetClient;
use crate::homes::{self, HomeName};
use crate::net::http1::Http1;
use crate::net::proxy::Proxy;
use crate::net::{Transport, tls};
use crate::paths::Layout;
use crate::settings::UpgradeSettings;
use crate::state::enrollment::Trust;

/// Time for the program of a new version to print its version.
const PROBE: Duration = Duration::from_secs(10);
/// Time for a watcher to start (AG169).
const WATCHER: Duration = Duration::from_secs(30);
/// What a watcher prints when it watches.
pub const WATCHING: &[u8] = b"watching\n";

/// The versioned homes of this host.
pub struct HostUpgrades {
    layout: Layout,
    settings: UpgradeSettings,
    running: HomeName,
    resumed: Mutex<Resumed>,
    disk: Arc<dyn Disk>,
}

impl HostUpgrades {
    /// Creates the upgrades of a daemon of version `running`.
    pub fn new(layout: Layout, settings: UpgradeSettings, running: HomeName, resumed: Resumed) -> Self {
        if let Resumed::Watching(record) = &resumed {
            // The watcher outlives the daemon that started it, but not a restart of the host.
            let (layout, record) = (layout.clone(), record.clone());
            tokio::spawn(async move {
                if let Err(error) = start_watcher(&layout, &record.from, &record.id).await {
                    tracing::error!(error, "the upgrade is not watched");
                }
            });
        }
        let disk: Arc<dyn Disk> = Arc::new(HostDisk);
        if let Err(error) = switch::expire(&*disk, &layout, &running, SystemClock.now()) {
            tracing::warn!(error = %chain(&error), "failed to remove previous versions");
        }
        Self { layout, settings, running, resumed: Mutex::new(resumed), disk }
    }

    fn sources(&self, request: &Request, client: Arc<FleetClient>) -> Result<Vec<Source>, String> {
        let settings = &self.settings;
        let authorities: Vec<String> = settings.certificate_authorities.iter().map(ToString::to_string).collect();
        let proxy = settings.proxy_url.clone().map(|url| Proxy { url, headers: Vec::new() });
        let of_settings = authorities.clone();
        let mirrors: Mirrors = Arc::new(move || mirror_transport(&of_settings, proxy.as_ref()));
        // A named source is the only one: whoever names it expects the package from there.
        if let Some(url) = request.source_uri.as_ref().or(self.settings.source_uri.as_ref()) {
            return Ok(vec![Source::parse(url, &mirrors)?]);
        }
        // A standalone agent has no server.
        let mut sources: Vec<Source> = client.has_server().then_some(Source::Fleet(client)).into_iter().collect();
        // A policy may name a source of Elastic's packages, which is no reason to fail.
        sources.extend(request.policy_source.clone().and_then(|source| {
            let own = source.certificate_authorities;
            let authorities = if own.is_empty() { authorities } else { own };
            let mirrors: Mirrors = Arc::new(move || mirror_transport(&authorities, source.proxy.as_ref()));
            Source::parse(&source.url, &mirrors).ok()
        }));
        Ok(sources)
    }

    fn keys(&self) -> Result<Vec<ReleaseKey>, String> {
        let configured =
            self.settings.keys.iter().map(|key| ReleaseKey::parse(key).map_err(|error| chain(&error).to_string()));
        let mut keys = configured.collect::<Result<Vec<_>, _>>()?;
        keys.extend(ReleaseKey::built_in());
        Ok(keys)
    }

    fn kept_home(&self, version: &str) -> Result<HomeName, Failed> {
        // While an upgrade is watched, the previous version is still there.
        let previous = match self.resumed() {
            Resumed::Watching(record) if record.from.version() == version => Some(record.from),
            _ => None,
        };
        let kept = switch::kept(&*self.disk, &self.layout, &self.running, SystemClock.now());
        let found = || kept.into_iter().find(|(_, kept)| kept.version == version).map(|(name, _)| name);
        let missing = || Failed::new(Stage::Rollback, format!("version {version} is no longer on disk"));
        previous.or_else(found).ok_or_else(missing)
    }

    /// Returns the home if its program starts.
    async fn probed(&self, name: HomeName) -> Result<HomeName, Failed> {
        let probed = probe(&self.layout, &name).await;
        probed.map_err(|error| Failed::new(Stage::Extracting, error)).map(|()| name)
    }
}

#[async_trait]
impl Upgrades for HostUpgrades {
    fn running(&self) -> Option<HomeName> {
        Some(self.running.clone())
    }

    fn kept(&self) -> Vec<Kept> {
        switch::kept(&*self.disk, &self.layout, &self.running, SystemClock.now())
            .into_iter()
            .map(|(_, kept)| kept)
            .collect()
    }

    fn check(&self, request: &Request, client: Arc<FleetClient>) -> Result<(), Failed> {
        if request.rollback {
            return self.kept_home(&request.version).map(drop);
        }
        let usable = self.sources(request, client).and_then(|_| self.keys());
        usable.map(drop).map_err(|error| Failed::new(Stage::Requested, error))
    }

    async fn prepare(
        &self,
        request: Request,
        client: Arc<FleetClient>,
        progress: Progress,
    ) -> Result<HomeName, Failed> {
        if request.rollback {
            let name = self.kept_home(&request.version)?;
            return self.probed(name).await;
        }
        let unusable = |error: String| Failed::new(Stage::Requested, error);
        let preparation = Preparation {
            layout: self.layout.clone(),
            disk: self.disk.clone(),
            sources: self.sources(&request, client).map_err(unusable)?,
            keys: self.keys().map_err(unusable)?,
            deadline: Instant::now() + self.settings.download_timeout,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(System),
            progress,
        };
        let name = preparation.run(&request.version).await?;
        let probed = self.probed(name).await;
        if probed.is_err()
            && let Err(error) = switch::discard(&*self.disk, &self.layout, &self.running)
        {
            tracing::warn!(error = %chain(&error), "failed to remove a version that does not start");
        }
        probed
    }

    async fn switch(&self, switch: Switch) -> Result<(), Failed> {
        let failed = |error: String| Failed::new(Stage::Replacing, error);
        let id = random_uuid(&System);
        let record = Record::new(id, switch.action_id, self.running.clone(), switch.to, switch.terms);
        switch::store(&*self.disk, &self.layout, &record).map_err(|error| failed(chain(&error).to_string()))?;
        let remembered = homes::remember(&self.layout, &self.running);
        remembered.map_err(|error| failed(chain(&error).to_string()))?;
        // Watched before it runs: a version without a watcher could never be left.
        let watched = start_watcher(&self.layout, &self.running, &record.id).await;
        let switched = watched
            .and_then(|()| self.disk.activate(&self.layout, &record.to).map_err(|error| chain(&error).to_string()));
        if let Err(error) = switched {
            // The watcher ends when the record is gone.
            let _ = self.disk.remove(&self.layout.upgrade());
            let _ = self.disk.remove(&self.layout.previous_link());
            return Err(failed(error));
        }
        Ok(())
    }

    fn resumed(&self) -> Resumed {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&self) {
        *self.resumed.lock().unwrap_or_else(PoisonError::into_inner) = Resumed::Nothing;
        let _ = self.disk.remove(&self.layout.previous_link());
        if let Err(error) = switch::finish(&*self.disk, &self.layout, &self.running, SystemClock.now()) {
            tracing::warn!(error = %chain(&error), "failed to clean up after an upgrade; retrying at the next start");
        }
    }
}

/// Returns the version of this process, if its program is in a versioned home and the link is one of ours.
pub fn running(layout: &Layout) -> Option<HomeName> {
    let program = std::env::current_exe().ok()?;
    // The base path may contain links, and the kernel reports the path without them.
    let homes = layout.homes().canonicalize_utf8().ok()?;
    let home = program.parent()?;
    let name: HomeName = home.file_name()?.to_str()?.parse().ok()?;
    let expected = layout.home(&name).program().canonicalize_utf8().ok()?;
    let is_ours = home.parent()? == homes.as_std_path() && program == expected.as_std_path();
    (is_ours && homes::active(layout).ok()?.is_some()).then_some(name)
}

/// Creates a client for a mirror. Authorities are PEM certificates, or files with them.
fn mirror_transport(authorities: &[String], proxy: Option<&Proxy>) -> Result<Arc<dyn Transport>, String> {
    let read = |given: &String| match given.contains("-----BEGIN") {
        true => Ok(given.clone()),
        false => fs_err::read_to_string(given).map_err(|error| chain(&error).to_string()),
    };
    let certificate_authorities = authorities.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let trust = Trust { certificate_authorities, ..Trust::default() };
    let config = tls::client_config(&trust).map_err(|error| chain(&error).to_string())?;
    let tunnel = proxy.map(Proxy::tunnel).transpose().map_err(|error| format!("the proxy: {error}"))?;
    Ok(Arc::new(Http1::new(config).through(tunnel)))
}

/// Starts the program of a version for a test: a program for another system, or one that lacks a library, must not become
/// the active one.
async fn probe(layout: &Layout, name: &HomeName) -> Result<(), String> {
    let program = layout.home(name).program();
    let mut command = tokio::process::Command::new(&program);
    command.arg("--version").env_clear();
    let ran = tokio::time::timeout(PROBE, child::output(command)).await;
    let ran = ran.map_err(|_| format!("{program} --version does not exit"))?;
    let output = ran.map_err(|error| format!("{program} cannot be started: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && printed.split_whitespace().any(|word| word == name.version()) {
        return Ok(());
    }
    let shown: String = printed.chars().take(100).collect();
    Err(format!("{program} --version failed or printed another version: {}, {shown:?}", output.status))
}

/// Starts a watcher with the program of a version that is known to work. Returns when it watches; another watcher may be
/// running already.
async fn start_watcher(layout: &Layout, program: &HomeName, id: &str) -> Result<(), String> {
    let program = layout.home(program).program();
    let mut command = tokio::process::Command::new(&program);
    command.args(["watch", "--base-path", layout.base().as_str(), "--id", id]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // The environment of the daemon can contain secrets.
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "LANG"));
    let mut watcher = command.spawn().map_err(|error| format!("{program} cannot be started: {error}"))?;
    let Some(mut output) = watcher.stdout.take() else { return Err("the watcher has no output".into()) };
    let mut said = vec![0; WATCHING.len()];
    let heard = tokio::time::timeout(WATCHER, output.read_exact(&mut said)).await;
    if matches!(heard, Ok(Ok(_))) && said == WATCHING {
        return Ok(());
    }
    let _ = watcher.kill().await;
    Err("the watcher did not start".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use camino::Utf8Path;

    use super::super::PolicySource;
    use super::super::record::Terms;
    use super::*;
    use crate::state::enrollment::Secret;

    #[tokio::test]
    async fn mirrors_of_a_policy_and_of_the_settings_are_reached_through_their_proxies() {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = proxy.accept().await.unwrap();
                let mut request = vec![0; 1000];
                let length = stream.read(&mut request).await.unwrap();
                let is_expected = String::from_utf8_lossy(&request[..length]).contains("mirror.example:443");
                let status = if is_expected { "407 Who" } else { "400 What" };
                let response = format!("HTTP/1.1 {status}\r\n\r\n");
                tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await.unwrap();
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        let running = HomeName::new("0.1.0", &muster_core::hex::sha256(b"x")).unwrap();
        let config = tls::client_config(&Trust { ca_sha256: vec!["00".repeat(32)], ..Trust::default() }).unwrap();
        let fleet = || {
            Arc::new(FleetClient::new(
                Arc::new(Http1::new(config.clone())),
                Vec::new(),
                Secret::new("k"),
                Arc::new(System),
            ))
        };
        let (url, through) = ("https://mirror.example/agents", format!("http://{address}"));
        let pem = rcgen::generate_simple_self_signed(vec!["mirror.example".into()]).unwrap().cert.pem();
        let policy = serde_json::json!({"agent": {"download": {"sourceURI": url, "proxy_url": through,
            "proxy_headers": {"X-A": "b"}, "ssl": {"certificate_authorities": [pem]}}}});
        let of_policy = Request { policy_source: PolicySource::of(&policy), ..Request::default() };
        let of_action = Request { source_uri: Some(url.into()), ..Request::default() };
        let file = directory.path().join("ca.pem");
        fs_err::write(&file, &pem).unwrap();
        let settings = UpgradeSettings {
            proxy_url: Some(Secret::new(through)),
            certificate_authorities: vec![file.try_into().unwrap()],
            ..UpgradeSettings::default()
        };
        for (request, settings) in [(of_policy, UpgradeSettings::default()), (of_action, settings)] {
            let upgrades = HostUpgrades::new(layout.clone(), settings, running.clone(), Resumed::Nothing);
            let source = upgrades.sources(&request, fleet()).unwrap().pop().unwrap();
            let error = format!("{:?}", source.read("file", 0, 1).await.unwrap_err());
            assert!(error.contains("requires different credentials (407)"), "{error}");
        }
        let mut direct = policy;
        direct["agent"]["download"]["proxy_disable"] = true.into();
        assert_eq!(PolicySource::of(&direct).unwrap().proxy, None);
    }

    /// The watcher is the previous program, which is a script here. A silent one is given up at the limit, which passes at
    /// once: the clock of the test jumps while nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn ag169_without_a_watcher_the_previous_version_stays_active() {
        for watcher in ["exec sleep 3600", "exit 1", "echo other words"] {
            let directory = tempfile::tempdir().unwrap();
            let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
            let name = |version: &str| HomeName::new(version, &muster_core::hex::sha256(version.as_bytes())).unwrap();
            let (from, to) = (name("0.1.0"), name("0.2.0"));
            for (home, script) in [(&from, watcher), (&to, "exit 0")] {
                let program = layout.home(home).program();
                fs_err::create_dir_all(program.parent().unwrap()).unwrap();
                fs_err::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
                fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
            }
            HostDisk.activate(&layout, &from).unwrap();
            let upgrades =
                HostUpgrades::new(layout.clone(), UpgradeSettings::default(), from.clone(), Resumed::Nothing);
            let switch = Switch { action_id: "u".into(), to, terms: Terms::default() };
            let failed = upgrades.switch(switch).await.unwrap_err();
            assert_eq!(failed.stage, Stage::Replacing, "{watcher}: {failed:?}");
            assert_eq!(homes::active(&layout).unwrap(), Some(from), "{watcher}");
            assert_eq!(Record::load(&HostDisk, &layout).unwrap(), None, "{watcher}");
        }
    }
}
