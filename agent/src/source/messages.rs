//! Messages of a broker: reading each into readings, statuses, and topics to subscribe to.
//!
//! The templates of the configuration come first, then what devices announce, then presets: those
//! know less than an announcement does.

use std::{sync::Arc, time::Duration};

use rumqttc::Publish;
use valtronics_protocol::{
    reading::{Reading, is_name},
    time::UnixMillis,
};

use super::{
    StatusChange,
    attendance::Attendance,
    outlet::Outlet,
    topics::{Config, Discovery, Pattern, Topic},
};
use crate::{
    decode::{
        Context, Outcome, Sample, json,
        topic::{Captures, Template},
    },
    describe::{Change, Described, Heard, preset::Preset},
    normalize::{Normalizer, Rules},
};

/// Reads the messages of one source.
#[derive(Debug)]
pub struct Messages {
    /// As configured: the first that fits reads.
    readers: Vec<Reader>,
    announced: Option<(Described, Normalizer)>,
    attendance: Attendance,
}

#[derive(Debug)]
struct Reader {
    how: How,
    normalizer: Normalizer,
}

#[derive(Debug)]
enum How {
    Template(Template, Context),
    Preset(Preset),
}

/// What a message gives.
#[derive(Debug, Default)]
pub struct Taken {
    /// The readings in it.
    pub readings: Vec<Reading>,
    /// Topics to subscribe to.
    pub wanted: Vec<Arc<str>>,
    /// Topics to unsubscribe from.
    pub unwanted: Vec<Arc<str>>,
    /// Devices whose status has changed.
    pub changes: Vec<StatusChange>,
    /// How long devices may be silent.
    pub silences: Vec<(Arc<str>, Option<Duration>)>,
    /// Messages to others.
    pub commands: Vec<Publish>,
}

impl Messages {
    /// Reads messages whose device is `device` where nothing names one.
    #[must_use]
    pub fn new(config: &Config, device: &Arc<str>) -> Self {
        let normalizer = |rules: &Rules| Normalizer::new(rules.clone(), Arc::clone(device));
        let how = |pattern: &Pattern, rules: &Rules| match pattern {
            Pattern::Template(template) => {
                let time_field = rules.time.as_deref().map(Arc::from);
                How::Template(template.clone(), Context::new(time_field))
            }
            Pattern::Preset(name) => {
                How::Preset(Preset::named(name).expect("the configuration knows the presets"))
            }
        };
        let reader = |Topic { pattern, rules }: &Topic| Reader {
            how: how(pattern, rules),
            normalizer: normalizer(rules),
        };
        let announced =
            |Discovery { prefix, rules }: &Discovery| (Described::new(prefix), normalizer(rules));
        Self {
            readers: config.topics.iter().map(reader).collect(),
            announced: config.discovery.as_ref().map(announced),
            attendance: Attendance::default(),
        }
    }

    /// Returns what is subscribed to for announcements.
    pub fn announcements(&self) -> impl Iterator<Item = String> {
        self.announced.iter().flat_map(|(described, _)| described.filters())
    }

    /// Returns what is subscribed to on a new connection.
    pub fn filters(&self) -> impl Iterator<Item = String> {
        let announced = self.announced.as_ref().map(|(described, _)| described);
        let named = announced.into_iter().flat_map(Described::topics);
        let named = named.filter(|topic| !self.is_read(topic)).map(|topic| topic.to_string());
        let read = self.readers.iter().flat_map(|reader| match &reader.how {
            How::Template(template, _) => vec![template.filter()],
            How::Preset(preset) => preset.filters(),
        });
        read.chain(self.announcements()).chain(named)
    }

    /// Tells whether `read` has this topic: then it is subscribed to already.
    fn is_read(&self, topic: &str) -> bool {
        self.readers.iter().any(|reader| match &reader.how {
            How::Template(template, _) => template.read(topic).is_some(),
            How::Preset(preset) => preset.has(topic),
        })
    }

    /// Notes that the connection is gone: what is retained says anew who is there.
    pub fn disconnected(&mut self) {
        self.attendance.clear();
    }

