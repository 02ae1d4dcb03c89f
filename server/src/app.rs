//! Puts the stages together, and takes them apart again.

use std::{future::pending, path::Path, sync::Arc};

use anyhow::Context as _;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock, compaction,
    config::Config,
    domain::{
        alerts::{Alerts, Before, OpenBefore},
        rule::Rule,
    },
    engine::{Engine, EngineHandle, Input, Parts, RuleEdit, Rules},
    history::History,
    http::{self, Shared},
    hub::HubLimits,
    limits::Admission,
    listen::{self, Entrance, Terms},
    rule_files,
    session::Gate,
    state::{EventLog, LastValue, State},
    store::{Compactor, RegistryLimits, Restored, Store},
    store_task::{EngineWays, StoreTask, last_values},
    system,
    tls::Certificate,
    uplink::Uplinks,
};

/// How long connections have to say goodbye when the server stops.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);
/// In how many parts, and how far apart, subscribers are told that the server goes away.
const GOODBYES: u64 = 10;
const GOODBYE_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
/// What all HTTP intake may have under way: eight of the largest bodies.
const INTAKE_BYTES: usize = 8 * 1024 * 1024;

/// What is said of a server whose tokens everybody on the way can read.
pub const PLAIN_BEYOND_LOOPBACK: &str =
    "plain HTTP beyond loopback: name a certificate under [tls], or put a proxy with TLS before";

/// What came of a signal.
pub enum Signal {
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

/// Runs the server until `next_signal` says to stop.
///
/// # Errors
/// When the configuration cannot work, the data directory or the address cannot be used, or a part
/// of the server dies.
pub async fn run(
    config: Config,
    file: Option<&Path>,
    mut next_signal: impl AsyncFnMut() -> Signal,
) -> anyhow::Result<()> {
    let mut certificate = config.certificate()?;
    let mut server =
        Running::start(&config, certificate.as_ref().map(Certificate::serving)).await?;
    loop {
        tokio::select! {
            signal = next_signal() => match signal {
                Signal::Reload => {
                    reload(file, &config.data_dir, &server, certificate.as_mut()).await;
                }
                Signal::Stop => return server.stop().await,
            },
            changed = changed(certificate.as_mut()) => renew(changed),
            died = server.died() => return Err(died),
        }
    }
}

/// The parts of a server that runs; each is watched, and ends with the others.
struct Running {
    gate: Arc<Gate>,
    handle: EngineHandle,
    /// How many names may come into being.
    names: watch::Sender<RegistryLimits>,
    /// Which pages may connect.
    origins: watch::Sender<Vec<String>>,
    /// On which terms connections are taken.
    terms: watch::Sender<Arc<Terms>>,
    connections: TaskTracker,
    stop: CancellationToken,
    /// Listening, sampling the host, looking after the keys.
    edges: JoinSet<anyhow::Result<()>>,
    engine: JoinSet<State>,
    store: JoinSet<Store>,
}

impl Running {
    async fn start(
        config: &Config,
        certificate: Option<watch::Receiver<Arc<ServerConfig>>>,
    ) -> anyhow::Result<Self> {
        let keys = config.keys(true)?;
        let file_rules = rule_files::read(&config.rule_files()?)?;
        let (store, restored) = Store::open(&config.data_dir)?;
        let compactor = Compactor::open(&config.data_dir)?;
        let listener = listen::bind(config.listen)
            .await
            .with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr()?;
        let names = watch::Sender::new(registry_limits(config));
        let origins = watch::Sender::new(config.origins.allow.clone());
        let terms = watch::Sender::new(terms_of(config));
        let (store_task, store, ways) =
            StoreTask::new(store, names.subscribe(), config.history.keep);
        store.note_damaged(restored.damaged);
        let keep = config.history.keep;
        let sample = Arc::new(Notify::new());
        let (engine, handle) = Engine::new(parts(restored, config, file_rules, ways, &sample)?);
        let gate = Gate::new(keys, config.limits.session(), Admission::new(config.limits.clone()));
        let (gate, connections) = (Arc::new(gate), TaskTracker::new());
        // Whoever comes before its keys are known would be told that his token is bad.
        if let Err(error) = gate.keys.refresh().await {
            tracing::warn!("the JWKS cannot be used, it is tried again: {error}");
        }
        let stop = CancellationToken::new();
        let router = http::router(Shared {
            gate: Arc::clone(&gate),
            engine: handle.clone(),
            uplinks: Arc::new(Uplinks {
                gate: Arc::clone(&gate),
                engine: handle.clone(),
                store: store.clone(),
                stop: stop.clone(),
            }),
            history: History::new(config.data_dir.clone(), keep, store.clone()),
            store: store.clone(),
            connections: connections.clone(),
            origins: origins.subscribe(),
            loopback_only: address.ip().is_loopback(),
            next_session: 1.into(),
            intake: Arc::new(Semaphore::new(INTAKE_BYTES)),
            metrics_open: config.metrics.open,
        });
        if certificate.is_none() && !address.ip().is_loopback() {
            tracing::warn!("{PLAIN_BEYOND_LOOPBACK}");
        }
        let entrance =
            Entrance { router, certificate, terms: terms.subscribe(), stop: stop.clone() };
        let serving = listen::serve(listener, entrance, connections.clone());
        let sampling = system::run(config.data_dir.clone(), sample, handle.clone());
        let mut edges = JoinSet::new();
        edges.spawn(async {
            serving.await;
            Ok(())
        });
        edges.spawn(async { Ok(sampling.await?) });
        edges.spawn(async move { Ok(compaction::run(compactor, keep, store).await?) });
        let keys = Arc::clone(&gate);
        edges.spawn(async move {
            keys.keys.keep_fresh().await;
            Ok(())
        });
        let engine = JoinSet::from_iter([engine.run()]);
        let store = JoinSet::from_iter([store_task.run(handle.clone())]);
        tracing::info!(%address, data_dir = %config.data_dir.display(), "listening");
        Ok(Self { gate, handle, names, origins, terms, connections, stop, edges, engine, store })
    }

