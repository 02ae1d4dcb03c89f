//! How a connection begins: who asks, what the server says of it, and what time it is there.

use std::time::Duration;

use futures_util::StreamExt;
use tracing::warn;
use valtronics_protocol::{
    error::ErrorCode,
    time::UnixMillis,
    uplink::{AgentMessage, Auth, Gateway, ServerMessage, Welcome},
};

use super::{Config, End, connection::parse, end::names_queue};
use crate::{
    clock,
    dial::WebSocket,
    queue::{keeper::Handle, timeline::Start},
};

/// Introduces the agent, with the token that the file holds now.
pub(super) async fn auth(
    config: &Config,
    gateway: &Gateway,
    queue: &Handle,
) -> Result<AgentMessage, End> {
    let path = config.token_file.get_ref();
    let token = std::fs::read_to_string(path)
        .map_err(|error| End::TokenFile(path.display().to_string(), error))?;
    Ok(AgentMessage::Auth(Auth {
        token: token.trim().into(),
        queue: Some(queue.id().await?),
        gateway: Some(Gateway { time: clock::now(), ..gateway.clone() }),
    }))
}

/// Learns from the server's clock when this machine started; the answer took `round_trip`.
pub(super) async fn settle_clock(
    queue: &Handle,
    time: UnixMillis,
    round_trip: Duration,
) -> Result<(), End> {
    let start = Start::reckon(time, round_trip, clock::since_boot());
    if let Some(off_by_ms) = queue.settle_clock(start).await? {
        warn!(off_by_ms, "the clock of this machine is wrong: its timestamps are corrected");
    }
    Ok(())
}

/// Reads until the server has answered the authentication.
pub(super) async fn welcome(socket: &mut WebSocket) -> Result<Welcome, End> {
    while let Some(message) = socket.next().await {
        if let Some(ServerMessage::AuthResponse(welcome)) = parse(message?)? {
            return accepted(welcome);
        }
    }
    Err(End::Lost("the server has closed it".into()))
}

/// Takes a welcome, or says what a refusal asks for.
pub(super) fn accepted(welcome: Welcome) -> Result<Welcome, End> {
    if welcome.success {
        return Ok(welcome);
    }
    let why = [welcome.message, welcome.reason].into_iter().flatten().next();
    let why = why.unwrap_or_else(|| "no reason given".into());
    match (welcome.error, welcome.retry_after) {
        (Some(ErrorCode::RateLimited | ErrorCode::ConnectionLimit), seconds)
        | (None, seconds @ Some(_)) => Err(End::Limited(Duration::from_secs(seconds.unwrap_or(0)))),
        (Some(ErrorCode::Forbidden), _) if names_queue(&why) => Err(End::QueueTaken(why)),
        _ => Err(End::Refused(why)),
    }
}
