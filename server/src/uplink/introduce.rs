//! How an agent becomes known: what is counted of it, is counted under its name.

use tokio::sync::oneshot;

use super::{Admitted, Dialect, End, Uplink, frames::Hello, stopping};
use crate::{
    engine::{AgentCame, Input},
    tally::{AgentKey, AgentKind},
};

impl Uplink {
    /// Tells the engine who has come.
    pub(super) async fn introduce(
        &mut self,
        admitted: &Admitted,
        hello: &Hello,
    ) -> Result<(), End> {
        let queue = hello.queue.as_deref().map(Into::into);
        let (kind, name) = match (self.dialect, &admitted.gateway) {
            (Dialect::Agent, Some(gateway)) => (AgentKind::Gateway, gateway.clone()),
            (Dialect::Agent | Dialect::Json, _) => {
                (AgentKind::Queue, hello.queue.as_deref().unwrap_or_default().into())
            }
        };
        let (answer, answered) = oneshot::channel();
        let came = AgentCame {
            key: AgentKey { sub: admitted.claims.sub.clone(), kind, name },
            version: hello.gateway.as_ref().map(|gateway| gateway.version.clone()),
            queue,
            clock_offset_ms: self.socket.watched().clock_offset_ms(),
            address: admitted.address,
            answer,
        };
        self.shared.engine.send(Input::AgentCame(came)).await.map_err(|_| stopping())?;
        self.agent = Some(answered.await.map_err(|_| stopping())?);
        Ok(())
    }

    /// Tells the engine that it has gone.
    pub(super) async fn gone(&self) {
        if let Some(agent) = self.agent {
            // Without an engine the server is stopping.
            let _ = self.shared.engine.send(Input::AgentGone(agent)).await;
        }
    }
}
