//! Builds the model of a policy (AG §4.3).

use muster_core::error_chain::chain;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::catalog::{Catalog, Installed};
use super::command;
use super::fleet_block::FleetBlock;
use super::inputs::{self, Invalid};
use super::metrics::{self, METRICS};
use super::process::PROCESS;
use super::service;
use super::{Component, Direction, Level, Model, Unit, Work};
use crate::host::variables::platform;
use crate::variables::render::{Unrendered, render};
use crate::variables::{Scope, VariableSets};

/// Maximum number of inputs of a model, after rendering. Further inputs are left out, those of dynamic sets first.
pub const INPUTS_MAX: usize = 256;
/// Providers whose variables exist once for each container, pod or item of a list.
const DYNAMIC: [&str; 3] = ["docker", "kubernetes", "local_dynamic"];
/// Fields of inputs and outputs that are for the agent.
const OWN_FIELDS: [&str; 3] = ["enabled", "use_output", "log_level"];

/// The parts of a policy that the model depends on.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// `inputs`.
    pub inputs: Vec<Value>,
    /// `outputs`.
    pub outputs: Map<String, Value>,
    /// `revision`.
    pub revision: i64,
    /// `agent.features`.
    pub features: Value,
    /// `agent.limits`.
    pub limits: Value,
    /// `agent.headers`, which outputs to Elasticsearch send.
    pub headers: Value,
    /// `agent.protection.enabled`.
    pub is_protected: bool,
    /// `signed`, which services verify themselves.
    pub signed: Option<Arc<Value>>,
}

/// Everything else that the model depends on.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Variables.
    pub variables: &'a VariableSets,
    /// Installed components and local rules.
    pub catalog: &'a Catalog,
    /// Log level of units that have none of their own.
    pub level: Level,
    /// The connection to the server, for components that have one of their own.
    pub fleet: Option<&'a FleetBlock>,
}

/// The model, and what it leaves out.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The components.
    pub model: Model,
    /// Components and inputs that are left out, with the reason: a local rule excludes them, or a variable has no value.
    pub blocked: Vec<String>,
    /// Number of inputs above [`INPUTS_MAX`].
    pub left_out: usize,
}

/// An output with its rendered configuration.
struct Output {
    kind: String,
    config: Value,
    enabled: bool,
    level: Option<Level>,
}

/// An input of the model, or the reason why it cannot be part of it.
struct Input {
    id: String,
    kind: String,
    output: String,
    level: Option<Level>,
    /// Whether it comes from a set of a dynamic provider.
    is_dynamic: bool,
    config: Result<Value, String>,
}

/// Builds the model.
pub fn build(document: &Document, around: Surroundings<'_>) -> Result<Built, Invalid> {
    inputs::check_ids(&document.inputs)?;
    let outputs = outputs(document, around.variables.context())?;
    let mut built = Built::default();
    let mut inputs = rendered(document, &around, &outputs, &mut built.blocked)?;
    built.left_out = limit(&mut inputs);
    let builder = Builder { document, around, outputs: &outputs };
    for group in groups(inputs, around.catalog) {
        let component = builder.component(group);
        match builder.rule_against(&component) {
            Some(reason) => built.blocked.push(reason),
            None => built.model.push(Arc::new(component)),
        }
    }
    Ok(built)
}

/// Renders the outputs, for which every variable must have a value (AG74).
fn outputs(document: &Document, scope: Scope<'_>) -> Result<BTreeMap<String, Output>, Invalid> {
    let one = |(name, output): (&String, &Value)| {
        let fault = |error: Unrendered| Invalid::Output { name: name.clone(), reason: chain(&error).to_string() };
        let mut config = render(output, scope).map_err(fault)?;
        let kind = config["type"].as_str().unwrap_or_default().to_owned();
        let enabled = config["enabled"] != Value::Bool(false);
        let level = config["log_level"].as_str().and_then(Level::parse);
        if kind == "elasticsearch" && config["headers"].is_null() && document.headers.is_object() {
            config["headers"] = document.headers.clone();
        }
        strip(&mut config);
        Ok((name.clone(), Output { kind, config, enabled, level }))
    };
    document.outputs.iter().map(one).collect()
}

/// Renders the inputs, once for each set of variables. Equal results count once. Adds the inputs that lack a variable to
/// `blocked`.
fn rendered(
    document: &Document,
    around: &Surroundings<'_>,
    outputs: &BTreeMap<String, Output>,
    blocked: &mut Vec<String>,
) -> Result<Vec<Input>, Invalid> {
    let mut found = Vec::new();
    for (place, input) in document.inputs.iter().enumerate() {
        let output = input["use_output"].as_str().unwrap_or("default").to_owned();
        // Programs of the policy need no output, and readings are sent with check-ins.
        let known = outputs.get(&output);
        let needs_output = input["type"] != PROCESS && input["type"] != METRICS;
        if known.is_none() && needs_output {
            return Err(Invalid::UnknownOutput { place, name: output });
        }
        if input["enabled"] == Value::Bool(false) || known.is_some_and(|output| !output.enabled) {
            continue;
        }
        found.extend(variants(place, input, around.variables, blocked).into_iter().map(
            |Variant { id, is_dynamic, config }| {
                Input {
                    id,
                    // Never rendered: the type is signed, and decides whether the rest must be.
                    kind: input["type"].as_str().unwrap_or_default().to_owned(),
                    output: output.clone(),
                    level: input["log_level"].as_str().and_then(Level::parse),
                    is_dynamic,
                    config,
                }
            },
        ));
    }
    Ok(found)
}

