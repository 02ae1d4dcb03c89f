//! The description of the HTTP API says what the server does: its paths, and the shapes of answers.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::server::Server;

/// Paths of WebSocket, which are described elsewhere.
const NOT_HTTP: [&str; 3] = ["/ws", "/ws/{channel}", "/uplink"];

async fn description(server: &Server) -> Json {
    let (status, body) = server.raw("GET", "/api/v1/openapi.json", "", "").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

/// Every method of every path that is described.
fn described(description: &Json) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        found.extend(methods.map(|method| (path.clone(), method.clone())));
    }
    found
}

/// Every method of every path that the router knows.
fn routed() -> BTreeSet<(String, String)> {
    let router = include_str!("../../src/http.rs");
    let mut found = BTreeSet::new();
    for route in router.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').unwrap();
        let methods = rest.lines().next().unwrap();
        for method in ["get", "put", "post", "delete", "patch"] {
            if methods.contains(&format!("{method}(")) && !NOT_HTTP.contains(&path) {
                found.insert((path.to_owned(), method.to_owned()));
            }
        }
    }
    found
}

/// Follows a reference.
fn resolved<'a>(description: &'a Json, schema: &'a Json) -> &'a Json {
    match schema.get("$ref").and_then(Json::as_str) {
        Some(path) => description.pointer(path.strip_prefix('#').unwrap()).expect(path),
        None => schema,
    }
}

fn is_a(kind: &str, value: &Json) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    }
}

/// Checks a value against a schema: the words of JSON Schema that the description uses, and
/// besides that nothing is there of which it does not tell. Returns what is wrong.
fn check(description: &Json, schema: &Json, value: &Json) -> Result<(), String> {
    let schema = resolved(description, schema);
    let wrong = |why: &str| Err(format!("{why}: {value} by {schema}"));
    let all = |schemas: &Json| -> Vec<Result<(), String>> {
        let schemas = schemas.as_array().unwrap().iter();
        schemas.map(|schema| check(description, schema, value)).collect()
    };
    for (word, says) in schema.as_object().unwrap() {
        match word.as_str() {
            "type" => {
                let kinds = says.as_array().cloned().unwrap_or_else(|| vec![says.clone()]);
                if !kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), value)) {
                    return wrong("another type");
                }
            }
            "enum" if !says.as_array().unwrap().contains(value) => return wrong("another word"),
            "anyOf" if !all(says).iter().any(Result::is_ok) => return wrong("none of them"),
            "allOf" => all(says).into_iter().collect::<Result<(), _>>()?,
            "required" => {
                for key in says.as_array().unwrap() {
                    if value.get(key.as_str().unwrap()).is_none() {
                        return wrong(&format!("{key} is missing"));
                    }
                }
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let Some(schema) = says.get(key) else {
                        return wrong(&format!("{key} is not described"));
                    };
                    check(description, schema, value)?;
                }
            }
            "additionalProperties" => {
                for value in value.as_object().into_iter().flat_map(|map| map.values()) {
                    check(description, says, value)?;
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(description, says, item)?;
                }
            }
            "enum" | "anyOf" | "description" | "default" | "format" | "minLength" | "maxLength"
            | "minimum" | "maximum" => {}
            other => panic!("the check does not know {other}"),
        }
    }
    Ok(())
}

/// Sends a request, and checks that it is answered as the description says; returns the answer.
async fn ask(
    server: &Server,
    description: &Json,
    (method, template): (&str, &str),
    (path, token, body): (&str, &str, &str),
) -> (u16, Json) {
    let headers = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    let (head, body) = server.exchange(&method.to_uppercase(), path, &headers, body).await;
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let responses = &description["paths"][template][method]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let response = resolved(description, response);
    let kind = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    let Some(content) = response.get("content").and_then(Json::as_object) else {
        assert!(body.is_empty(), "{method} {path}: {body}");
        return (status, Json::Null);
    };
    let (described, schema) = content.iter().next().unwrap();
    assert!(kind.unwrap().starts_with(described.as_str()), "{method} {path}: {head}");
    let value = match described.as_str() {
        "text/plain" => Json::from(body),
        _ => serde_json::from_str(&body).unwrap(),
    };
    check(description, &schema["schema"], &value).unwrap_or_else(|why| panic!("{path}: {why}"));
    (status, value)
}

