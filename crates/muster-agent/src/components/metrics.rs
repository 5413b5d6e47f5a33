//! The input `host/metrics`, which is part of the agent.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::log_file::LogFile;
use super::otlp::Exporter;
use super::{ComponentState, Health, Reporter, Runtime};
use crate::host::readings::Readings;
use crate::model::metrics::MetricsSpec;
use crate::model::{Component, Work};
use muster_core::time::Clock;

/// Maximum time to send readings.
const SEND: Duration = Duration::from_secs(10);

/// A host that is being read.
pub(super) struct MetricsRuntime {
    spec: MetricsSpec,
    task: JoinHandle<()>,
}

/// What the task of the input needs.
pub(super) struct Metrics {
    pub spec: MetricsSpec,
    pub component: Arc<Component>,
    /// Where readings are written.
    pub writer: Writer,
    pub clock: Arc<dyn Clock>,
}

/// Writes readings.
pub(super) enum Writer {
    None,
    File(LogFile),
    Otlp(Box<Exporter>),
}

impl MetricsRuntime {
    /// Starts reading, and reports the readings.
    pub(super) fn start(metrics: Metrics, reporter: Reporter) -> Self {
        Self { spec: metrics.spec.clone(), task: tokio::spawn(metrics.keep(reporter)) }
    }
}

#[async_trait]
impl Runtime for MetricsRuntime {
    fn update(&mut self, component: &Arc<Component>) -> bool {
        matches!(&component.work, Ok(Work::Metrics(spec)) if *spec == self.spec)
    }

    async fn stop(&mut self) {
        self.task.abort();
        // Only an error that says that it was aborted.
        let _ = (&mut self.task).await;
    }
}

impl Metrics {
    async fn keep(mut self, reporter: Reporter) {
        let mut readings = None;
        let mut tick = tokio::time::interval(self.spec.period);
        loop {
            tick.tick().await;
            // Elsewhere, because a network file system that does not respond blocks whoever asks for its size.
            let taken = readings.take();
            let read = tokio::task::spawn_blocking(move || take(taken)).await;
            match read {
                Ok(Ok((state, values))) => {
                    readings = Some(state);
                    let fault = self.write(&values).await.err();
                    reporter.put(self.state(values, fault));
                }
                Ok(Err(error)) => reporter.set(Health::Failed, &format!("Failed: cannot read the host: {error}")),
                Err(_) => reporter.set(Health::Failed, "Failed: cannot read the host"),
            }
        }
    }

    /// Writes readings. The error is for people.
    async fn write(&mut self, values: &Value) -> Result<(), String> {
        match &mut self.writer {
            Writer::None => Ok(()),
            Writer::File(file) => {
                let line = json!({"@timestamp": self.clock.now().to_rfc3339_millis(), "host": values});
                file.write_all(format!("{line}\n").as_bytes()).map_err(|error| error.to_string())
            }
            Writer::Otlp(exporter) => {
                // Before the next readings, which a receiver that does not respond must not delay.
                exporter.send(values, self.clock.now(), self.spec.period.min(SEND)).await
            }
        }
    }

    fn state(&self, values: Value, fault: Option<String>) -> ComponentState {
        let (state, message) = match fault {
            None => (Health::Healthy, "Healthy: reading the host".to_owned()),
            Some(error) => (Health::Degraded, format!("Degraded: cannot write readings: {error}")),
        };
        let mut reported = ComponentState::uniform(&self.component, state, &message);
        if let Some(unit) = reported.units.iter_mut().find(|unit| unit.direction == "input") {
            unit.payload = Some(values);
        }
        reported
    }
}

fn take(readings: Option<Readings>) -> Result<(Readings, Value), sysinfo::Error> {
    let mut readings = readings.map_or_else(Readings::new, Ok)?;
    let values = readings.read()?;
    Ok((readings, values))
}