/// Leaves out the inputs above the maximum, and returns their number. Containers that come and go must not displace what
/// the policy says about the host itself.
fn limit(inputs: &mut Vec<Input>) -> usize {
    let all = inputs.len();
    let mut fixed = INPUTS_MAX;
    let mut dynamic = INPUTS_MAX.saturating_sub(inputs.iter().filter(|input| !input.is_dynamic).count());
    inputs.retain(|input| {
        let room = if input.is_dynamic { &mut dynamic } else { &mut fixed };
        let fits = *room > 0;
        *room = room.saturating_sub(1);
        fits
    });
    all - inputs.len()
}

/// The result of rendering an input.
struct Variant {
    id: String,
    is_dynamic: bool,
    config: Result<Value, String>,
}

/// Returns the results of rendering an input. If there are none because a variable has no value, `blocked` gets the reason.
fn variants(place: usize, input: &Value, variables: &VariableSets, blocked: &mut Vec<String>) -> Vec<Variant> {
    let name = inputs::name(place, input);
    // Programs run as written: `${X}` belongs to the shell there.
    if input["type"] == PROCESS {
        return vec![Variant { id: name, is_dynamic: false, config: Ok(input.clone()) }];
    }
    let (mut seen, mut found, mut missing) = (HashSet::new(), Vec::new(), None);
    for scope in variables.scopes() {
        let mut config = match render(input, scope) {
            Ok(config) => config,
            // The input returns when the variable gets a value or the condition becomes true (AG74).
            Err(Unrendered::Missing(name)) => {
                missing.get_or_insert(name);
                continue;
            }
            Err(Unrendered::Excluded) => continue,
            Err(error @ Unrendered::Malformed { .. }) => {
                return vec![Variant { id: name, is_dynamic: false, config: Err(format!("Failed: {error}")) }];
            }
        };
        // An input whose streams are all excluded has nothing to do.
        let had_streams = input["streams"].as_array().is_some_and(|streams| !streams.is_empty());
        if had_streams && config["streams"].as_array().is_none_or(Vec::is_empty) || !seen.insert(config.to_string()) {
            continue;
        }
        let id = match scope.id() {
            None => name.clone(),
            Some(set) => {
                add_processors(&mut config, scope.processors());
                config["original_id"] = name.clone().into();
                config["id"] = format!("{name}-{set}").into();
                format!("{name}-{set}")
            }
        };
        found.push(Variant { id, is_dynamic: scope.id().is_some(), config: Ok(config) });
    }
    // That nothing runs for containers and pods is normal while there are none.
    let missing = missing.filter(|missing| !DYNAMIC.contains(&missing.provider()));
    blocked.extend(missing.filter(|_| found.is_empty()).map(|missing| format!("input {name}: {missing}")));
    found
}

/// Adds processors before those of the policy, which may refer to what they add.
fn add_processors(config: &mut Value, added: &[Value]) {
    if added.is_empty() {
        return;
    }
    match &mut config["processors"] {
        Value::Array(own) => drop(own.splice(..0, added.iter().cloned())),
        missing @ Value::Null => *missing = added.into(),
        // What the component makes of it is not for the agent to decide.
        _ => {}
    }
}

/// Inputs that run together.
struct Group<'a> {
    id: String,
    isolated: bool,
    installed: Option<&'a Installed>,
    inputs: Vec<Input>,
}

/// Groups the inputs into components: by type and output, or each by itself if the component cannot share a process.
fn groups(inputs: Vec<Input>, catalog: &Catalog) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for mut input in inputs {
        let installed = catalog.find(&input.kind, &platform());
        // Components know only the name of the type, not its aliases.
        if let Some(found) = installed {
            input.kind.clone_from(&found.input.name);
        }
        let isolated =
            input.kind == PROCESS || input.kind == METRICS || installed.is_some_and(|found| found.input.isolate_units);
        // A service exists once, whatever output it writes to: another output must not install it again.
        let is_service = installed.is_some_and(Installed::is_service);
        let mut id = if is_service { input.kind.clone() } else { format!("{}-{}", input.kind, input.output) };
        if isolated {
            id = format!("{id}-{}", input.id);
        }
        match groups.iter_mut().find(|group| group.id == id) {
            Some(group) => group.inputs.push(input),
            None => groups.push(Group { id, isolated, installed, inputs: vec![input] }),
        }
    }
    groups
}

