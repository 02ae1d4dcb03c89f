//! Puts the stages together, and takes them apart again.

use std::{collections::BTreeMap, path::Path, sync::Arc, sync::Mutex, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use valtronics_protocol::uplink::Gateway;

use crate::{
    clock,
    config::Config,
    queue::{
        Queue,
        keeper::{self, Handle},
        timeline::notebook::Notebook,
    },
    source::{
        self, SourceEvent,
        capture::Recorder,
        outlet::{EVENTS, Outlet},
    },
    status::Teller,
    tally::Tally,
    uplink::{self, GRACE, Link},
};

/// How often `try` says what it has counted.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How long sources may take to stop: some turns with a broker.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What came of a signal.
pub enum Signal {
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

/// The sources that run.
struct Sources {
    tasks: JoinSet<()>,
    closing: CancellationToken,
}

impl Sources {
    /// Starts the sources, or the one that is wanted only.
    fn start(
        config: &Config,
        events: &mpsc::Sender<SourceEvent>,
        recorder: Option<&Recorder>,
        only: Option<&str>,
    ) -> Self {
        let wanted = config.sources.iter().filter(|s| only.is_none_or(|only| *only == *s.name));
        let (mut tasks, closing) = (JoinSet::new(), CancellationToken::new());
        for source in wanted {
            let outlet = Outlet::new(source, events.clone(), recorder.cloned(), closing.clone());
            tasks.spawn(source::run(source.kind.clone(), outlet));
        }
        Self { tasks, closing }
    }

    /// Stops them; what was read is acknowledged to who sent it, as far as that goes quickly.
    async fn stop(&mut self) {
        self.closing.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Who takes longer sends again what is not acknowledged.
        let _ = timeout(CLOSE_WITHIN, ended).await;
        self.tasks.shutdown().await;
    }
}

/// Listens for `status`; an agent that nobody can ask still does its work.
fn teller(
    data_dir: &Path,
    name: &str,
    queue: &Handle,
    link: watch::Receiver<Link>,
) -> Option<Teller> {
    Teller::listen(data_dir, name, queue.clone(), link)
        .inspect_err(|error| warn!("`status` cannot ask: {}: {error}", data_dir.display()))
        .ok()
}

/// Starts a recording, if one is wanted; its writing ends with the last recorder.
fn record(
    capture: Option<&Path>,
    tasks: &mut JoinSet<std::io::Result<()>>,
) -> anyhow::Result<Option<Recorder>> {
    let Some(path) = capture else { return Ok(None) };
    let (recorder, write) = Recorder::create(path, clock::monotonic(), clock::now())
        .with_context(|| path.display().to_string())?;
    tasks.spawn_blocking(write);
    Ok(Some(recorder))
}

/// Reads, keeps and sends until `next_signal` says to stop.
///
/// # Errors
/// When there is no server to send to, or a part of the agent dies.
pub async fn run(
    mut config: Config,
    file: &Path,
    capture: Option<&Path>,
    mut next_signal: impl AsyncFnMut() -> Signal,
) -> anyhow::Result<()> {
    let uplink = config.uplink.clone().context("[uplink] is missing: nowhere to send to")?;
    let mut recording = JoinSet::new();
    let recorder = record(capture, &mut recording)?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let opened = Queue::open(&config.queue, &config.data_dir.join("queue"))
        .with_context(|| format!("{}: another agent uses it", config.data_dir.display()))?;
    let gateway = gateway(&config.name);
    let notebook = Notebook::new(&config.data_dir, &gateway.boot_id);
    let (queue, keeping) = keeper::start(opened, config.queue.sync, notebook, inbox);
    let (link, watched_link) = watch::channel(Link::default());
    let stopping = CancellationToken::new();
    let mut keeper = JoinSet::from_iter([keeping]);
    let sending = uplink::run(uplink, gateway, queue.clone(), link, stopping.clone());
    let mut sender = JoinSet::from_iter([sending]);
    let mut teller = teller(&config.data_dir, &config.name, &queue, watched_link)
        .map_or_else(JoinSet::new, |teller| JoinSet::from_iter([teller.run()]));
    let mut sources = Sources::start(&config, &events, recorder.as_ref(), None);
    info!(name = config.name, sources = config.sources.len(), "started");
    loop {
        tokio::select! {
            signal = next_signal() => match signal {
                Signal::Stop => break,
                Signal::Reload => match Config::load(file) {
                    Ok(read) => {
                        if read.uplink != config.uplink || read.queue != config.queue {
                            info!("[uplink] and [queue] are taken over at the next start");
                        }
                        sources.stop().await;
                        sources = Sources::start(&read, &events, recorder.as_ref(), None);
                        config = read;
                        info!(sources = config.sources.len(), "the configuration is taken over");
                    }
                    Err(mistakes) => error!("the configuration is not taken over: {mistakes}"),
                },
            },
            Some(ended) = sources.tasks.join_next() => {
                // Only a recording comes to an end by itself.
                ended.context("a source has died")?;
            }
            Some(_) = keeper.join_next() => anyhow::bail!("the queue has died"),
            Some(_) = sender.join_next() => anyhow::bail!("the uplink has died"),
            Some(_) = teller.join_next() => anyhow::bail!("what answers `status` has died"),
        }
    }
    info!("stopping");
    sources.stop().await;
    queue.settle().await?;
    stopping.cancel();
    let sent = timeout(GRACE, sender.join_next()).await.is_ok();
    let left = queue.counters().await?.waiting;
    if !sent || left > 0 {
        error!(readings = left, "not everything could be sent before the end");
    }
    sender.shutdown().await;
    teller.shutdown().await;
    drop(queue);
    keeper.join_next().await;
    Ok(())
}

/// Prints readings as they would be sent, until `next_signal` says to stop.
///
/// # Errors
/// When there is no source, or nobody reads what is printed.
pub async fn try_sources(
    mut config: Config,
    only: Option<&str>,
    capture: Option<&Path>,
    mut next_signal: impl AsyncFnMut() -> Signal,
) -> anyhow::Result<()> {
    let mut recording = JoinSet::new();
    let recorder = record(capture, &mut recording)?;
    let (events, mut inbox) = mpsc::channel(EVENTS);
    config.sources.iter_mut().for_each(|source| source.kind.try_only());
    let mut sources = Sources::start(&config, &events, recorder.as_ref(), only);
    anyhow::ensure!(!sources.tasks.is_empty(), "there is no source in the configuration");
    drop(events);
    let mut tallies = BTreeMap::new();
    let mut reports = interval(REPORT_EVERY);
    reports.tick().await;
    let output = Mutex::new(std::io::stdout());
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => {
                    count(&event, &mut tallies);
                    print(&event, &output)?;
                }
                None => break,
            },
            _ = reports.tick() => report(&tallies),
            signal = next_signal() => if let Signal::Stop = signal { break },
        }
    }
    report(&tallies);
    sources.tasks.shutdown().await;
    Ok(())
}

