//! The kinds of objects that policies refer to.

use muster_core::Error;
use muster_core::authorization::{OpContext, OutputsRead, PrivilegeName};
use muster_core::connection_test::{Failure, Step, StepName, Tested, origin_of};
use muster_core::id::PolicyId;
use muster_core::network_object::NetworkObject;
use muster_core::output::Output;
use muster_core::policy::check::OUTPUT_TYPES;
use muster_fleet::Fleet;
use muster_fleet::network_objects::{
    DownloadSources, NetworkFamily, NetworkObjectDraft, NetworkObjects, Proxies as ProxyFamily, ServerHosts,
};
use muster_fleet::outputs::OutputDraft;
use serde_json::{Map, Value};

use super::inputs::Input;
use super::known::{self, Hints};
use super::{Draft, Record};

/// A kind of objects: its texts, and its service.
pub trait Kind: 'static {
    /// Path of the list.
    const LIST: &'static str;
    /// Path of the form of a new object.
    const NEW: &'static str;
    /// Path of an object.
    const ONE: &'static str;
    /// Path of the deletion of an object.
    const DELETE: &'static str;
    /// Title of the list.
    const TITLE: &'static str;
    /// Title of the form of a new object.
    const NEW_TITLE: &'static str;
    /// The kind, at the beginning of a sentence.
    const THE: &'static str;
    /// What objects of the kind are for.
    const ABOUT: &'static str;
    /// What changing them needs.
    const WRITE: PrivilegeName;
    /// Command of `muster`.
    const CLI: &'static str;
    /// Path in the API.
    const API: &'static str;
    /// Resource of the Terraform provider.
    const TERRAFORM: &'static str;
    /// Its attributes, and the fields that they are, besides the name.
    const ATTRIBUTES: &'static [(&'static str, &'static str)];
    /// Its attributes that make an object a default.
    const FLAGS: &'static [&'static str];
    /// Types of objects; empty if there is only one.
    const TYPES: &'static [&'static str];
    /// Whether one of them is the default.
    const HAS_DEFAULT: bool;
    /// Fields with an input of their own.
    const INPUTS: &'static [Input];
    /// What the form says about all other fields.
    const HINTS: Hints;

    /// Returns all objects.
    fn list(fleet: &Fleet, context: &OpContext) -> impl Future<Output = Result<Vec<Record>, Error>> + Send;
    /// Returns an object.
    fn find(fleet: &Fleet, context: &OpContext, id: &str) -> impl Future<Output = Result<Record, Error>> + Send;
    /// Creates an object.
    fn create(fleet: &Fleet, context: &OpContext, draft: Draft) -> impl Future<Output = Result<Record, Error>> + Send;
    /// Changes an object.
    fn update(
        fleet: &Fleet,
        context: &OpContext,
        id: &str,
        draft: Draft,
    ) -> impl Future<Output = Result<Record, Error>> + Send;
    /// Returns the policies to which a change would give a new revision: id and name.
    fn revised(
        fleet: &Fleet,
        context: &OpContext,
        id: &str,
        draft: Draft,
    ) -> impl Future<Output = Result<Vec<(PolicyId, String)>, Error>> + Send;
    /// Deletes an object; returns its name.
    fn delete(fleet: &Fleet, context: &OpContext, id: &str) -> impl Future<Output = Result<String, Error>> + Send;
    /// Returns the health of an object, if it has one.
    fn health(
        fleet: &Fleet,
        context: &OpContext,
        id: &str,
    ) -> impl Future<Output = Result<Option<(String, String)>, Error>> + Send;
    /// Connects to what a form describes, without saving it. `id` is that of the object that the form changes; empty for a new
    /// one.
    fn test(
        fleet: &Fleet,
        context: &OpContext,
        id: &str,
        draft: Draft,
    ) -> impl Future<Output = Result<Vec<Tested>, Error>> + Send;
}

/// Outputs.
pub enum Outputs {}