struct Builder<'a> {
    document: &'a Document,
    around: Surroundings<'a>,
    outputs: &'a BTreeMap<String, Output>,
}

impl Builder<'_> {
    fn component(&self, group: Group<'_>) -> Component {
        let kind = group.inputs.first().map(|input| input.kind.clone()).unwrap_or_default();
        let output = group.inputs.first().and_then(|input| self.outputs.get(&input.output));
        let work = self.work(&kind, &group, output);
        let mut units = vec![Unit {
            id: group.id.clone(),
            direction: Direction::Output,
            config: Arc::new(output.map_or_else(|| json!({}), |output| output.config.clone())),
            level: output.and_then(|output| output.level).unwrap_or(self.around.level),
            fault: None,
        }];
        let signed = self.document.signed.as_deref().filter(|_| matches!(work, Ok(Work::Service(_))));
        units.extend(group.inputs.into_iter().map(|input| self.unit(&group.id, group.isolated, input, signed)));
        let (features, limits) = (self.document.features.clone(), self.document.limits.clone());
        Component { id: group.id, kind, units, work, features, limits }
    }

    fn unit(&self, component: &str, isolated: bool, input: Input, signed: Option<&Value>) -> Unit {
        let id = if isolated { format!("{component}-unit") } else { format!("{component}-{}", input.id) };
        let fault = input.config.as_ref().err().cloned();
        let mut config = input.config.unwrap_or_else(|_| json!({}));
        strip(&mut config);
        if input.kind != PROCESS && config["policy"].is_null() {
            config["policy"] = json!({"revision": self.document.revision});
        }
        if let Some(signed) = signed {
            config["signed"] = signed.clone();
        }
        if let Some(fleet) = self.around.fleet.and_then(|fleet| fleet.of_input(&input.kind)) {
            config["fleet"] = fleet.clone();
        }
        // Not the alias that the policy may have used.
        config["type"] = input.kind.into();
        let level = input.level.unwrap_or(self.around.level);
        Unit { id, direction: Direction::Input, config: Arc::new(config), level, fault }
    }

    fn work(&self, kind: &str, group: &Group<'_>, output: Option<&Output>) -> Result<Work, String> {
        if kind == PROCESS {
            let Some(Ok(config)) = group.inputs.first().map(|input| &input.config) else {
                return Err("Failed: malformed input".into());
            };
            return inputs::process(config).map(Work::Process);
        }
        if kind == METRICS {
            let config = group.inputs.first().map(|input| input.config.clone()).unwrap_or(Ok(Value::Null))?;
            return metrics::read(&config, output.map(|output| (output.kind.as_str(), &output.config)))
                .map(Work::Metrics);
        }
        let installed = group.installed.ok_or_else(|| unsupported(kind, self.around.catalog.ignored()))?;
        let output = output.map(|output| output.kind.as_str()).unwrap_or_default();
        self.installed(installed, output).map_err(|reason| format!("Failed: {reason}"))
    }

    fn installed(&self, installed: &Installed, output: &str) -> Result<Work, String> {
        let input = &installed.input;
        if !input.outputs.iter().any(|known| known == output) {
            return Err(format!("the component {} does not support outputs of type {output:?}", input.name));
        }
        if !input.platforms.contains(&platform()) {
            return Err(format!("the component {} does not support {}", input.name, platform()));
        }
        let scope = self.around.variables.context();
        match &input.service {
            Some(service) => service::resolve(installed, service, self.document.is_protected, scope).map(Work::Service),
            None => command::resolve(installed, scope).map(Work::Command),
        }
    }

    /// Returns the local rule that excludes a component, as a message.
    fn rule_against(&self, component: &Component) -> Option<String> {
        let rules = &self.around.catalog.capabilities;
        let output = component.units.iter().find(|unit| unit.direction == Direction::Output);
        let output = output.and_then(|unit| unit.config["type"].as_str()).unwrap_or_default();
        if !rules.allow_input(&component.kind) {
            return Some(format!("{}: a local rule denies inputs of type {}", component.id, component.kind));
        }
        let denied = component.kind != PROCESS && !output.is_empty() && !rules.allow_output(output);
        denied.then(|| format!("{}: a local rule denies outputs of type {output}", component.id))
    }
}

/// Returns the reason for an unknown type. What was to define it may be among the ignored specifications.
fn unsupported(kind: &str, ignored: &[String]) -> String {
    let ignored = if ignored.is_empty() { String::new() } else { format!("; ignored: {}", ignored.join("; ")) };
    format!("Failed: unsupported input type {kind:?}{ignored}")
}

fn strip(config: &mut Value) {
    if let Value::Object(fields) = config {
        fields.retain(|name, _| !OWN_FIELDS.contains(&name.as_str()) && !name.starts_with("_runtime"));
    }
}

#[cfg(test)]
mod tests;