    /// Waits until a part dies, which none does by itself.
    async fn died(&mut self) -> anyhow::Error {
        tokio::select! {
            Some(ended) = self.edges.join_next() => anyhow::anyhow!("an edge died: {ended:?}"),
            Some(_) = self.engine.join_next() => anyhow::anyhow!("the engine died"),
            Some(_) = self.store.join_next() => anyhow::anyhow!("the store died"),
        }
    }

    /// Stops in order: nobody comes in any more, everybody is told, everything is committed.
    async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.stop.cancel();
        self.connections.close();
        // All at once they would all come back at once.
        for part in 0..GOODBYES {
            self.handle.send(Input::Goodbye { part, parts: GOODBYES }).await?;
            tokio::time::sleep(GOODBYE_EVERY).await;
        }
        self.handle.send(Input::Stop).await?;
        // On a full disk nothing can be committed; nothing of it was acknowledged either.
        let state = tokio::time::timeout(GRACE, self.engine.join_next())
            .await
            .context("not everything could be committed: agents will send it again")?
            .context("the engine is one task")??;
        if tokio::time::timeout(GRACE, self.connections.wait()).await.is_err() {
            tracing::warn!("some connections did not say goodbye");
        }
        self.edges.shutdown().await;
        let mut store = self.store.join_next().await.context("the store is one task")??;
        let (rows, marks) = last_values(&state);
        store.checkpoint(&rows, &marks)?;
        Ok(())
    }
}

/// Makes what the engine begins with.
fn parts(
    restored: Restored,
    config: &Config,
    file_rules: Vec<Rule>,
    store: EngineWays,
    sample: &Arc<Notify>,
) -> anyhow::Result<Parts> {
    let now = clock::now();
    let stored_rules = restored.rules.iter().map(|(name, json)| {
        Rule::parse_json(json, Some(name)).with_context(|| format!("the stored rule {name}"))
    });
    let stored_rules = stored_rules.collect::<anyhow::Result<Vec<_>>>()?;
    let (mut alerts, mut drafts) = (Alerts::restore(before(&restored)?, now), Vec::new());
    // Alerts go on under the rules that raised them; a change since is a change like any other.
    let files_before = restored.file_rules.as_deref().map(Rule::parse_list);
    let files_before = files_before.unwrap_or_else(|| file_rules.clone());
    let rules_before = Rules { files: files_before, stored: stored_rules };
    alerts.set_rules(rules_before.all(), now, &mut drafts);
    let rules = Rules { files: file_rules, ..rules_before };
    alerts.set_rules(rules.all(), now, &mut drafts);
    let file_rules =
        Some(rules.files_json()).filter(|json| restored.file_rules.as_deref() != Some(json));
    let mut state = state(restored_log(&restored, clock::instant()), &restored, config, now);
    for device in state.devices_mut() {
        device.watch(&mut alerts, now, &mut drafts);
    }
    Ok(Parts {
        state,
        alerts,
        drafts,
        rules,
        file_rules,
        queues: restored.queues,
        agents: restored.agents,
        keys: restored.keys,
        machines: restored.machines,
        limits: hub_limits(config),
        keep: config.history.keep,
        offline_after: config.devices.offline_after,
        store: store.commits,
        pages: store.pages,
        sample: Arc::clone(sample),
    })
}

