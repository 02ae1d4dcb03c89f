//! What a connection names besides devices: a subject may have so many gateways and queues, and a
//! queue belongs to one machine.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use valtronics_protocol::{
    close::CloseCode,
    error::ErrorCode,
    format::Format,
    uplink::{Ack, ServerMessage, Welcome},
};

use super::{Admitted, End, Uplink, frames::Hello, stopping};
use crate::{
    auth::Claims,
    engine::{AdmitGateway, Input, NotOpened, OpenRequest, Opened, TooManyNames},
    message::to_message,
};

/// When one whose subject has too many names may come again: nothing changes soon.
const FULL_SECONDS: u64 = 600;

impl Uplink {
    /// Opens what the connection names: its gateway and its numbering.
    pub(super) async fn open(
        &mut self,
        claims: Claims,
        hello: &Hello,
    ) -> Result<Result<Admitted, NotOpened>, End> {
        let address = self.address;
        let (most_queues, most_gateways) = self.shared.gate.admission().names_per_sub();
        let gateway: Option<Arc<str>> =
            hello.gateway.as_ref().map(|gateway| gateway.name.as_str().into());
        if let Some(name) = &gateway
            && let Err(full) = self.admit_gateway(&claims.sub, name, most_gateways).await?
        {
            return Ok(Err(full.into()));
        }
        let (_never, taken_over) = watch::channel(false);
        let Some(queue) = &hello.queue else {
            let (queue, accepted) = (None, Ack::default());
            let progress = Arc::new(watch::Sender::new(Ack::default()));
            let told = accepted;
            return Ok(Ok(Admitted {
                address,
                claims,
                gateway,
                queue,
                accepted,
                told,
                progress,
                taken_over,
            }));
        };
        let (answer, opened) = oneshot::channel();
        let (sub, queue) = (Arc::clone(&claims.sub), queue.as_str().into());
        let machine = hello.gateway.as_ref().map(|gateway| gateway.machine_id.as_str());
        let machine = machine.filter(|id| !id.is_empty()).map(Arc::from);
        let request = OpenRequest { sub, queue, machine, most: most_queues, answer };
        let request = Input::OpenQueue(request);
        self.shared.engine.send(request).await.map_err(|_| stopping())?;
        let opened = opened.await.map_err(|_| stopping())?;
        Ok(opened.map(|Opened { queue, accepted, progress, taken_over }| {
            let (queue, told) = (Some(queue), *progress.borrow());
            Admitted { address, claims, gateway, queue, accepted, told, progress, taken_over }
        }))
    }

    /// Asks whether a gateway may connect.
    async fn admit_gateway(
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

    /// Answers one whose queue is another machine's.
    pub(super) async fn refuse_copy(&mut self, copied: NotOpened) -> End {
        let refusal = ServerMessage::AuthResponse(Welcome {
            error: Some(ErrorCode::Forbidden),
            message: Some(copied.to_string()),
            ..Welcome::default()
        });
        match self.socket.send(to_message(&refusal, Format::Json)).await {
            Ok(()) => End::Close(CloseCode::Forbidden, copied.to_string()),
            Err(broken) => broken.into(),
        }
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
