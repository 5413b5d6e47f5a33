//! Parameters, body and response of an endpoint, derived from the types of its handler.
//!
//! Each type that a handler takes implements [`Extracts`], and each type that it returns implements [`Responds`]. The
//! description of an endpoint is therefore always that of the code that serves it.

use std::future::Future;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::body::Body;
use crate::entry::{Caller, Connection, Credentials, NamesSpace};
use crate::multipart::{FilePart, UNKNOWN_TYPE};
use crate::query::{IfMatch, Query};

/// What is known of an endpoint from the types of its handler.
pub struct Operation<'g> {
    /// Schemas of what clients send.
    pub(super) requests: &'g mut SchemaGenerator,
    /// Schemas of what the server sends.
    pub(super) responses: &'g mut SchemaGenerator,
    /// Parameters of the query and headers.
    pub(super) parameters: Vec<Value>,
    /// Body of the request.
    pub(super) body: Option<Value>,
    /// Body of a successful response.
    pub(super) success: Success,
}

/// Body of a successful response.
pub(super) enum Success {
    /// The endpoint never succeeds.
    Never,
    /// JSON.
    Json(Schema),
    /// Bytes of the content type that the endpoint states.
    Bytes,
    /// None: the browser is sent elsewhere.
    Redirect,
}

impl<'g> Operation<'g> {
    pub(super) fn new(requests: &'g mut SchemaGenerator, responses: &'g mut SchemaGenerator) -> Self {
        Self { requests, responses, parameters: Vec::new(), body: None, success: Success::Bytes }
    }

    /// Adds a parameter.
    pub fn parameter(&mut self, place: &str, name: &str, about: &str, schema: &Value) {
        self.parameters.push(json!({"in": place, "name": name, "description": about, "schema": schema}));
    }

    /// States that a success sends a browser elsewhere.
    pub fn redirects(&mut self) {
        self.success = Success::Redirect;
    }

    /// Adds the fields of a struct as parameters of the query.
    fn query<T: JsonSchema>(&mut self) {
        let mut object = T::json_schema(self.requests);
        let required = object.remove("required").unwrap_or_default();
        let Some(Value::Object(fields)) = object.remove("properties") else { return };
        for (name, mut schema) in fields {
            let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            without_null(&mut schema);
            let is_required = required.as_array().is_some_and(|names| names.iter().any(|one| *one == name));
            let mut parameter = json!({"in": "query", "name": name, "schema": schema});
            if let Some(about) = about {
                parameter["description"] = about;
            }
            if is_required {
                parameter["required"] = true.into();
            }
            self.parameters.push(parameter);
        }
    }
}

/// Removes `null` from the type of a parameter, because a query string has no `null`.
fn without_null(schema: &mut Value) {
    let Some(kind) = schema.get_mut("type") else { return };
    if let Some(types) = kind.as_array_mut() {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            *kind = only.clone();
        }
    }
}

/// An argument of a handler.
pub trait Extracts {
    /// Adds what clients send for it.
    fn describe(_: &mut Operation<'_>) {}
}

/// The result of a handler.
pub trait Responds {
    /// Sets the body of a successful response.
    fn describe(to: &mut Operation<'_>);
}

/// A handler, by the tuple of its arguments.
pub trait Described<Arguments> {
    /// Describes its arguments and its result.
    fn describe(to: &mut Operation<'_>);
}

macro_rules! described {
    ($($argument:ident)*) => {
        impl<F, Answer, $($argument,)*> Described<($($argument,)*)> for F
        where
            F: FnOnce($($argument),*) -> Answer,
            Answer: Future,
            Answer::Output: Responds,
            $($argument: Extracts,)*
        {
            fn describe(to: &mut Operation<'_>) {
                $(<$argument as Extracts>::describe(to);)*
                <Answer::Output as Responds>::describe(to);
            }
        }
    };
}

described!();
described!(A);
described!(A B);
described!(A B C);
described!(A B C D);
described!(A B C D E);
described!(A B C D E G);
described!(A B C D E G H);

// These take nothing that a client chooses for one endpoint; the parameters of a path are read from the path.
impl<S> Extracts for State<S> {}
impl<T> Extracts for Path<T> {}
impl Extracts for Caller {}
impl Extracts for NamesSpace {}
impl Extracts for Connection {}
impl Extracts for Credentials {}
impl Extracts for HeaderMap {}

impl<T: JsonSchema> Extracts for Query<T> {
    fn describe(to: &mut Operation<'_>) {
        to.query::<T>();
    }
}

impl Extracts for IfMatch {
    fn describe(to: &mut Operation<'_>) {
        let about = "Rejects the change with 409 unless the object has this `version`. `*` matches any version.";
        to.parameter("header", "If-Match", about, &json!({"type": "string"}));
    }
}

impl<T: JsonSchema> Extracts for Body<T> {
    fn describe(to: &mut Operation<'_>) {
        // An empty body is read as `{}`.
        let needs_fields = T::json_schema(to.requests).get("required").is_some();
        let schema = to.requests.subschema_for::<T>();
        to.body = Some(json!({"required": needs_fields, "content": {"application/json": {"schema": schema}}}));
    }
}

impl Extracts for FilePart {
    fn describe(to: &mut Operation<'_>) {
        let form = json!({
            "type": "object",
            "properties": {"file": {"type": "string", "contentMediaType": UNKNOWN_TYPE}},
            "required": ["file"],
        });
        to.body = Some(json!({
            "description": "The file itself, or a form whose first file is used.",
            "required": true,
            "content": {UNKNOWN_TYPE: {}, "multipart/form-data": {"schema": form}},
        }));
    }
}

impl<T: JsonSchema, E> Responds for Result<Json<T>, E> {
    fn describe(to: &mut Operation<'_>) {
        to.success = Success::Json(to.responses.subschema_for::<T>());
    }
}

impl<T: JsonSchema, E, const N: usize> Responds for Result<([(HeaderName, HeaderValue); N], Json<T>), E> {
    fn describe(to: &mut Operation<'_>) {
        <Result<Json<T>, E> as Responds>::describe(to);
    }
}

impl<E> Responds for Result<Response, E> {
    fn describe(to: &mut Operation<'_>) {
        to.success = Success::Bytes;
    }
}

impl<E> Responds for Result<(), E> {
    fn describe(to: &mut Operation<'_>) {
        to.success = Success::Never;
    }
}