/// Returns what alerts begin with.
fn before(restored: &Restored) -> anyhow::Result<Before> {
    let open = restored.open_alerts.iter().map(|open| OpenBefore {
        key: open.key(),
        alert_type: Arc::clone(&open.alert.alert_type),
        severity: open.alert.severity,
        status: open.alert.status,
    });
    let saved =
        restored.watches.iter().map(|(key, json)| Ok((key.clone(), serde_json::from_str(json)?)));
    let saved = saved.collect::<serde_json::Result<_>>().context("what is kept of alert rules")?;
    Ok(Before { open: open.collect(), saved })
}

fn restored_log(restored: &Restored, now: std::time::Instant) -> State {
    let oldest = restored.oldest;
    State::new(
        restored.log.clone(),
        EventLog::restore(oldest.alert, restored.alert_seq, restored.alerts.clone(), now),
        EventLog::restore(oldest.device, restored.device_seq, restored.devices.clone(), now),
    )
}

/// Fills the state with what was known.
fn state(
    mut state: State,
    restored: &Restored,
    config: &Config,
    now: valtronics_protocol::time::UnixMillis,
) -> State {
    for change in &restored.names {
        state.register(change.clone());
    }
    for update in &restored.statuses {
        if let Some(device) = state.device_mut(update.device_id) {
            device.restore(update, now);
        }
    }
    for (row, effective_at) in &restored.last_values {
        if let Some(metric) = state.device_mut(row.device).and_then(|d| d.metric_mut(row.metric)) {
            let (value, at) = (row.value.clone(), row.at);
            // A server whose clock was set back meanwhile goes on, too.
            metric.last = Some(LastValue { value, at, effective_at: now.min(*effective_at) });
        }
    }
    for open in &restored.open_alerts {
        state.open_alerts.insert(open.alert.alert_id, open.clone());
    }
    for device in state.devices_mut() {
        device.health.configure_offline_after(config.devices.offline_after);
        if device.registered.gateway.is_some() {
            device.health.gateway_away(now);
        }
    }
    state
}

fn terms_of(config: &Config) -> Arc<Terms> {
    let handshake_within = config.limits.handshake_within;
    Arc::new(Terms { handshake_within, trusted_proxies: config.http.trusted_proxies.clone() })
}

fn registry_limits(config: &Config) -> RegistryLimits {
    RegistryLimits {
        devices_per_sub: config.limits.devices_per_sub,
        metrics_per_device: config.limits.metrics_per_device,
    }
}

fn hub_limits(config: &Config) -> HubLimits {
    HubLimits {
        subscriptions: config.limits.subscriptions,
        queue_bytes: config.limits.queue_bytes,
        coalesce: config.websocket.coalesce,
    }
}

/// Waits until the files of the certificate have changed.
async fn changed(certificate: Option<&mut Certificate>) -> &mut Certificate {
    let Some(certificate) = certificate else { return pending().await };
    certificate.changed().await;
    certificate
}

/// Serves the certificate as it stands in its files now; a bad one changes nothing.
fn renew(certificate: &mut Certificate) {
    match certificate.reload() {
        Ok(()) => tracing::info!("the certificate is read again: new connections get it"),
        Err(error) => tracing::error!(%error, "the certificate stays the one that is served"),
    }
}

/// Takes over what can change while the server runs; a bad file changes nothing.
async fn reload(
    file: Option<&Path>,
    data_dir: &Path,
    server: &Running,
    certificate: Option<&mut Certificate>,
) {
    let Running { gate, handle: engine, names, origins, terms, .. } = server;
    let Some(file) = file else {
        tracing::info!("there is no configuration file to read again");
        return;
    };
    let loaded = Config::load(file).map_err(anyhow::Error::from);
    let loaded = loaded.and_then(|mut config| {
        // The data directory is where it was at the start, and so is the secret in it.
        config.data_dir = data_dir.to_path_buf();
        Ok((rule_files::read(&config.rule_files()?)?, config.keys(true)?, config))
    });
    let (rules, keys, config) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("the configuration is not taken over: {error:#}");
            return;
        }
    };
    if let (Some(certificate), Some(tls)) = (certificate, &config.tls) {
        certificate.set_config(tls.within(&config.folder));
        renew(certificate);
    }
    gate.keys.replace(keys);
    gate.set_limits(config.limits.session());
    names.send_replace(registry_limits(&config));
    origins.send_replace(config.origins.allow.clone());
    terms.send_replace(terms_of(&config));
    gate.admission().set_limits(config.limits.clone());
    let limits = engine.send(Input::Limits(hub_limits(&config))).await;
    let rules = engine.send(Input::Rules(RuleEdit::Files(rules))).await;
    if limits.and(rules).is_ok() {
        tracing::info!(
            "keys, limits, origins, proxies and rules are taken over; the rest needs a restart"
        );
    }
}
