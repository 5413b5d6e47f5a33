//! The OpenAPI document of this API, generated from the table of endpoints and the types of their handlers.

mod operation;
mod schemas;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::PrivilegeName;
use muster_protocol::management::ErrorBody;
use muster_protocol::management::envelope::API_VERSION;
use serde_json::{Map, Value, json};

use self::operation::Success;
pub use self::operation::{Described, Extracts, Operation, Responds};
use self::schemas::{generators, merge};
use crate::base_path::BasePath;
use crate::endpoints::{self, Endpoint, Needs};
use crate::error::ApiResult;
use crate::server_status;

/// The document. It is generated once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
/// Its text.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| DOCUMENT.to_string().into());

/// The endpoint of the document.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::get("/v1/openapi.json", serve).public().about("Get this document").returning("application/json")]
}

async fn serve() -> ApiResult<Response> {
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let base = BasePath::current();
    if base == BasePath::default() {
        return Ok((kind, TEXT.clone()).into_response());
    }
    let mut published = DOCUMENT.clone();
    published["servers"] = servers(&base);
    Ok((kind, published.to_string()).into_response())
}

/// What an endpoint reads besides the path and the body.
#[derive(Clone, Default)]
pub struct Reads {
    /// Names of query parameters.
    pub query: Arc<[String]>,
    /// Whether it reads `If-Match`.
    pub if_match: bool,
    /// Whether only Muster has its path, and not Kibana.
    pub is_own: bool,
}

/// What each endpoint reads, by method and path.
static READS: LazyLock<HashMap<(Method, &'static str), Reads>> = LazyLock::new(|| {
    let (mut requests, mut responses) = generators();
    let all = endpoints::all().into_iter().map(|endpoint| {
        let mut operation = Operation::new(&mut requests, &mut responses);
        (endpoint.describe)(&mut operation);
        let of_query = operation.parameters.iter().filter(|parameter| parameter["in"] == "query");
        let query = of_query.filter_map(|parameter| parameter["name"].as_str()).map(str::to_owned).collect();
        let if_match = operation.parameters.iter().any(|parameter| parameter["name"] == "If-Match");
        ((endpoint.method, endpoint.path), Reads { query, if_match, is_own: endpoints::is_own(endpoint.path) })
    });
    all.collect()
});

/// Returns what an endpoint reads besides the path and the body.
pub fn reads(endpoint: &Endpoint) -> Reads {
    READS.get(&(endpoint.method.clone(), endpoint.path)).cloned().unwrap_or_default()
}

/// Generates the document.
pub fn document() -> Value {
    let (mut requests, mut responses) = generators();
    let error = responses.subschema_for::<ErrorBody>();
    let (mut paths, mut ids) = (json!({}), BTreeSet::new());
    let status = Endpoint::get("/status", server_status::get).public().about("Get the API level of the server");
    let all = endpoints::all().into_iter().map(|one| (one.url(), one));
    for (url, endpoint) in all.chain([("/api/status".to_owned(), status)]) {
        let mut operation = Operation::new(&mut requests, &mut responses);
        (endpoint.describe)(&mut operation);
        let mut described = described(&url, &endpoint, operation);
        let id = operation_id(&endpoint.method, &url);
        // The older spelling of a path has the same words.
        described["operationId"] = if ids.insert(id.clone()) { id.into() } else { format!("{id}Alias").into() };
        paths[&url][endpoint.method.as_str().to_lowercase()] = described;
    }
    let schemas = merge(requests.take_definitions(true), responses.take_definitions(true), &mut paths);
    schemas::simplify(&mut paths);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Muster",
            "version": API_VERSION,
            "description": "The management API of Muster. See `docs/api.md` for authentication, paging, filters and errors.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": servers(&BasePath::default()),
        "security": SCHEMES.map(|(name, ..)| json!({name: []})),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": common_parameters(),
            "responses": error_responses(&json!(error)),
            "securitySchemes": security_schemes(),
        },
    })
}

fn servers(base: &BasePath) -> Value {
    let space = format!("{base}/s/{{space}}");
    json!([
        {"url": format!("{base}/"), "description": "The default space"},
        {"url": space, "description": "Another space", "variables": {"space": {"default": "default"}}},
    ])
}

/// Names of the security schemes, and their descriptions.
const SCHEMES: [(&str, &str); 4] = [
    ("apiKey", "`Authorization: ApiKey <token>`, with an API token, as `muster token create` prints it."),
    ("bearer", "The same token as a bearer token."),
    ("session", "Cookie of a session (`POST /api/v1/session`). Changes must come from a page of this server."),
    ("basic", "Name and password; only if `auth.basic` is enabled."),
];