impl Kind for Outputs {
    const LIST: &'static str = "/settings/outputs";
    const NEW: &'static str = "/settings/outputs/new";
    const ONE: &'static str = "/settings/outputs/{id}";
    const DELETE: &'static str = "/settings/outputs/{id}/delete";
    const TITLE: &'static str = "Outputs";
    const NEW_TITLE: &'static str = "Create an output";
    const THE: &'static str = "The output";
    const ABOUT: &'static str = "Where agents send their data.";
    const WRITE: PrivilegeName = PrivilegeName::OutputsWrite;
    const CLI: &'static str = "output";
    const API: &'static str = "/api/fleet/outputs";
    const TERRAFORM: &'static str = "elasticstack_fleet_output";
    const ATTRIBUTES: &'static [(&'static str, &'static str)] = &[
        ("hosts", "hosts"),
        ("ca_sha256", "ca_sha256"),
        ("ca_trusted_fingerprint", "ca_trusted_fingerprint"),
        ("config_yaml", "config_yaml"),
    ];
    const FLAGS: &'static [&'static str] = &["default_integrations", "default_monitoring"];
    const TYPES: &'static [&'static str] = &OUTPUT_TYPES;
    const HAS_DEFAULT: bool = true;
    const INPUTS: &'static [Input] = known::OUTPUT;
    const HINTS: Hints = known::OUTPUT_HINTS;

    async fn list(fleet: &Fleet, context: &OpContext) -> Result<Vec<Record>, Error> {
        Ok(fleet.outputs().list(&context.grant()?).await?.into_iter().map(of_output).collect())
    }

    async fn find(fleet: &Fleet, context: &OpContext, id: &str) -> Result<Record, Error> {
        Ok(of_output(fleet.outputs().find::<OutputsRead>(context, id).await?.into_inner()))
    }

    async fn create(fleet: &Fleet, context: &OpContext, draft: Draft) -> Result<Record, Error> {
        Ok(of_output(fleet.outputs().create(&context.grant()?, output_draft(draft)).await?))
    }

    async fn update(fleet: &Fleet, context: &OpContext, id: &str, draft: Draft) -> Result<Record, Error> {
        let found = fleet.outputs().find(context, id).await?;
        Ok(of_output(fleet.outputs().update(&found, output_draft(draft)).await?))
    }

    async fn revised(
        fleet: &Fleet,
        context: &OpContext,
        id: &str,
        draft: Draft,
    ) -> Result<Vec<(PolicyId, String)>, Error> {
        let found = fleet.outputs().find(context, id).await?;
        fleet.outputs().revised_by(&found, output_draft(draft)).await
    }

    async fn delete(fleet: &Fleet, context: &OpContext, id: &str) -> Result<String, Error> {
        Ok(fleet.outputs().delete(&fleet.outputs().find(context, id).await?).await?.name)
    }

    async fn health(fleet: &Fleet, context: &OpContext, id: &str) -> Result<Option<(String, String)>, Error> {
        let health = fleet.outputs().health(&context.grant()?, id).await?;
        Ok(Some((health.state.to_owned(), health.message)))
    }

    async fn test(fleet: &Fleet, context: &OpContext, _: &str, mut draft: Draft) -> Result<Vec<Tested>, Error> {
        // What a change removes is absent from the settings that are tested.
        draft.fields.retain(|_, value| !value.is_null());
        let hosts = draft.fields.get("hosts").and_then(Value::as_array).into_iter().flatten();
        let url = hosts.filter_map(Value::as_str).map(origin_of).collect::<Vec<_>>().join(", ");
        let tested = fleet.outputs().test(&context.grant()?, output_draft(draft)).await?;
        let remedy = "correct the settings or the cluster, and test again".to_owned();
        let outcome = match tested {
            Ok(version) => Ok(format!("Elasticsearch {version} answers")),
            Err(error) => Err(Failure { reason: error.to_string(), remedy }),
        };
        Ok(vec![Tested { url, steps: vec![Step { name: StepName::Response, outcome }] }])
    }
}

fn of_output(output: Output) -> Record {
    Record {
        id: output.id.to_string(),
        name: output.name,
        kind: output.kind,
        is_default: output.is_default,
        is_default_monitoring: output.is_default_monitoring,
        fields: members(output.fields),
        updated_at: output.updated_at,
    }
}

fn output_draft(draft: Draft) -> OutputDraft {
    OutputDraft {
        id: None,
        name: Some(draft.name),
        kind: draft.kind,
        is_default: Some(draft.is_default),
        is_default_monitoring: Some(draft.is_default_monitoring),
        fields: draft.fields,
    }
}