fn print(event: &SourceEvent, output: &Mutex<std::io::Stdout>) -> anyhow::Result<()> {
    use std::io::Write;
    let mut output = output.lock().expect("nobody panics while printing");
    match event {
        SourceEvent::Readings { readings, .. } => {
            for reading in readings {
                writeln!(output, "{}", serde_json::to_string(reading)?)?;
            }
            output.flush()?;
        }
        SourceEvent::Status(change) => {
            eprintln!("{}: {:?}: {}", change.device, change.status, change.reason);
        }
        SourceEvent::Device(_) => {}
    }
    Ok(())
}

fn count(event: &SourceEvent, tallies: &mut BTreeMap<Arc<str>, Tally>) {
    if let SourceEvent::Readings { source, tally, .. } = event {
        *tallies.entry(Arc::clone(source)).or_default() += *tally;
    }
}

fn report(tallies: &BTreeMap<Arc<str>, Tally>) {
    for (name, tally) in tallies {
        let Tally { good, damaged, foreign, queued, held_back, .. } = tally;
        let held_back = held_back.sum();
        eprintln!(
            "{name}: {good} good, {damaged} damaged, {foreign} foreign; \
             {queued} readings, {held_back} held back"
        );
    }
}

fn gateway(name: &str) -> Gateway {
    let read = |path: &str| {
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    Gateway {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        machine_id: read("/etc/machine-id"),
        time: clock::now(),
    }
}
