//! The handshake of WebSocket connections (RFC 6455, section 4.2): every refusal is an HTTP answer.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value as Json};
use valtronics_protocol::{
    filter::{self, Channel},
    format::Format,
    request::Subscribe,
    uplink::{MAX_FRAME_BYTES, SUBPROTOCOL_AGENT, SUBPROTOCOL_JSON},
};

use super::{Api, Peer, auth::bearer, cors::check_origin, error::ApiError, extract::Read};
use crate::{
    clock,
    limits::Refused,
    monitor::Role,
    outbox::Outbox,
    session::{Entry, MAX_UNAUTHENTICATED_BYTES, Opened, Session},
    socket::{Socket, accept_key},
    stream::Stream,
    uplink::{Dialect, Uplink},
};

/// Notes who was not let in, whatever the reason.
pub(super) async fn note_refusal(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let reason = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => return response,
        StatusCode::FORBIDDEN => "origin",
        StatusCode::NOT_FOUND => "path",
        StatusCode::UPGRADE_REQUIRED => "not_websocket",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        StatusCode::SERVICE_UNAVAILABLE => "connection_limit",
        _ => "malformed",
    };
    api.gate.monitor.refusals.handshake(peer.0, reason);
    response
}

pub(super) async fn all_channels(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    if query.is_some_and(|query| !query.is_empty()) {
        let why = "/ws takes no query: subscribe by messages, send the token by auth";
        return Err(ApiError::bad_request(why));
    }
    subscriber(&api, peer, None, request)
}

pub(super) async fn one_channel(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Read(Path(channel)): Read<Path<String>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let channel = Channel::from_name(&channel).ok_or_else(|| ApiError::not_found("path"))?;
    let wanted = read_query(channel, query.as_deref().unwrap_or_default())?;
    let (filters, options) = filter::parse(channel, &wanted)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    subscriber(&api, peer, Some(Subscribe { channel, filters, options }), request)
}

/// Reads a query as the keys of a `subscribe`: a comma separates values, `%2C` is a comma in a
/// name, a key given twice adds.
fn read_query(channel: Channel, query: &str) -> Result<Map<String, Json>, ApiError> {
    let mut wanted = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, values) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key)?;
        let mut read = Vec::new();
        for value in values.split(',') {
            let value = decode(value)?;
            if value.is_empty() {
                return Err(ApiError::bad_request(format!("{key} has an empty value")));
            }
            read.push(match &*key {
                // Whole numbers are written as such, without a sign; the rest the filter refuses.
                "device_id" | "since" => {
                    let number = value.parse::<u64>().ok().filter(|_| !value.starts_with('+'));
                    number.map_or_else(|| Json::from(&*value), Json::from)
                }
                "snapshot" | "historical" | "batch" => {
                    value.parse::<bool>().map_or_else(|_| Json::from(&*value), Json::from)
                }
                _ => Json::from(value),
            });
        }
        let many = ["device_id", "metrics", "severity", "alert_type", "status_types"];
        if many.contains(&&*key) {
            let known = wanted.entry(key).or_insert_with(|| Json::Array(Vec::new()));
            if let Json::Array(known) = known {
                known.extend(read);
            }
        } else if read.len() == 1 && !wanted.contains_key(&key) {
            wanted.extend(read.pop().map(|value| (key, value)));
        } else {
            return Err(ApiError::bad_request(format!("{key} takes one value")));
        }
    }
    for key in ["type", "channel", "id", "filters"] {
        if wanted.contains_key(key) {
            return Err(ApiError::bad_request(format!("{key} is no key of {channel}")));
        }
    }
    Ok(wanted)
}

/// Decodes the percent signs of a query (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, ApiError> {
    let bad = || ApiError::bad_request("the query is not well encoded");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
                u8::try_from(high * 16 + low).map_err(|_| bad())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn subscriber(
    api: &Api,
    peer: Peer,
    endpoint: Option<Subscribe>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = websocket_key(request.headers())?;
    check_origin(api, request.headers())?;
    let offered = offered_protocols(request.headers());
    // Of several the client likes the first best (RFC 6455, section 4.1).
    let chosen = offered.iter().find_map(|name| Format::of_subprotocol(name));
    if chosen.is_none() && !offered.is_empty() {
        return Err(unknown_protocol(&Format::ALL.map(Format::subprotocol).join(" and ")));
    }
    let format = chosen.unwrap_or_default();
    let welcome = api.gate.admission().may_subscribe(peer.0, clock::instant());
    welcome.map_err(refuse)?;
    let token = bearer(request.headers()).map(str::to_owned);
    let (api, id) = (api.clone(), api.new_session());
    let serve = {
        let api = api.clone();
        move |stream, already_read: Vec<u8>, entry| async move {
            let outbox = Arc::new(Outbox::new(format));
            let role = Role::Subscriber(Arc::clone(&outbox));
            let watched = api.gate.monitor.register(id, peer.0, role);
            let socket = Socket::new(stream, &already_read, MAX_UNAUTHENTICATED_BYTES, watched);
            let opened = Opened { id, entry, socket, outbox, address: peer.0, endpoint, token };
            let session = Session::new(opened, Arc::clone(&api.gate), api.engine.commands());
            // A task keeps the size of its largest state: the session gets one of its own.
            api.connections.spawn(session.run());
        }
    };
    switch(&api, peer, request, &key, chosen.map(Format::subprotocol), serve)
}

