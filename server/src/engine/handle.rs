//! The way to the engine.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

use super::{Command, Input};
use crate::{domain::alerts::Alerts, state::State};

/// How many inputs may wait: what they hold is bounded by the windows of those who sent them.
pub(super) const INPUTS: usize = 256;
/// How many commands may wait: one a connection is usual, and whoever finds no room waits.
pub(super) const COMMANDS: usize = 1024;

/// The way to the engine.
#[derive(Clone)]
pub struct EngineHandle {
    inputs: mpsc::Sender<Input>,
    commands: mpsc::Sender<Command>,
}

/// A look at what is known, in the engine's turn.
pub type Look = Box<dyn FnOnce(&State, &Alerts) + Send>;

/// The engine has ended: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server stops")]
pub struct EngineGone;

impl EngineHandle {
    pub(super) fn new(inputs: mpsc::Sender<Input>, commands: mpsc::Sender<Command>) -> Self {
        Self { inputs, commands }
    }

    /// Hands something to the engine; waits while it has much to do.
    ///
    /// # Errors
    /// When the engine has ended.
    pub async fn send(&self, input: Input) -> Result<(), EngineGone> {
        self.inputs.send(input).await.map_err(|_| EngineGone)
    }

    /// Makes a session's own way to the engine.
    #[must_use]
    pub fn commands(&self) -> PollSender<Command> {
        PollSender::new(self.commands.clone())
    }

    /// Looks at the state: the function runs in the engine's turn, so it has to be short.
    ///
    /// # Errors
    /// When the engine has ended.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State, &Alerts) -> T + Send + 'static,
    ) -> Result<T, EngineGone> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |state: &State, alerts: &Alerts| {
            // Whoever asked may have gone.
            let _ = answer.send(look(state, alerts));
        });
        self.send(Input::Read(look)).await?;
        answered.await.map_err(|_| EngineGone)
    }
}
