//! How far each agent's numbering has come: what was taken in, and what is committed.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{oneshot, watch};
use valtronics_protocol::uplink::Ack;

use crate::{
    commit::{Commit, Lane, QueueKey, QueueMachine},
    ingest::{OpenQueue, Ticket},
};

/// A connection wants to go on with a numbering.
pub struct OpenRequest {
    /// The subject of its token.
    pub sub: Arc<str>,
    /// The numbering's name.
    pub queue: Arc<str>,
    /// The machine on which the agent runs; `None` where it does not say.
    pub machine: Option<Arc<str>>,
    /// How many names the subject may have.
    pub most: usize,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Opened, NotOpened>>,
}

/// Why a numbering is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It would be one too many.
    #[error(transparent)]
    TooMany(#[from] TooManyNames),
    /// It came from another machine: two copies would give a number twice. Our agent knows by the
    /// word "queue" that it is to begin a new one.
    #[error("this queue belongs to another machine: it is a copy, and begins a new one")]
    Copied,
}

/// A subject brings a name, and has as many as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this {kind} is new, and the token's subject has {most} already, the most it may have")]
pub struct TooManyNames {
    pub(super) kind: &'static str,
    pub(super) most: usize,
}

/// A numbering as a connection finds it.
pub struct Opened {
    /// The hold on it.
    pub queue: OpenQueue,
    /// What was taken in so far; more than `progress` says while a commit is under way.
    pub accepted: Ack,
    /// What is committed, now and from now on.
    pub progress: Arc<watch::Sender<Ack>>,
    /// Becomes true when a newer connection takes over.
    pub taken_over: watch::Receiver<bool>,
}

/// Every numbering that was ever used. The store holds none that is not here, so what limits these
/// limits those.
#[derive(Debug, Default)]
pub(super) struct Queues(HashMap<(Arc<str>, Arc<str>), Queue>);

#[derive(Debug, Default)]
struct Queue {
    accepted: Ack,
    progress: Arc<watch::Sender<Ack>>,
    epoch: u64,
    holder: Option<watch::Sender<bool>>,
    machine: Option<Arc<str>>,
    /// The store knows the machine, or will with the next commit.
    is_machine_stored: bool,
}

impl Queue {
    /// Tells whether something would be lost with it: numbers, or a connection's hold.
    fn is_used(&self) -> bool {
        let held = self.holder.as_ref().is_some_and(|holder| !holder.is_closed());
        held || self.accepted != Ack::default()
    }
}

impl Queues {
    pub(super) fn restore(committed: Vec<(QueueKey, u64)>, machines: Vec<QueueMachine>) -> Self {
        let mut queues = Self::default();
        for (QueueKey { sub, queue, lane }, number) in committed {
            let queue = queues.0.entry((sub, queue)).or_default();
            match lane {
                Lane::Readings => queue.accepted.seq = Some(number),
                Lane::Events => queue.accepted.event = Some(number),
            }
            queue.progress.send_replace(queue.accepted);
        }
        for QueueMachine { sub, queue, machine } in machines {
            if let Some(queue) = queues.0.get_mut(&(sub, queue)) {
                (queue.machine, queue.is_machine_stored) = (Some(machine), true);
            }
        }
        queues
    }

    /// Gives a numbering to a connection, and takes it from the one that had it; a new one only
    /// where the subject may have one more.
    pub(super) fn open(&mut self, request: OpenRequest) {
        let OpenRequest { sub, queue: name, machine, most, answer } = request;
        let of = (Arc::clone(&sub), Arc::clone(&name));
        if !self.0.contains_key(&of) && !self.has_room(&sub, most) {
            let _ = answer.send(Err(TooManyNames { kind: "queue", most }.into()));
            return;
        }
        let queue = self.0.entry(of).or_default();
        if queue.is_used()
            && machine.is_some()
            && queue.machine.is_some()
            && queue.machine != machine
        {
            let _ = answer.send(Err(NotOpened::Copied));
            return;
        }
        if machine.is_some() && queue.machine != machine {
            (queue.machine, queue.is_machine_stored) = (machine, false);
        }
        queue.epoch += 1;
        let (holder, taken_over) = watch::channel(false);
        if let Some(before) = queue.holder.replace(holder) {
            before.send_replace(true);
        }
        let key = QueueKey { sub, queue: name, lane: Lane::Readings };
        // A connection that has gone meanwhile holds the numbering until the next one comes.
        let _ = answer.send(Ok(Opened {
            queue: OpenQueue { key, epoch: queue.epoch },
            accepted: queue.accepted,
            progress: Arc::clone(&queue.progress),
            taken_over,
        }));
    }

    /// Tells whether a subject may have one more; where it seems not, those in which nothing was ever
    /// numbered are forgotten first.
    fn has_room(&mut self, sub: &Arc<str>, most: usize) -> bool {
        let count = |queues: &Self| queues.0.keys().filter(|(of, _)| of == sub).count();
        if count(self) >= most {
            self.0.retain(|(of, _), queue| of != sub || queue.is_used());
        }
        count(self) < most
    }

    /// Takes in the numbers of a batch; false when another connection holds the numbering by now.
    pub(super) fn accept(&mut self, ticket: &Ticket, pending: &mut Commit) -> bool {
        let Some(open) = &ticket.queue else {
            return true;
        };
        let of = (Arc::clone(&open.key.sub), Arc::clone(&open.key.queue));
        let Some(queue) = self.0.get_mut(&of) else {
            return false;
        };
        if queue.epoch != open.epoch {
            return false;
        }
        queue.accepted = later(queue.accepted, ticket.reached);
        let lanes = [(Lane::Readings, ticket.reached.seq), (Lane::Events, ticket.reached.event)];
        for (lane, number) in lanes {
            if let Some(number) = number {
                pending.queues.push((QueueKey { lane, ..open.key.clone() }, number));
            }
        }
        if let Some(machine) = queue.machine.clone().filter(|_| !queue.is_machine_stored) {
            queue.is_machine_stored = true;
            let QueueKey { sub, queue, .. } = open.key.clone();
            pending.machines.push(QueueMachine { sub, queue, machine });
        }
        true
    }

    /// Publishes that the numbers of a batch are committed.
    pub(super) fn committed(&self, ticket: &Ticket) {
        let is_remembered = ticket.queue.is_some();
        ticket.progress.send_if_modified(|known| {
            // Of what nobody remembers each number comes back, also one that came before.
            let reached =
                if is_remembered { later(*known, ticket.reached) } else { ticket.reached };
            std::mem::replace(known, reached) != reached || !is_remembered
        });
    }
}

/// Returns the higher number of each lane.
fn later(one: Ack, other: Ack) -> Ack {
    Ack { seq: one.seq.max(other.seq), event: one.event.max(other.event) }
}