fn security_schemes() -> Value {
    let scheme = |(name, about): (&str, &str)| {
        let mut scheme = match name {
            "apiKey" => json!({"type": "apiKey", "in": "header", "name": "Authorization"}),
            "session" => json!({"type": "apiKey", "in": "cookie", "name": crate::credentials::COOKIE}),
            scheme => json!({"type": "http", "scheme": scheme}),
        };
        scheme["description"] = json!(about);
        (name.to_owned(), scheme)
    };
    Value::Object(SCHEMES.into_iter().map(scheme).collect())
}

/// Parameters that every endpoint accepts, or every one that changes something.
fn common_parameters() -> Value {
    let header = |name: &str, about: &str| json!({"in": "header", "name": name, "description": about, "schema": {"type": "string"}});
    json!({
        "DryRun": {
            "in": "query",
            "name": "dryRun",
            "description": "Whether to check the request without changing anything.",
            "schema": {"type": "boolean", "default": false},
        },
        "ApiVersion": header("elastic-api-version", "Version of the API. Other versions are rejected."),
        "IdempotencyKey": header(
            "Idempotency-Key",
            "Any unique string, such as a UUID. A request that is repeated with the same key within a day is not executed \
             again, but gets the same response.",
        ),
        "Reason": header("muster-reason", "Reason of a change, for the audit log; percent-encoded UTF-8."),
    })
}

/// Whether an endpoint may change something: it accepts the parameters of changes.
fn is_change(method: &Method) -> bool {
    *method != Method::GET
}

/// Statuses of errors, and when they occur.
const ERRORS: [(StatusCode, &str); 12] = [
    (StatusCode::BAD_REQUEST, "The request is invalid. `field` names the invalid field."),
    (StatusCode::UNAUTHORIZED, "The credentials are missing or invalid."),
    (StatusCode::FORBIDDEN, "The caller lacks a privilege, or a cookie was sent by a page of another site."),
    (StatusCode::NOT_FOUND, "The object or the space does not exist, or the caller may not see it."),
    (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time."),
    (StatusCode::CONFLICT, "The state of the object does not permit the change, or it has changed in the meantime."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body has a content coding."),
    (StatusCode::UNPROCESSABLE_ENTITY, "The idempotency key was used with another request."),
    (StatusCode::TOO_MANY_REQUESTS, "A limit was reached; retry later."),
    (StatusCode::INTERNAL_SERVER_ERROR, "An internal error, which the server has logged."),
    (StatusCode::SERVICE_UNAVAILABLE, "The server or its store is unavailable, or read-only; retry later."),
];

fn component(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("Error").replace(' ', "")
}

fn error_responses(error: &Value) -> Value {
    let response = |(status, about): (StatusCode, &str)| {
        let mut response = json!({"description": about, "content": {"application/json": {"schema": error}}});
        let header = |about: &str| json!({"description": about, "schema": {"type": "string"}});
        match status {
            StatusCode::UNAUTHORIZED => response["headers"]["WWW-Authenticate"] = header("`ApiKey`."),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                response["headers"]["Retry-After"] = header("Number of seconds to wait before a retry.");
            }
            _ => {}
        }
        (component(status), response)
    };
    Value::Object(ERRORS.into_iter().map(response).collect())
}

/// Returns whether an endpoint may respond with an error of this status.
fn may_fail(status: StatusCode, method: &Method, has_body: bool) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => has_body || is_change(method),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => has_body,
        StatusCode::UNPROCESSABLE_ENTITY => is_change(method),
        _ => true,
    }
}

fn described(url: &str, endpoint: &Endpoint, operation: Operation<'_>) -> Value {
    let Operation { parameters, body, success, .. } = operation;
    let method = &endpoint.method;
    let shared = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
    let mut all: Vec<Value> = path_parameters(url).collect();
    all.extend(parameters);
    all.push(shared("ApiVersion"));
    if is_change(method) {
        all.push(shared("Reason"));
        if endpoint.needs != Needs::Nothing {
            all.push(shared("DryRun"));
            all.push(shared("IdempotencyKey"));
        }
    }
    let mut described = json!({
        "tags": [tag(url)],
        "summary": endpoint.about,
        "description": needs(endpoint.needs),
        "parameters": all,
        "responses": responses(endpoint, success, body.is_some()),
    });
    match &endpoint.needs {
        Needs::Privileges(names) => {
            described["x-privileges"] = names.iter().copied().map(PrivilegeName::as_str).collect();
        }
        Needs::Everywhere(name) => described["x-privileges"] = json!([name.as_str()]),
        Needs::Unstated | Needs::Nothing | Needs::Credentials | Needs::OneOf(_) => {}
    }
    if endpoint.needs == Needs::Nothing {
        described["security"] = json!([]);
    }
    if let Some(body) = body {
        described["requestBody"] = body;
    }
    described
}