#[tokio::test]
async fn every_path_is_described() {
    let server = Server::start().await;
    let description = description(&server).await;
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(described(&description), routed());
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters")
        {
            let parameters = [&item["parameters"], &operation["parameters"]];
            let parameters = parameters.into_iter().filter_map(Json::as_array).flatten();
            let parameters = parameters.map(|parameter| resolved(&description, parameter));
            let of_path = parameters.filter(|parameter| parameter["in"] == "path");
            let named = of_path
                .filter(|one| path.contains(&format!("{{{}}}", one["name"].as_str().unwrap())));
            assert_eq!(named.count(), path.matches('{').count(), "{method} {path}");
        }
    }
}

/// Requests in their order: method, path, the status that is expected, body.
const REQUESTS: &str = r#"
    put /api/v1/rules/hot 200 {"metric":"t","kind":"threshold","steps":[{"above":30,"severity":"warning"}]}
    put /api/v1/rules/in 200 {"metric":"t","kind":"threshold","inside":[1,2],"for":"1m"}
    put /api/v1/rules/bad 422 {}
    post /api/v1/telemetry 202 {"device":"b","readings":[{"metric":"t","value":31,"unit":"C"},{"metric":"door","value":"open"}]}
    post /api/v1/telemetry 400 {
    get /healthz 200
    get /readyz 200
    get /metrics 200
    get /api/v1/openapi.json 200
    get /api/v1/devices 200
    get /api/v1/devices/1 200
    get /api/v1/devices/9 404
    get /api/v1/devices/1/telemetry?metric=t 200
    get /api/v1/devices/1/telemetry?metric=t&step=1s 200
    get /api/v1/devices/1/telemetry?metric=door&step=1s 200
    get /api/v1/devices/1/telemetry?metric=t&from=x 422
    get /api/v1/alerts?limit=1 200
    get /api/v1/alerts?from=x 422
    post /api/v1/alerts/1/acknowledge 200
    post /api/v1/alerts/1/shelve 200 {"until":"2999-01-01T00:00:00Z"}
    post /api/v1/alerts/1/resolve 200
    post /api/v1/alerts/1/acknowledge 409
    get /api/v1/rules 200
    get /api/v1/rules/in 200
    delete /api/v1/rules/in 204
    delete /api/v1/rules/in 404
    get /api/v1/agents 200
    get /api/v1/connections 200
    put /api/v1/connections/ID/log 200 {"level":"debug","for":"1s"}
"#;

/// Finds the described path of a request's.
fn template<'a>(description: &'a Json, path: &str) -> &'a str {
    let path = path.split('?').next().unwrap();
    let fits = |template: &&str| {
        let mut segments = template.split('/').zip(path.split('/'));
        let same = segments.all(|(of, is)| of == is || of.starts_with('{'));
        same && template.matches('/').count() == path.matches('/').count()
    };
    let templates = description["paths"].as_object().unwrap().keys().map(String::as_str);
    templates.filter(fits).min_by_key(|template| template.matches('{').count()).unwrap()
}

#[tokio::test]
async fn every_answer_is_as_it_is_described() {
    let server = Server::start().await;
    let description = description(&server).await;
    let token = server.token("ops", Some("admin uplink"), None).await;
    // A connection and an agent to be listed.
    let _client = server.subscriber().await;
    let _agent = server.agent("site", Some("q")).await;
    let (_, listed) = server.http("GET", "/api/v1/connections", &token, "").await;
    let listed: Json = serde_json::from_str(&listed).unwrap();
    let connection = listed["connections"][0]["id"].to_string();
    let mut asked = BTreeSet::new();
    for line in REQUESTS.trim().lines() {
        let mut parts = line.trim().splitn(4, ' ');
        let [method, path, expected] = [(); 3].map(|()| parts.next().unwrap());
        let path = path.replace("ID", &connection);
        let of = template(&description, &path);
        let request = (&*path, &*token, parts.next().unwrap_or_default());
        let (status, value) = ask(&server, &description, (method, of), request).await;
        assert_eq!(status.to_string(), expected, "{line}: {value}");
        asked.insert((of.to_owned(), method.to_owned()));
    }
    assert_eq!(asked, described(&description), "every one is asked");
    // Without a token there is an answer of the same shape, or none is needed.
    for (path, method) in described(&description) {
        let (status, _) = ask(&server, &description, (&method, &path), (&path, "x", "")).await;
        let item = &description["paths"][&path][&method];
        let is_open = item["security"] == json!([]) || path == "/metrics";
        assert_eq!(status, if is_open { 200 } else { 401 }, "{method} {path}");
    }
}