pub(super) async fn uplink(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    if query.is_some_and(|query| !query.is_empty()) {
        let why = "/uplink takes no query: send the token by auth";
        return Err(ApiError::bad_request(why));
    }
    let key = websocket_key(request.headers())?;
    check_origin(&api, request.headers())?;
    let offered = offered_protocols(request.headers());
    let has = |name: &str| offered.iter().any(|offered| offered == name);
    let (dialect, protocol) = match () {
        () if has(SUBPROTOCOL_AGENT) => (Dialect::Agent, Some(SUBPROTOCOL_AGENT)),
        () if has(SUBPROTOCOL_JSON) => (Dialect::Json, Some(SUBPROTOCOL_JSON)),
        () if offered.is_empty() => (Dialect::Json, None),
        () => return Err(unknown_protocol(SUBPROTOCOL_JSON)),
    };
    let token = bearer(request.headers()).map(str::to_owned);
    let (api, id) = (api.clone(), api.new_session());
    let serve = {
        let api = api.clone();
        move |stream, already_read: Vec<u8>, entry| async move {
            let watched = api.gate.monitor.register(id, peer.0, Role::Uplink);
            let socket = Socket::new(stream, &already_read, MAX_FRAME_BYTES, watched);
            let uplink = Uplink::new(socket, entry, peer.0, dialect, Arc::clone(&api.uplinks));
            api.connections.spawn(uplink.run(token));
        }
    };
    switch(&api, peer, request, &key, protocol, serve)
}

/// Answers a handshake that comes too soon.
fn refuse(refused: Refused) -> ApiError {
    let status =
        StatusCode::from_u16(refused.http_status()).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    ApiError::new(status, refused.to_string()).retry_after(refused.retry_after_seconds())
}

fn unknown_protocol(known: &str) -> ApiError {
    ApiError::bad_request(format!("of the subprotocols the server knows {known} here, or none"))
}

/// Checks that a request asks for the upgrade; returns its key.
fn websocket_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let lists = |name, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        let why = "this path speaks WebSocket: connect with ws:// or wss://";
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, why));
    }
    if !lists(header::SEC_WEBSOCKET_VERSION, "13") {
        let why = "Sec-WebSocket-Version is 13";
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, why));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    // 16 bytes in Base64.
    let good = |key: &&str| {
        let body = key.strip_suffix("==").unwrap_or_default();
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        body.len() == 22 && body.bytes().all(base64)
    };
    let key = key.filter(good).map(str::to_owned);
    key.ok_or_else(|| ApiError::bad_request("Sec-WebSocket-Key is 16 bytes in Base64"))
}

fn offered_protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// Counts the connection in, answers 101, and serves it when it has changed hands.
fn switch<F>(
    api: &Api,
    peer: Peer,
    mut request: Request,
    key: &str,
    protocol: Option<&'static str>,
    serve: impl FnOnce(Stream, Vec<u8>, Entry) -> F + Send + 'static,
) -> Result<Response, ApiError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("HTTP/1.1 is needed to upgrade"))?;
    let entry = Entry::new(Arc::clone(&api.gate), peer.0, clock::instant()).map_err(refuse)?;
    api.connections.spawn(async move {
        let upgraded = upgrade
            .await
            .ok()
            .and_then(|upgraded: Upgraded| upgraded.downcast::<TokioIo<Stream>>().ok());
        if let Some(Parts { io, read_buf, .. }) = upgraded {
            serve(io.into_inner(), read_buf.to_vec(), entry).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = accept_key(key.as_bytes());
    let accept = accept.parse().map_err(|_| ApiError::bad_request("Sec-WebSocket-Key is odd"))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_static(protocol);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}
