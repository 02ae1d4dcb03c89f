//! One device: what to ask it next, when, and what it means that it does not answer. Pure.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{bus::Said, config::DeviceConfig};
use crate::{
    backoff::Backoff,
    decode::{
        Sample,
        modbus::{
            Span, Words,
            frame::Exception,
            plan::{Plan, Split},
            register::Register,
            sunspec::{Discovery, Step},
        },
    },
    normalize::Normalizer,
};

/// How late an answer may come. A device that let a request time out is asked nothing until then:
/// in RTU the late answer would be taken for that of the next request.
const LATEST: Duration = Duration::from_secs(5);
/// A device that does not answer is asked this rarely at most (unless it is asked more rarely
/// anyway): at the usual timeout that costs the others 3 % of the time.
const RAREST: Duration = Duration::from_secs(30);
/// So many rounds in a row without a value make a device offline: one may be lost to noise.
const MISSES: u32 = 2;
/// So many times in a row a block is not answered by a device that answers others, until it is
/// taken apart as if the device had refused it.
const BLOCK_MISSES: u32 = 3;
/// When a register that was refused is tried again: a device that starts may know none at first.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// How rarely it is tried at last.
const LAST_RETRY: Duration = Duration::from_secs(3600);

/// Why a round brought no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Silence,
    Damage,
    Exception(Exception),
    NoModels,
}

/// A device, and how far this round has come.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) unit: u8,
    pub(super) name: Arc<str>,
    pub(super) normalizer: Normalizer,
    /// When its next round begins.
    pub(super) due: Instant,
    every: Duration,
    /// What it was told to read; with a discovery more is found.
    registers: Vec<Register>,
    is_sunspec: bool,
    discovery: Option<Discovery>,
    plan: Plan,
    place: usize,
    /// Nothing more is asked in this round.
    is_over: bool,
    /// A value came in this round.
    is_heard: bool,
    /// A damaged answer was already asked for again in this round.
    has_repeated: bool,
    trouble: Option<Trouble>,
    misses: u32,
    /// What was said of it last.
    said: Option<Trouble>,
    refused: Vec<Register>,
    retry: Backoff,
    retry_at: Option<Instant>,
}

impl Device {
    pub(super) fn new(config: &DeviceConfig, now: Instant) -> Self {
        let DeviceConfig { unit, name, every, rules, registers, is_sunspec } = config.clone();
        Self {
            unit,
            normalizer: Normalizer::new(rules, Arc::clone(&name)),
            name,
            due: now,
            every,
            plan: Plan::new(registers.clone()),
            registers,
            is_sunspec,
            discovery: is_sunspec.then(Discovery::new),
            place: 0,
            is_over: false,
            is_heard: false,
            has_repeated: false,
            trouble: None,
            misses: 0,
            said: None,
            refused: Vec::new(),
            retry: Backoff::new(FIRST_RETRY, LAST_RETRY),
            retry_at: None,
        }
    }

