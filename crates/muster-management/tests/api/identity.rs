//! `/api/v1`: users, roles, tokens, spaces, sessions.

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::authorization::{BuiltIn, RefusalsRead};
use muster_fleet::FleetSettings;
use muster_fleet::testing::{TestFleet, steady};
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};

use crate::support::{Answer, Api, column};

const PASSWORD: &str = "correct horse battery";

/// A client of the admin listener.
struct Remote<'a> {
    api: &'a Api,
    headers: Vec<(&'static str, String)>,
}

impl Remote<'_> {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let address = Some("192.0.2.7:50000".parse().unwrap());
        let peer = Peer { address, ..Peer::new(ListenerKind::Admin) };
        let mut request = Request::builder().method(method).uri(path).extension(peer);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.api.send(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }
}

impl Api {
    fn remote(&self, headers: &[(&'static str, &str)]) -> Remote<'_> {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Remote { api: self, headers }
    }

    fn bearer(&self, token: &str) -> Remote<'_> {
        self.remote(&[("authorization", &format!("Bearer {token}"))])
    }

    /// Creates a user with a role; returns the token of one of its API tokens.
    async fn user(&self, name: &str, role: &str, place: Value) -> String {
        self.v1(Method::POST, "/users", json!({"name": name, "password": PASSWORD})).await.ok();
        let mut binding = json!({"user": name, "role": role});
        binding.as_object_mut().unwrap().extend(place.as_object().cloned().unwrap_or_default());
        self.v1(Method::POST, "/bindings", binding).await.ok();
        let made = self.v1(Method::POST, "/tokens", json!({"owner": name, "name": "t"})).await.ok();
        made["item"]["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn mg7_each_kind_of_credentials_is_accepted_where_enabled() {
    let settings = FleetSettings { accepts_basic: true, ..steady() };
    let (with_basic, without) = (Api::of(TestFleet::with(settings)), Api::new());
    for api in [&with_basic, &without] {
        let token = api.user("ann", "helpdesk", json!({})).await;
        for scheme in ["ApiKey", "Bearer"] {
            api.remote(&[("authorization", &format!("{scheme} {token}"))]).get("/api/fleet/agents").await.ok();
        }
        let wrong = api.bearer("aWQ6c2VjcmV0").get("/api/fleet/agents").await;
        assert_eq!(wrong.headers["www-authenticate"], "ApiKey");
        wrong.refused(401);
        let shown = api.fleet.refusals().latest();
        assert_eq!((shown[0].refused.operation, shown[0].refused.key.as_deref()), ("management", Some("id")));
    }
    let basic = "Basic YW5uOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==";
    with_basic.remote(&[("authorization", basic)]).get("/api/fleet/agents").await.ok();
    let refused = without.remote(&[("authorization", basic)]).get("/api/fleet/agents").await.refused(401);
    assert_eq!(refused["code"], "basic_not_accepted");
}

#[tokio::test]
async fn mg72_mg158_a_reader_lists_agents_but_cannot_tag_them_or_see_tokens() {
    let api = Api::new();
    api.agent("a", None).await;
    let made = api.post("/enrollment_api_keys", json!({"name": "k"})).await.ok();
    let token = api.user("ann", "auditor", json!({})).await;
    let ann = api.bearer(&token);
    assert_eq!(column(&ann.get("/api/fleet/agents").await.ok(), "/id"), ["a"]);
    let tags = json!({"tagsToAdd": ["x"]});
    ann.post("/api/fleet/agents/a/tags", tags).await.refused(403);
    let key = format!("/api/fleet/enrollment_api_keys/{}", made["item"]["id"].as_str().unwrap());
    ann.get(&key).await.refused(403);
    let listed = ann.get("/api/fleet/enrollment_api_keys").await.ok();
    assert_eq!(listed["items"][0].get("api_key"), None);
    let helper = api.user("bob", "helpdesk", json!({})).await;
    api.bearer(&helper).get("/api/fleet/enrollment_api_keys").await.refused(403);
}

#[tokio::test]
async fn mg159_requesting_diagnostics_needs_its_own_privilege() {
    let api = Api::new();
    api.agent("a", None).await;
    let reader = api.user("ann", "auditor", json!({})).await;
    let helper = api.user("bob", "helpdesk", json!({})).await;
    let path = "/api/fleet/agents/a/request_diagnostics";
    let refused = api.bearer(&reader).post(path, json!({})).await.refused(403);
    assert!(refused["message"].as_str().unwrap().contains("agents.diagnostics.request"), "{refused}");
    api.bearer(&helper).post(path, json!({})).await.ok();
}

#[tokio::test]
async fn a_role_for_one_policy_touches_only_its_agents() {
    let api = Api::new();
    let (a, b) = (api.policy("a").await, api.policy("b").await);
    api.agent("in", Some(&a)).await;
    api.agent("out", Some(&b)).await;
    let token = api.user("ann", "upgrade-operator", json!({"space": "default", "policies": [a]})).await;
    let ann = api.bearer(&token);
    assert_eq!(column(&ann.get("/api/fleet/agents").await.ok(), "/id"), ["in"]);
    ann.get("/api/fleet/agents/out").await.refused(404);
    let all = json!({"agents": "", "version": "9.6.0"});
    ann.post("/api/fleet/agents/bulk_upgrade", all).await.ok();
    assert_eq!((api.due("in").await.len(), api.due("out").await.len()), (1, 0));
}

#[tokio::test]
async fn mg171_writes_are_audited_with_actor_token_address_and_reason() {
    let api = Api::new();
    api.agent("a", None).await;
    let operator = api.user("olga", "fleet-operator", json!({})).await;
    let admin = api.user("adam", "administrator", json!({})).await;
    let force = json!({"revoke": true, "reason": "stolen laptop"});
    api.bearer(&operator).post("/api/fleet/agents/a/unenroll", force.clone()).await.refused(403);
    api.bearer(&admin).post("/api/fleet/agents/a/unenroll", force).await.ok();
    let found = api.get("/audit?action=action.create").await.ok()["items"][0].clone();
    assert_eq!((&found["reason"], &found["address"]), (&json!("stolen laptop"), &json!("192.0.2.7")));
    let adam = api.v1(Method::GET, "/users/adam", Value::Null).await.ok()["item"]["id"].clone();
    let token = api.v1(Method::GET, "/tokens?owner=adam", Value::Null).await.ok()["items"][0]["id"].clone();
    let actor = format!("user:{} token:{}", adam.as_str().unwrap(), token.as_str().unwrap());
    assert_eq!(found["actor"], actor);

    let headers = [("authorization", &*format!("ApiKey {admin}")), ("muster-reason", "ticket%20%C3%A4-1")];
    api.remote(&headers).post("/api/v1/spaces", json!({"id": "blue"})).await.ok();
    let found = api.get("/audit?action=space.create").await.ok()["items"][0].clone();
    assert_eq!((&found["reason"], &found["subject"]), (&json!("ticket ä-1"), &json!("space:blue")));
    let long = "x".repeat(501);
    let headers = [("authorization", &*format!("ApiKey {admin}")), ("muster-reason", &*long)];
    api.remote(&headers).post("/api/v1/spaces", json!({"id": "red"})).await.refused(400);
    // Neither passwords nor tokens get into the log.
    let log = api.get("/audit?perPage=1000").await.ok().to_string();
    assert!(!log.contains(PASSWORD) && !log.contains(&admin) && !log.contains("argon2"));
}

#[tokio::test]
async fn mg8_spaces_are_entered_by_those_who_have_a_role_there() {
    let api = Api::new();
    for id in ["blue", "red"] {
        api.v1(Method::POST, "/spaces", json!({"id": id})).await.ok();
    }
    let token = api.user("ann", "administrator", json!({"space": "blue"})).await;
    let ann = api.bearer(&token);
    ann.get("/s/blue/api/fleet/agents").await.ok();
    ann.post("/s/blue/api/fleet/agent_policies", json!({"name": "p", "namespace": "default"})).await.ok();
    for other in ["red", "unknown", "a.b"] {
        assert_eq!(ann.get(&format!("/s/{other}/api/fleet/agents")).await.refused(404)["code"], "not_found");
    }
    ann.get("/api/fleet/agents").await.refused(403);
    assert_eq!(column(&api.get("/agent_policies").await.ok(), "/name"), [""; 0], "in another space");
    api.v1(Method::DELETE, "/spaces/blue", Value::Null).await.refused(409);
    let session = ann.get("/s/blue/api/v1/session").await.ok()["item"].clone();
    assert_eq!((&session["user"]["name"], &session["space"]), (&json!("ann"), &json!("blue")));
    assert!(session["privileges"].as_array().unwrap().contains(&json!("policies.create")));
    assert!(!session["privileges"].as_array().unwrap().contains(&json!("users.read")), "{session}");
}

#[tokio::test]
async fn sessions_are_listed_with_their_last_use() {
    let api = Api::new();
    api.user("ann", "administrator", json!({})).await;
    let answer = api.remote(&[]).post("/api/v1/session", json!({"username": "ann", "password": PASSWORD})).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let of_ann = async || api.v1(Method::GET, "/users/ann/sessions", Value::Null).await.ok()["items"].clone();
    assert_eq!(of_ann().await[0].get("last_used_at"), None);
    let own = api.remote(&[("cookie", &cookie)]).get("/api/v1/sessions").await.ok()["items"].clone();
    assert_eq!(own.as_array().unwrap().len(), 1, "{own}");
    let used = of_ann().await;
    assert!(used[0]["last_used_at"].is_string() && used[0]["id"] == own[0]["id"], "{used}");
    // Minutes later, the use is written again.
    let again = async |seconds| {
        api.clock.advance(std::time::Duration::from_secs(seconds));
        api.remote(&[("cookie", &cookie)]).get("/api/v1/session").await.ok();
        of_ann().await[0]["last_used_at"].clone()
    };
    assert_eq!(again(299).await, used[0]["last_used_at"]);
    assert_ne!(again(1).await, used[0]["last_used_at"]);
    assert_eq!((&own[0]["address"], &used[0]["address"]), (&json!("192.0.2.7"), &json!("192.0.2.7")));
}

#[tokio::test]
async fn mg4_a_session_changes_something_only_from_a_page_of_this_server() {
    let api = Api::new();
    api.user("ann", "administrator", json!({})).await;
    let log_in = json!({"username": "ann", "password": PASSWORD});
    let answer = api.remote(&[]).post("/api/v1/session", log_in.clone()).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains("Secure"), "{cookie}");
    assert_eq!(answer.ok()["item"]["user"]["name"], "ann");
    let pair = cookie.split(';').next().unwrap();
    let page = |site: &'static str| api.remote(&[("cookie", pair), ("sec-fetch-site", site)]);
    api.remote(&[("cookie", pair)]).get("/api/fleet/agents").await.ok();
    let key = json!({"name": "k"});
    for bare in [api.remote(&[("cookie", pair)]), page("cross-site"), page("same-site"), page("none")] {
        assert_eq!(bare.post("/api/fleet/enrollment_api_keys", key.clone()).await.refused(403)["code"], "cross_site");
    }
    page("same-origin").post("/api/fleet/enrollment_api_keys", key.clone()).await.ok();
    let origin = [("cookie", pair), ("origin", "https://muster.example:8230"), ("host", "muster.example:8230")];
    api.remote(&origin).post("/api/fleet/enrollment_api_keys", json!({"name": "l"})).await.ok();
    api.remote(&[("sec-fetch-site", "cross-site")]).post("/api/v1/session", log_in).await.refused(403);
    page("same-origin").call(Method::DELETE, "/api/v1/session", None).await.ok();
    api.remote(&[("cookie", pair)]).get("/api/fleet/agents").await.refused(401);
}

#[tokio::test]
async fn a_setup_link_gives_a_password_without_other_credentials() {
    let api = Api::new();
    let token = api.fleet.setup().ensure_administrator().await.unwrap().unwrap();
    let nobody = api.remote(&[]);
    nobody.post("/api/v1/setup", json!({"token": "x", "password": PASSWORD})).await.refused(401);
    nobody.post("/api/v1/setup", json!({"token": token, "password": PASSWORD})).await.ok();
    nobody.post("/api/v1/setup", json!({"token": token, "password": PASSWORD})).await.refused(401);
    nobody.post("/api/v1/session", json!({"username": "admin", "password": PASSWORD})).await.ok();
    let link = api.v1(Method::POST, "/users/admin/setup_link", json!({})).await.ok()["item"].clone();
    assert!(link["token"].is_string() && link["expires_at"].is_string());
    // Somebody else cannot close or reopen the set-up.
    for path in ["/api/v1/setup/", "/API/v1/setup", "/api/v1/Setup", "/api/fleet/v1/setup"] {
        let answer = nobody.post(path, json!({"token": link["token"], "password": PASSWORD})).await;
        assert!(answer.status == 401 || answer.status == 404, "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn users_roles_and_bindings_are_managed() {
    let api = Api::new();
    let made =
        api.v1(Method::POST, "/users", json!({"name": "Ann", "full_name": "Ann Lee"})).await.ok()["item"].clone();
    assert_eq!((&made["name"], &made["has_password"], &made["kind"]), (&json!("ann"), &json!(false), &json!("person")));
    api.v1(Method::POST, "/users", json!({"name": "ANN"})).await.refused(409);
    api.v1(Method::POST, "/service_accounts", json!({"name": "ci", "password": PASSWORD})).await.refused(400);
    api.v1(Method::POST, "/service_accounts", json!({"name": "ci"})).await.ok();
    assert_eq!(column(&api.v1(Method::GET, "/users", Value::Null).await.ok(), "/name"), ["ann"]);
    assert_eq!(column(&api.v1(Method::GET, "/service_accounts", Value::Null).await.ok(), "/name"), ["ci"]);
    let role = json!({"name": "Reader", "privileges": ["agents.read"]});
    assert_eq!(api.v1(Method::POST, "/roles", role).await.ok()["item"]["id"], "reader");
    let unknown = api.v1(Method::POST, "/roles", json!({"name": "x", "privileges": ["a.b"]})).await.refused(400);
    assert_eq!(unknown["field"], "privileges");
    let roles = api.v1(Method::GET, "/roles", Value::Null).await.ok();
    assert_eq!(roles["items"].as_array().unwrap().len(), BuiltIn::ALL.len() + 1);
    let scope = json!({"user": "ann", "role": "reader", "space": "default", "tags": ["lab"]});
    let binding = api.v1(Method::POST, "/bindings", scope).await.ok()["item"].clone();
    assert_eq!((&binding["tags"], &binding["user"]), (&json!(["lab"]), &made["id"]));
    api.v1(Method::POST, "/bindings", json!({"user": "ann", "role": "nothing"})).await.refused(404);
    api.v1(Method::POST, "/bindings", json!({"user": "ann", "role": "reader", "tags": ["x"]})).await.refused(400);
    api.v1(Method::DELETE, "/roles/reader", Value::Null).await.refused(409);
    api.v1(Method::DELETE, &format!("/bindings/{}", binding["id"].as_str().unwrap()), Value::Null).await.ok();
    api.v1(Method::DELETE, "/roles/reader", Value::Null).await.ok();
    let locked = api.v1(Method::PUT, "/service_accounts/ci", json!({"locked": true})).await.ok();
    assert_eq!(locked["item"]["locked"], true);
    let last = api.v1(Method::DELETE, "/users/ann", Value::Null).await.refused(409);
    assert_eq!(last["code"], "last_administrator");
}

/// A caller with these privileges and no others.
async fn with_privileges(api: &Api, name: &str, privileges: Value) -> String {
    let role = json!({"name": name, "privileges": privileges});
    api.v1(Method::POST, "/roles", role).await.ok();
    api.user(name, name, json!({})).await
}

#[tokio::test]
async fn tamper_protection_needs_its_own_privilege() {
    let api = Api::new();
    let guarded = json!({"id": "guarded", "name": "guarded", "namespace": "default", "is_protected": true});
    api.post("/agent_policies", guarded).await.ok();
    api.post("/agent_policies", json!({"id": "open", "name": "open", "namespace": "default"})).await.ok();
    let all = json!(["policies.read", "policies.create", "policies.update"]);
    let token = with_privileges(&api, "author", all).await;
    let author = api.bearer(&token);
    let call = async |method: Method, path: &str, body: Value| {
        author.call(method, &format!("/api/fleet/agent_policies{path}"), Some(body)).await
    };
    let file = |text: &str| json!({"policy": text});
    for (method, path, body) in [
        (Method::POST, "", json!({"name": "new", "namespace": "default", "is_protected": true})),
        (Method::PUT, "/guarded", json!({"name": "guarded", "namespace": "default", "is_protected": false})),
        (Method::PUT, "/open", json!({"name": "open", "namespace": "default", "is_protected": true})),
        (Method::POST, "/guarded/copy", json!({"name": "copy"})),
        (Method::POST, "/_apply", file("name: guarded\nsettings: {is_protected: false}\n")),
        (Method::POST, "/_apply", file("name: new\nsettings: {is_protected: true}\n")),
    ] {
        let refused = call(method.clone(), path, body).await.refused(403);
        assert!(refused["message"].as_str().unwrap().contains("policies.protect"), "{method} {path}: {refused}");
    }
    // A rollback across the switch is a switch too.
    let off = json!({"name": "guarded", "namespace": "default", "is_protected": false});
    api.put("/agent_policies/guarded", off).await.ok();
    call(Method::POST, "/guarded/rollback", json!({"revision": 1})).await.refused(403);
    // What does not switch it needs nothing more.
    let body = json!({"name": "open", "namespace": "default", "description": "d", "is_protected": false});
    call(Method::PUT, "/open", body).await.ok();
    call(Method::POST, "/_apply", file("name: other\nsettings: {is_protected: false}\n")).await.ok();
    let last = api.fleet.store().audit_events(0, 10_000).await.unwrap();
    let mut details = last.iter().map(|(_, text, _)| serde_json::from_str::<Value>(text).unwrap());
    let update = details.find(|event| event["action"] == "policy.update").unwrap();
    assert_eq!(update["detail"]["before"], json!({"revision": 1, "is_protected": true}), "{update}");
    assert_eq!(update["detail"]["after"], json!({"revision": 2, "is_protected": false}), "{update}");
}

#[tokio::test]
async fn settings_of_agents_need_their_own_privilege() {
    let api = Api::new();
    api.agent("one", None).await;
    let settings = with_privileges(&api, "settler", json!(["agents.read", "agents.settings"])).await;
    let actions = with_privileges(&api, "actor", json!(["agents.read", "agents.actions"])).await;
    let (settings, actions) = (api.bearer(&settings), api.bearer(&actions));
    let level = json!({"action": {"type": "SETTINGS", "data": {"log_level": "debug"}}});
    let input = json!({"action": {"type": "INPUT_ACTION", "input_type": "osquery", "data": {}}});
    let many = |action: &Value| json!({"agents": ["one"], "action": action["action"]});
    let (one, bulk) = ("/api/fleet/agents/one/actions", "/api/fleet/agents/bulk_actions");
    settings.post(one, level.clone()).await.ok();
    settings.post(bulk, many(&level)).await.ok();
    actions.post(one, input.clone()).await.ok();
    for (path, body) in [(one, level.clone()), (bulk, many(&level))] {
        let refused = actions.post(path, body).await.refused(403);
        assert!(refused["message"].as_str().unwrap().contains("agents.settings"), "{refused}");
    }
    for (path, body) in [(one, input.clone()), (bulk, many(&input))] {
        let refused = settings.post(path, body).await.refused(403);
        assert!(refused["message"].as_str().unwrap().contains("agents.actions"), "{refused}");
    }
}

#[tokio::test]
async fn nobody_revokes_tokens_and_shrinks_roles_beyond_their_own_privileges() {
    let api = Api::new();
    api.user("root2", "administrator", json!({})).await;
    let of = async |owner: &str, privileges: Value| {
        let body = json!({"owner": owner, "name": "t", "privileges": privileges});
        let made = api.v1(Method::POST, "/tokens", body).await.ok()["item"].clone();
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    };
    let revoke = async |bearer: &str, id: &str| {
        api.bearer(bearer).call(Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await
    };
    let (wide, _) = of("root2", json!(["agents.read", "agents.tag"])).await;
    let (narrow, narrow_token) = of("root2", json!(["agents.read"])).await;
    let refused = revoke(&narrow_token, &wide).await.refused(403);
    assert!(refused["message"].as_str().unwrap().contains("agents.tag"), "{refused}");
    let manager =
        with_privileges(&api, "manager", json!(["users.read", "users.write", "roles.read", "roles.write"])).await;
    revoke(&manager, &wide).await.refused(403);
    api.v1(Method::POST, "/users", json!({"name": "bob", "password": PASSWORD})).await.ok();
    let (of_bob, _) = of("bob", json!(["agents.read"])).await;
    revoke(&manager, &of_bob).await.ok();
    revoke(&narrow_token, &narrow).await.ok();

    let role = json!({"name": "taggers", "privileges": ["users.read", "agents.tag"]});
    api.v1(Method::POST, "/roles", role).await.ok();
    let shrink = async |privileges: Value| {
        let body = json!({"name": "taggers", "privileges": privileges});
        api.bearer(&manager).call(Method::PUT, "/api/v1/roles/taggers", Some(body)).await
    };
    shrink(json!(["users.read"])).await.refused(403);
    shrink(json!(["agents.tag"])).await.ok();
}

#[tokio::test]
async fn bindings_resolve_the_names_of_policies_and_exist_once() {
    let api = Api::new();
    let id = api.policy("web").await;
    api.v1(Method::POST, "/users", json!({"name": "ann", "password": PASSWORD})).await.ok();
    let bind = async |policy: &str| {
        let body = json!({"user": "ann", "role": "upgrade-operator", "space": "default", "policies": [policy]});
        api.v1(Method::POST, "/bindings", body).await
    };
    assert_eq!(bind("web").await.ok()["item"]["policies"], json!([id]));
    assert_eq!(bind(&id).await.refused(409)["code"], "binding_exists");
    bind("nosuch").await.refused(404);
}

/// Status and body of a refused request are the same in a dry run.
#[tokio::test]
async fn a_dry_run_is_refused_as_the_request_itself() {
    let api = Api::new();
    let ann = api.v1(Method::POST, "/users", json!({"name": "ann"})).await.ok()["item"]["id"].clone();
    api.v1(Method::POST, "/users", json!({"name": "bea"})).await.ok();
    api.v1(Method::POST, "/spaces", json!({"id": "emea"})).await.ok();
    let admin = json!({"user": "ann", "role": "administrator"});
    let binding = api.v1(Method::POST, "/bindings", admin).await.ok()["item"]["id"].clone();
    let binding = format!("/bindings/{}", binding.as_str().unwrap());
    let id = ann.as_str().unwrap();
    for (method, path, body) in [
        (Method::DELETE, "/users/ann", Value::Null),
        (Method::PUT, "/users/ann", json!({"locked": true})),
        (Method::DELETE, binding.as_str(), Value::Null),
        (Method::POST, "/users", json!({"name": "bea"})),
        (Method::POST, "/spaces", json!({"id": "emea"})),
    ] {
        let dry = api.v1(method.clone(), &format!("{path}?dryRun=true"), body.clone()).await.refused(409);
        assert_eq!(dry, api.v1(method, path, body).await.refused(409), "{path}");
    }
    assert_eq!(api.v1(Method::GET, "/users/ann", Value::Null).await.ok()["item"]["id"], id);
    for name in ["web", "db"] {
        api.post("/agent_policies", json!({"id": name, "name": name, "namespace": "default"})).await.ok();
    }
    let taken = json!({"name": "web", "namespace": "default"});
    let dry = api.post("/agent_policies?dryRun=true", taken.clone()).await.refused(409);
    assert_eq!(dry, api.post("/agent_policies", taken.clone()).await.refused(409));
    let dry = api.put("/agent_policies/db?dryRun=true", taken.clone()).await.refused(409);
    assert_eq!(dry, api.put("/agent_policies/db", taken).await.refused(409));
    // One that would be carried out changes nothing.
    api.v1(Method::POST, "/users?dryRun=true", json!({"name": "cleo"})).await.ok();
    api.v1(Method::POST, "/users", json!({"name": "cleo"})).await.ok();
}

#[tokio::test]
async fn a_misspelt_query_parameter_is_refused() {
    let api = Api::new();
    for (path, field, near) in [
        ("/agent_policies?dryrun=true", "dryrun", "did you mean `dryRun`?"),
        ("/agent_policies?dry_run=true", "dry_run", "did you mean `dryRun`?"),
        ("/agent_policies?zzz=1", "zzz", "the parameters of this request are"),
    ] {
        let refused = api.post(path, json!({"name": "web", "namespace": "default"})).await.refused(400);
        assert_eq!(refused["field"], field);
        assert!(refused["remedy"].as_str().unwrap().contains(near), "{refused}");
    }
    assert_eq!(api.get("/agent_policies").await.ok()["total"], 0, "none was created");
    let refused = api.get("/agents?kueri=status:offline").await.refused(400);
    assert_eq!((&refused["field"], &refused["remedy"]), (&json!("kueri"), &json!("did you mean `kuery`?")));
    assert_eq!(api.get("/agents?per_page=5").await.refused(400)["field"], "per_page");
    for own in ["/hosts?os=linux", "/labels?perPage=2", "/packs?page=2", "/software?pge=2"] {
        let refused = api.get(own).await.refused(400);
        assert!(refused["message"].as_str().unwrap().contains("unknown query parameter"), "{own}: {refused}");
    }
    // What Kibana's clients send has no effect, but is no error.
    api.get("/agents?kuery=&policyIds[]=x&showAgentless=true&_=1").await.ok();
    api.post("/agent_policies?sys_monitoring=false", json!({"name": "web", "namespace": "default"})).await.ok();
    let refused = api.get("/agents?perPage=abc").await.refused(400);
    assert_eq!(refused["message"], "perPage: invalid digit found in string");
    assert_eq!(refused["field"], "perPage");
    let refused = api.post("/agent_policies?dryRun=yes", json!({})).await.refused(400);
    assert_eq!(refused["field"], "dryRun");
}

#[tokio::test]
async fn refusals_are_listed_for_those_who_may_see_them() {
    let api = Api::new();
    api.bearer("aWQ6c2VjcmV0").get("/api/fleet/agents").await.refused(401);
    let grant =
        muster_core::authorization::OpContext::with_only::<RefusalsRead>(muster_core::authorization::Actor::System);
    let rows = api.fleet.refusals().list(&grant.grant().unwrap());
    assert_eq!((rows.len(), rows[0].refused.status, rows[0].refused.address.as_str()), (1, 401, "192.0.2.7"));
}

#[tokio::test]
async fn a_service_token_reads_policies_and_enrollment_tokens_and_nothing_else() {
    let api = Api::new();
    let policy = api.policy("web").await;
    api.post("/enrollment_api_keys", json!({"name": "k", "policy_id": policy})).await.ok();
    let made = api.post("/service_tokens", json!({"remote": false})).await.ok();
    assert!(made["name"].as_str().unwrap().starts_with("token-"), "{made}");
    api.post("/service-tokens", json!({})).await.ok();
    let tool = api.bearer(made["value"].as_str().unwrap());
    let keys = tool.get("/api/fleet/enrollment_api_keys").await.ok();
    assert!(keys["items"][0]["api_key"].is_string(), "{keys}");
    tool.get(&format!("/api/fleet/agent_policies/{policy}")).await.ok();
    for path in ["/api/fleet/agents", "/api/fleet/outputs", "/api/v1/users", "/api/fleet/uninstall_tokens"] {
        tool.get(path).await.refused(403);
    }
    tool.post("/api/fleet/agent_policies", json!({"name": "x", "namespace": "default"})).await.refused(403);
    tool.post("/api/fleet/enrollment_api_keys", json!({"name": "x"})).await.refused(403);
    let accounts = api.v1(Method::GET, "/service_accounts", Value::Null).await.ok();
    assert_eq!(column(&accounts, "/name"), ["fleet-server"], "one account for both tokens");

    // Of another space, it is another account; and nobody creates one with rights that they lack.
    api.v1(Method::POST, "/spaces", json!({"id": "blue"})).await.ok();
    let blue = api.user("bob", "token-issuer", json!({"space": "blue"})).await;
    let made = api.bearer(&blue).post("/s/blue/api/fleet/service_tokens", json!({})).await.ok();
    let in_blue = api.bearer(made["value"].as_str().unwrap());
    in_blue.get("/s/blue/api/fleet/enrollment_api_keys").await.ok();
    in_blue.get("/api/fleet/enrollment_api_keys").await.refused(403);
    let part = api.user("eve", "token-issuer", json!({"space": "default", "policies": [policy]})).await;
    let refused = api.bearer(&part).post("/api/fleet/service_tokens", json!({})).await.refused(403);
    assert_eq!(refused["code"], "escalation");
    api.v1(Method::POST, "/spaces", json!({"id": "red"})).await.ok();
    api.v1(Method::POST, "/users", json!({"name": "fleet-server-red"})).await.ok();
    let path = "/s/red/api/fleet/service_tokens";
    let request = Request::builder().method(Method::POST).uri(path).extension(crate::support::administrator());
    api.send(request.body(Body::from("{}")).unwrap()).await.refused(409);
}

/// The two ways in which versions of the container command look for a key, as requests with a service token. No container
/// command runs here, and nothing enrolls with the key.
#[tokio::test]
async fn mg176_the_container_command_finds_an_enrollment_token_by_the_name_of_a_policy() {
    let api = Api::new();
    let policy = api.policy("web servers").await;
    api.post("/enrollment_api_keys", json!({"name": "Default", "policy_id": policy})).await.ok();
    let made = api.post("/service_tokens", json!({})).await.ok();
    let tool = api.bearer(made["value"].as_str().unwrap());
    let named = |list: &Value, field: &str, value: &str| {
        let found = list["items"].as_array().unwrap().iter().find(|row| row[field] == value).cloned();
        found.unwrap_or_else(|| panic!("no {value}: {list}"))
    };
    let key_of = async |policies: &str, keys: &str| {
        let found = named(&tool.get(policies).await.ok(), "name", "web servers");
        assert_eq!(found["id"], json!(policy));
        let keys = tool.get(&keys.replace("ID", &policy)).await.ok();
        // A name may end with an id in parentheses, which the command ignores (MG78).
        let key = keys["items"].as_array().unwrap().iter().find(|key| {
            key["policy_id"] == json!(policy) && key["name"].as_str().unwrap().split(" (").next() == Some("Default")
        });
        let path = format!("/api/fleet/enrollment_api_keys/{}", key.unwrap()["id"].as_str().unwrap());
        tool.get(&path).await.ok()["item"]["api_key"].as_str().unwrap().to_owned()
    };
    let older = key_of("/api/fleet/agent_policies", "/api/fleet/enrollment_api_keys").await;
    let newer = key_of(
        "/api/fleet/agent_policies?kuery=name:%20%22web%20servers%22",
        "/api/fleet/enrollment_api_keys?perPage=10000&kuery=active:%20true%20and%20policy_id:%20%22ID%22",
    );
    assert_eq!(older, newer.await);
}

#[tokio::test]
async fn totals_of_rollouts_count_those_that_the_caller_may_read() {
    let api = Api::new();
    for name in ["web", "db"] {
        let policy = api.policy(name).await;
        api.agent(&format!("agent-{name}"), Some(&policy)).await;
        let plan = json!({"waves": [{"percent": 50}, {"percent": 100}]});
        let outputs = "{default: {type: elasticsearch, hosts: ['https://es:9200'], api_key: 'a:b'}}";
        let file = format!("name: {name}\nconfig: {{outputs: {outputs}, inputs: [{{id: i, type: filestream}}]}}\n");
        api.post("/agent_policies/_apply", json!({"policy": file, "rollout": plan})).await.ok();
    }
    api.v1(Method::POST, "/service_accounts", json!({"name": "operator"})).await.ok();
    let bound = json!({"user": "operator", "role": "auditor", "space": "default", "policies": ["web"]});
    let made = api.v1(Method::POST, "/bindings", bound).await.ok()["item"].clone();
    let without: Vec<&str> = made["without_effect"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(without.contains(&"audit.read") && without.contains(&"outputs.read"), "{made}");
    assert!(!without.contains(&"policies.read") && !without.contains(&"agents.read"), "{made}");
    let token = api.v1(Method::POST, "/tokens", json!({"owner": "operator"})).await.ok()["item"].clone();
    let peer = Peer { address: Some("192.0.2.1:50000".parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
    let request = Request::builder().uri("/api/fleet/rollouts").extension(peer);
    let request = request.header("authorization", format!("ApiKey {}", token["token"].as_str().unwrap()));
    let listed = api.send(request.body(Body::empty()).unwrap()).await.ok();
    assert_eq!((&listed["total"], listed["items"].as_array().unwrap().len()), (&json!(1), 1), "{listed}");
    assert_eq!(api.get("/rollouts").await.ok()["total"], 2);
}
