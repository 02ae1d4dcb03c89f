//! Waiting until what was asked of the engine is durable.

use std::sync::Arc;

use tokio::sync::watch;
use valtronics_protocol::uplink::Ack;

use crate::{engine::EngineGone, ingest::Ticket};

/// What a ticket of a single request reaches.
const REACHED: Ack = Ack { seq: Some(1), event: None };

/// Told when the commit that holds a request has succeeded.
pub(super) struct Durable(watch::Receiver<Ack>);

impl Durable {
    /// Makes a ticket that goes with the request.
    pub(super) fn ticket() -> (Ticket, Self) {
        let (progress, durable) = watch::channel(Ack::default());
        let ticket = Ticket { progress: Arc::new(progress), reached: REACHED, queue: None };
        (ticket, Self(durable))
    }

    /// Waits for it: as long as the store cannot write.
    pub(super) async fn wait(mut self) -> Result<(), EngineGone> {
        self.0.wait_for(|ack| *ack == REACHED).await.map_err(|_| EngineGone)?;
        Ok(())
    }
}