    /// Begins anew with a line that was opened again; what it refuses is remembered, but what a
    /// device says of itself may be another one's now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.discovery = self.is_sunspec.then(Discovery::new);
        self.due = now;
        self.misses = 0;
        self.said = None;
        self.end_round();
    }

    /// Begins a round, or goes on with one that a broken connection has interrupted.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.plan.retry(self.refused.drain(..));
        }
    }

    /// Returns what to ask next; none when the round is over.
    pub(super) fn next(&self) -> Option<Span> {
        if self.is_over {
            return None;
        }
        let planned = || self.plan.blocks.get(self.place).map(|block| block.span);
        self.discovery.as_ref().map(Discovery::ask).or_else(planned)
    }

    /// Takes what it said, and returns the values in it.
    pub(super) fn take(&mut self, said: Said) -> Vec<Sample> {
        match said {
            Said::Words(words) if self.discovery.is_some() => self.discover(Some(&words)),
            Said::Words(words) => return self.samples(&words),
            Said::Refused(exception) if self.discovery.is_some() && !exception.is_silence() => {
                self.discover(None);
            }
            Said::Refused(exception) if exception.is_about_the_request() => {
                self.trouble = Some(Trouble::Exception(exception));
                self.refuse();
            }
            // It has answered, so it can be asked the next.
            Said::Refused(exception) if !exception.is_silence() => {
                if !self.miss(Trouble::Exception(exception)) {
                    self.place += 1;
                }
            }
            Said::Damage if !self.has_repeated => self.has_repeated = true,
            Said::Damage => self.give_up(Trouble::Damage),
            Said::Refused(exception) => self.give_up(Trouble::Exception(exception)),
            // Its answer may still come.
            Said::Noise | Said::Silence => self.give_up(Trouble::Silence),
        }
        Vec::new()
    }

    fn discover(&mut self, words: Option<&[u16]>) {
        let Some(discovery) = &mut self.discovery else { return };
        match discovery.take(words) {
            Step::More => {}
            Step::Found(found) if !found.is_empty() => {
                let models: Vec<u16> = discovery.models().collect();
                info!(device = %self.name, ?models, registers = found.len(), "SunSpec models found");
                self.plan = Plan::new(self.registers.iter().cloned().chain(found).collect());
                self.discovery = None;
            }
            Step::Found(_) | Step::Nothing => {
                self.discovery = Some(Discovery::new());
                self.trouble = Some(Trouble::NoModels);
                self.is_over = true;
            }
        }
    }

    fn samples(&mut self, words: &[u16]) -> Vec<Sample> {
        let Some(block) = self.plan.blocks.get_mut(self.place) else { return Vec::new() };
        self.place += 1;
        self.is_heard = true;
        block.misses = 0;
        let words = Words { first: block.span.first, words };
        block.registers.iter().filter_map(|register| register.sample(words)).collect()
    }

    /// Ends the round. The block comes last from now on, for it may be the only one that is not
    /// answered.
    fn give_up(&mut self, trouble: Trouble) {
        self.is_over = true;
        if self.discovery.is_some() {
            self.trouble = Some(trouble);
        } else if !self.miss(trouble) && self.place < self.plan.blocks.len() {
            let block = self.plan.blocks.remove(self.place);
            self.plan.blocks.push(block);
        }
    }

    /// Notes that the block was not answered; returns whether it is taken apart for that.
    fn miss(&mut self, trouble: Trouble) -> bool {
        self.trouble = Some(trouble);
        let Some(block) = self.plan.blocks.get_mut(self.place) else { return false };
        // One that is dead says nothing of its blocks.
        let is_alive = self.is_heard || self.misses == 0;
        block.misses += u32::from(is_alive);
        let is_refusal = is_alive && block.misses >= BLOCK_MISSES;
        if is_refusal {
            self.refuse();
        }
        is_refusal
    }

    /// Asks for the block in smaller parts, and at last for a register no more.
    fn refuse(&mut self) {
        if let Some(Split::Refused(register)) = self.plan.split(self.place) {
            let why = self.trouble.map(|trouble| trouble.of(self.unit)).unwrap_or_default();
            warn!(device = %self.name, "{} is left out: {why}", register.metric);
            self.refused.push(register);
        }
    }

    /// Ends the round, and returns why the device counts as offline, where that is new.
    pub(super) fn finish(&mut self, now: Instant) -> Option<String> {
        let (trouble, is_heard) = (self.trouble, self.is_heard);
        self.end_round();
        if !self.refused.is_empty() && self.retry_at.is_none() {
            self.retry_at = Some(now + self.retry.wait());
        }
        if is_heard {
            self.misses = 0;
            self.said = None;
            self.due = (self.due + self.every).max(now);
        } else {
            let doubled = self.every * (1 << self.misses.min(10));
            self.misses += 1;
            self.due = now + doubled.min(RAREST.max(self.every));
        }
        if trouble == Some(Trouble::Silence) {
            self.due = self.due.max(now + LATEST);
        }
        let news = trouble.filter(|_| self.misses >= MISSES && self.said != trouble)?;
        self.said = trouble;
        Some(news.of(self.unit))
    }

    fn end_round(&mut self) {
        self.place = 0;
        self.is_over = false;
        self.is_heard = false;
        self.has_repeated = false;
        // Where it has refused everything, nothing is left that could say so again.
        if self.next().is_some() {
            self.trouble = None;
        }
    }
}

impl Trouble {
    /// Says it of a unit, in a sentence for a device's status.
    fn of(self, unit: u8) -> String {
        match self {
            Self::Silence => format!("No answer from unit {unit}"),
            Self::Damage => format!("Only damaged answers from unit {unit}"),
            Self::Exception(exception) if exception.is_silence() => {
                format!("No answer from unit {unit}: {exception}")
            }
            Self::NoModels => format!("Unit {unit} says nothing of SunSpec models"),
            Self::Exception(exception) => format!("Unit {unit} answers with {exception}"),
        }
    }
}

#[cfg(test)]
mod tests;
