//! What a connection names besides devices: a subject may have so many gateways and queues.

use std::sync::Arc;

use tokio::sync::oneshot;
use valtronics_protocol::{
    close::CloseCode,
    error::ErrorCode,
    format::Format,
    uplink::{ServerMessage, Welcome},
};

use super::{End, Uplink, stopping};
use crate::{
    engine::{AdmitGateway, Input, TooManyNames},
    message::to_message,
};

/// When one whose subject has too many names may come again: nothing changes soon.
const FULL_SECONDS: u64 = 600;

impl Uplink {
    /// Asks whether a gateway may connect.
    pub(super) async fn admit_gateway(
        &self,
        sub: &Arc<str>,
        name: &Arc<str>,
        most: usize,
    ) -> Result<Result<(), TooManyNames>, End> {
        let (answer, admitted) = oneshot::channel();
        let (sub, name) = (Arc::clone(sub), Arc::clone(name));
        let request = Input::AdmitGateway(AdmitGateway { sub, name, most, answer });
        self.shared.engine.send(request).await.map_err(|_| stopping())?;
        admitted.await.map_err(|_| stopping())
    }

    /// Answers one that brings too many names.
    pub(super) async fn refuse(&mut self, full: TooManyNames) -> End {
        let refusal = ServerMessage::AuthResponse(Welcome {
            error: Some(ErrorCode::ConnectionLimit),
            message: Some(full.to_string()),
            retry_after: Some(FULL_SECONDS),
            ..Welcome::default()
        });
        match self.socket.send(to_message(&refusal, Format::Json)).await {
            Ok(()) => End::Close(CloseCode::Limited, format!("{full}; retry_after={FULL_SECONDS}")),
            Err(broken) => broken.into(),
        }
    }
}