    /// Reads one message; what is wrong with it is counted and said.
    pub fn take(&mut self, publish: &Publish, now: UnixMillis, outlet: &mut Outlet) -> Taken {
        let mut taken = Taken::default();
        if self.announce(publish, now, outlet, &mut taken) {
            return taken;
        }
        let Some((heard, normalizer)) = self.hear(publish, now) else {
            outlet.tally.foreign += 1;
            return taken;
        };
        let Heard { mut samples, presences, failed } = heard;
        match failed {
            None => outlet.tally.good += 1,
            Some(cause) => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("{cause} on topic {}", publish.topic));
            }
        }
        hold_back_retained(publish, &mut samples, outlet);
        taken.readings = normalizer.readings(samples, now, &mut outlet.tally);
        taken.changes = self.attendance.changes(&presences, now);
        taken
    }

    /// Has whoever comes first read a message; `None` when nobody does.
    fn hear(&mut self, publish: &Publish, now: UnixMillis) -> Option<(Heard, &mut Normalizer)> {
        let Publish { topic, payload, .. } = publish;
        let Self { readers, announced, .. } = self;
        let is_reserved =
            announced.as_ref().is_some_and(|(described, _)| described.is_reserved(topic));
        let mut announced = announced.as_mut().and_then(|(described, normalizer)| {
            Some((described.hear(topic, payload, now)?, normalizer))
        });
        let (mut by_template, mut by_preset) = (None, None);
        for Reader { how, normalizer } in readers {
            match how {
                How::Template(template, context) if by_template.is_none() => {
                    let captures = template.read(topic);
                    by_template = captures.map(|captures| {
                        context.now = now;
                        (read(captures, payload, context), normalizer)
                    });
                }
                How::Preset(preset)
                    if by_preset.is_none() && announced.is_none() && !is_reserved =>
                {
                    by_preset = preset.hear(topic, payload, now).map(|heard| (heard, normalizer));
                }
                How::Template(..) | How::Preset(_) => {}
            }
        }
        // What devices announce counts for their status in any case.
        if let (Some((by_template, _)), Some((announced, _))) = (&mut by_template, &mut announced) {
            by_template.presences.append(&mut announced.presences);
        }
        by_template.or(announced).or(by_preset)
    }

    /// Takes an announcement, if it is one.
    fn announce(
        &mut self,
        publish: &Publish,
        now: UnixMillis,
        outlet: &mut Outlet,
        taken: &mut Taken,
    ) -> bool {
        let announced = self.announced.as_mut();
        let change = announced
            .and_then(|(described, _)| described.announce(&publish.topic, &publish.payload));
        let (change, refused) = match change {
            None => return false,
            Some(Ok(change)) => {
                let refused = change.refused;
                (change, refused)
            }
            Some(Err(refused)) => (Change::default(), Some(refused)),
        };
        match refused {
            None => outlet.tally.good += 1,
            Some(why) => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("{why} on topic {}", publish.topic));
            }
        }
        let Change { wanted, unwanted, presences, silences, .. } = change;
        taken.wanted = wanted.into_iter().filter(|topic| !self.is_read(topic)).collect();
        taken.unwanted = unwanted.into_iter().filter(|topic| !self.is_read(topic)).collect();
        taken.silences = silences;
        taken.changes = self.attendance.changes(&presences, now);
        true
    }
}

/// Reads a message as a template says.
fn read(captures: Captures<'_>, payload: &[u8], context: &mut Context) -> Heard {
    let Captures { device, metric } = captures;
    let mut heard = Heard::default();
    let metric = metric.unwrap_or_default();
    let outcome = json::message(payload, metric, context, &mut heard.samples);
    if let Outcome::Damaged(cause) = outcome {
        heard.failed = Some(cause);
    }
    if let Some(device) = device.filter(|device| is_name(device)) {
        let device = context.name(device);
        for sample in &mut heard.samples {
            sample.device.get_or_insert_with(|| Arc::clone(&device));
        }
    }
    heard
}

/// Leaves out what a broker kept from before the subscription, unless it has a time of its own.
pub(super) fn hold_back_retained(
    publish: &Publish,
    samples: &mut Vec<Sample>,
    outlet: &mut Outlet,
) {
    if publish.retain {
        let count = samples.len();
        samples.retain(|sample| sample.at.is_some());
        let retained = (count - samples.len()) as u64;
        outlet.tally.read += retained;
        outlet.tally.held_back.retained += retained;
    }
}