fn members(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn of_network(object: NetworkObject) -> Record {
    let mut fields = members(object.fields);
    // Stored as it was set (MG §13); the form has a field of its own for it.
    fields.remove("is_default");
    Record {
        id: object.id.to_string(),
        name: object.name,
        kind: String::new(),
        is_default: object.is_default,
        is_default_monitoring: false,
        fields,
        updated_at: object.updated_at,
    }
}

fn network_draft(draft: Draft, has_default: bool) -> NetworkObjectDraft {
    let is_default = has_default.then_some(draft.is_default);
    NetworkObjectDraft { id: None, name: Some(draft.name), is_default, fields: draft.fields }
}

macro_rules! network_kinds {
    ($($(#[$doc:meta])* $name:ident: $family:ty, $service:ident {
        $path:literal, $title:literal, $new:literal, $the:literal, $about:literal, $cli:literal, $api:literal,
        $terraform:literal, [$($attribute:literal = $field:literal),*], [$($flag:literal),*], $has_default:literal, $inputs:path, $hints:path
    })+) => {$(
        $(#[$doc])*
        pub enum $name {}

        impl Kind for $name {
            const LIST: &'static str = concat!("/settings/", $path);
            const NEW: &'static str = concat!("/settings/", $path, "/new");
            const ONE: &'static str = concat!("/settings/", $path, "/{id}");
            const DELETE: &'static str = concat!("/settings/", $path, "/{id}/delete");
            const TITLE: &'static str = $title;
            const NEW_TITLE: &'static str = $new;
            const THE: &'static str = $the;
            const ABOUT: &'static str = $about;
            const WRITE: PrivilegeName = <<$family as NetworkFamily>::Write as muster_core::authorization::Privilege>::NAME;
            const CLI: &'static str = $cli;
            const API: &'static str = concat!("/api/fleet/", $api);
            const TERRAFORM: &'static str = $terraform;
            const ATTRIBUTES: &'static [(&'static str, &'static str)] = &[$(($attribute, $field)),*];
            const FLAGS: &'static [&'static str] = &[$($flag),*];
            const TYPES: &'static [&'static str] = &[];
            const HAS_DEFAULT: bool = $has_default;
            const INPUTS: &'static [Input] = $inputs;
            const HINTS: Hints = $hints;

            async fn list(fleet: &Fleet, context: &OpContext) -> Result<Vec<Record>, Error> {
                let service: &NetworkObjects<$family> = fleet.$service();
                Ok(service.list(&context.grant()?).await?.into_iter().map(of_network).collect())
            }

            async fn find(fleet: &Fleet, context: &OpContext, id: &str) -> Result<Record, Error> {
                Ok(of_network(fleet.$service().find(context, id).await?.into_inner()))
            }

            async fn create(fleet: &Fleet, context: &OpContext, draft: Draft) -> Result<Record, Error> {
                let draft = network_draft(draft, $has_default);
                Ok(of_network(fleet.$service().create(&context.grant()?, draft).await?))
            }

            async fn update(fleet: &Fleet, context: &OpContext, id: &str, draft: Draft) -> Result<Record, Error> {
                let found = fleet.$service().find_to_change(context, id).await?;
                Ok(of_network(fleet.$service().update(&found, network_draft(draft, $has_default)).await?))
            }

            async fn revised(
                fleet: &Fleet,
                context: &OpContext,
                id: &str,
                draft: Draft,
            ) -> Result<Vec<(PolicyId, String)>, Error> {
                let found = fleet.$service().find_to_change(context, id).await?;
                fleet.$service().revised_by(&found, network_draft(draft, $has_default)).await
            }

            async fn delete(fleet: &Fleet, context: &OpContext, id: &str) -> Result<String, Error> {
                Ok(fleet.$service().delete(&fleet.$service().find_to_change(context, id).await?).await?.name)
            }

            async fn health(_: &Fleet, _: &OpContext, _: &str) -> Result<Option<(String, String)>, Error> {
                Ok(None)
            }

            async fn test(fleet: &Fleet, context: &OpContext, id: &str, draft: Draft) -> Result<Vec<Tested>, Error> {
                let (service, draft) = (fleet.$service(), network_draft(draft, $has_default));
                match id {
                    "" => service.test_new(&context.grant()?, draft).await,
                    id => service.test(&service.find_to_change(context, id).await?, draft).await,
                }
            }
        }
    )+};
}

network_kinds! {
    /// Fleet Server hosts.
    Hosts: ServerHosts, server_hosts {
        "hosts", "Fleet Server hosts", "Create a Fleet Server host", "The Fleet Server host", "URLs at which agents reach the fleet.",
        "server-host", "fleet_server_hosts", "elasticstack_fleet_server_host", ["hosts" = "host_urls"], ["default"], true, known::HOST, known::HOST_HINTS
    }
    /// Proxies.
    Proxies: ProxyFamily, proxies {
        "proxies", "Proxies", "Create a proxy", "The proxy", "What agents connect through.",
        "proxy", "proxies", "elasticstack_fleet_proxy", ["url" = "url", "proxy_headers" = "proxy_headers"], [], false, known::PROXY_OBJECT, known::PROXY_HINTS
    }
    /// Download sources.
    Downloads: DownloadSources, download_sources {
        "downloads", "Download sources", "Create a download source", "The download source",
        "Where agents download their programs.",
        "download-source", "agent_download_sources", "elasticstack_fleet_agent_download_source", ["host" = "host", "proxy_id" = "proxy_id"],
        ["default"], true, known::DOWNLOAD, known::DOWNLOAD_HINTS
    }
}