fn needs(needs: Needs) -> String {
    match needs {
        Needs::Nothing | Needs::Unstated => "Needs no credentials.".into(),
        Needs::Credentials => "Needs credentials, but no privilege.".into(),
        Needs::Privileges(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_str())).collect();
            let noun = if names.len() == 1 { "privilege" } else { "privileges" };
            format!("Needs the {noun} {}.", names.join(", "))
        }
        Needs::Everywhere(name) => format!("Needs the privilege `{}` everywhere.", name.as_str()),
        Needs::OneOf(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_str())).collect();
            format!("Needs one of the privileges {}, depending on the object.", names.join(", "))
        }
    }
}

fn responses(endpoint: &Endpoint, success: Success, has_body: bool) -> Value {
    let mut all = Map::new();
    let with = |content: Value| Some((StatusCode::OK, json!({"description": "Success", "content": content})));
    let success = match success {
        Success::Never => None,
        Success::Json(schema) => with(json!({"application/json": {"schema": schema}})),
        Success::Bytes => with(json!({endpoint.content: {}})),
        Success::Redirect => {
            let location = json!({"description": "Target of the redirect.", "schema": {"type": "string"}});
            Some((StatusCode::FOUND, json!({"description": "Success", "headers": {"Location": location}})))
        }
    };
    if let Some((status, response)) = success {
        all.insert(status.as_str().to_owned(), response);
    }
    let errors = ERRORS.iter().filter(|(status, _)| may_fail(*status, &endpoint.method, has_body));
    for (status, _) in errors {
        let place = format!("#/components/responses/{}", component(*status));
        all.insert(status.as_str().to_owned(), json!({"$ref": place}));
    }
    Value::Object(all)
}

fn path_parameters(url: &str) -> impl Iterator<Item = Value> {
    let names = url.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"in": "path", "name": name, "required": true, "schema": {"type": "string"}}))
}

/// Returns the first segment after the prefix: the kind of object.
fn tag(url: &str) -> &str {
    url.split('/').skip(1).find(|part| !matches!(*part, "api" | "fleet" | "v1")).unwrap_or_default()
}

/// Returns an id such as `postAgentsBulkUnenroll` or `getV1UsersById`.
fn operation_id(method: &Method, url: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    let mut id = method.as_str().to_ascii_lowercase();
    for part in url.split('/').skip(1).filter(|part| !matches!(*part, "api" | "fleet")) {
        if part.starts_with('{') {
            id.push_str("By");
        }
        id.extend(part.split(['_', '-', '.', '{', '}']).map(capital));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_operations_are_made_of_the_words_of_the_path() {
        let id = |url| operation_id(&Method::POST, url);
        assert_eq!(id("/api/fleet/agents/{id}/unenroll"), "postAgentsByIdUnenroll");
        assert_eq!(id("/api/v1/users"), "postV1Users");
        assert_eq!(id("/api/fleet/agent_policies/_bulk_get"), "postAgentPoliciesBulkGet");
    }

    #[test]
    fn schemas_that_differ_between_requests_and_responses_have_two_names() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let refers = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let requests = map(json!({"Same": {}, "Inner": {"required": []}, "Outer": {"items": refers("Inner")}}));
        let responses = map(json!({"Same": {}, "Inner": {}, "Outer": {"items": refers("Inner")}}));
        let mut paths = json!({"/x": {"post": {
            "requestBody": {"schema": refers("Outer")},
            "responses": {"200": {"schema": refers("Outer")}},
        }}});
        let all = merge(requests, responses, &mut paths);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["Inner", "InnerRequest", "Outer", "OuterRequest", "Same"]);
        assert_eq!(all["OuterRequest"]["items"], refers("InnerRequest"));
        assert_eq!(all["Outer"]["items"], refers("Inner"));
        assert_eq!(paths["/x"]["post"]["requestBody"]["schema"], refers("OuterRequest"));
        assert_eq!(paths["/x"]["post"]["responses"]["200"]["schema"], refers("Outer"));
    }
}
