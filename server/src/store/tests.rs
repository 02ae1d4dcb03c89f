//! The store against a real file: what comes back, and what a failure leaves.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use valtronics_protocol::{
    event::{AlertStatus, Severity, Status},
    id::DeviceId,
    value::Value,
};

use super::*;
use crate::commit::{
    AlertDraft, AlertKey, CommittedEvent, EventDraft, Lane, MetricIndex, Severities, StatusDraft,
};

mod failures;
mod history;
mod names;
mod proof;

const NOW: UnixMillis = UnixMillis(1_704_110_400_000);
const DAY: Duration = Duration::from_secs(86_400);

fn reading(metric: u32, at: i64, value: i64) -> Row {
    Row {
        device: DeviceId(1),
        metric: MetricIndex(metric),
        at: UnixMillis(at),
        value: Value::Int(value),
    }
}

fn readings(received_at: UnixMillis, readings: Vec<Row>) -> Commit {
    Commit { received_at, readings, ..Commit::default() }
}

/// A row of what is remembered of the device under a rule.
fn watch(
    (rule, json): (&str, Option<&str>),
) -> ((std::sync::Arc<str>, DeviceId), Option<std::sync::Arc<str>>) {
    ((rule.into(), DeviceId(1)), json.map(Into::into))
}

fn events(events: Vec<EventDraft>) -> Commit {
    Commit { events, ..Commit::default() }
}

fn status(at: UnixMillis) -> EventDraft {
    EventDraft::Status(StatusDraft {
        device: DeviceId(1),
        old: Status::Offline,
        new: Status::Online,
        at,
        reason: "It sends".into(),
        last_seen: Some(at),
    })
}

fn alert_at(rule: &str, status: AlertStatus, severity: Severity, at: UnixMillis) -> EventDraft {
    EventDraft::Alert(AlertDraft {
        key: AlertKey { rule: rule.into(), device: DeviceId(1), metric: "temperature".into() },
        alert_type: "threshold".into(),
        status,
        severity,
        title: "Hot".into(),
        message: "Too hot".into(),
        at,
        threshold: Some(Value::Float(30.0)),
        actual: Some(Value::Float(31.5)),
    })
}

fn alert(rule: &str, status: AlertStatus, severity: Severity) -> EventDraft {
    alert_at(rule, status, severity, NOW)
}

fn number(lane: Lane, number: u64) -> (QueueKey, u64) {
    (QueueKey { sub: "gw".into(), queue: "q".into(), lane }, number)
}

/// `alert_id`, `seq`, whether it announces, and every severity so far.
fn shown(events: &[CommittedEvent]) -> Vec<(u64, u64, bool, Severities)> {
    let alerts = events.iter().filter_map(|event| match event {
        CommittedEvent::Alert(it) => {
            Some((it.alert.alert_id.0, it.alert.seq.0, it.announces, it.had))
        }
        CommittedEvent::Status(_) => None,
    });
    alerts.collect()
}

fn seqs(events: &[CommittedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq().0).collect()
}

fn had(severities: &[Severity]) -> Severities {
    severities.iter().fold(Severities::default(), |set, severity| set.with(*severity))
}

/// The last values that came back.
fn values(restored: &Restored) -> Vec<Row> {
    restored.last_values.iter().map(|(row, _)| row.clone()).collect()
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| (row.device, row.metric));
    rows
}

fn rows_of(store: &Store, table: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.db.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn everything_comes_back() {
    let dir = TempDir::new().unwrap();
    let (mut store, first) = Store::open(dir.path()).unwrap();
    assert_eq!(first.log.len(), 16);
    assert_eq!(first.oldest, Oldest { alert: Seq(1), device: Seq(1) });
    names::register(&mut store, "gw", &[("boiler", &[("temperature", Some("°C"))])]).unwrap();
    let committed = store
        .commit(&Commit {
            received_at: NOW,
            readings: vec![reading(0, 5, 7)],
            queues: vec![number(Lane::Readings, 7), number(Lane::Events, 2)],
            events: vec![status(NOW), alert("hot", AlertStatus::Active, Severity::Warning)],
            rules: vec![
                RuleChange { name: "hot".into(), json: Some("{\"a\":1}".into()) },
                RuleChange { name: "cold".into(), json: Some("{}".into()) },
            ],
            watches: [("hot", Some("1")), ("cold", Some("2"))].map(watch).into(),
            ..Commit::default()
        })
        .unwrap();
    let deleted = RuleChange { name: "cold".into(), json: None };
    let watches = [("hot", Some("3")), ("cold", None)].map(watch).into();
    store.commit(&Commit { rules: vec![deleted], watches, ..Commit::default() }).unwrap();
    drop(store);

    let (store, again) = Store::open(dir.path()).unwrap();
    assert_eq!(again.log, first.log);
    assert_eq!(again.names.len(), 2);
    assert_eq!(values(&again), [reading(0, 5, 7)]);
    assert_eq!(again.watches, [(("hot".into(), DeviceId(1)), "3".to_owned())]);
    assert_eq!(again.rules, [("hot".to_owned(), "{\"a\":1}".to_owned())]);
    let mut queues = again.queues;
    queues.sort_by_key(|(key, _)| key.lane as u8);
    assert_eq!(queues, [number(Lane::Readings, 7), number(Lane::Events, 2)]);
    let events: Vec<_> = again.devices.iter().chain(&again.alerts).cloned().collect();
    assert_eq!(events, committed.events);
    assert_eq!((again.alert_seq.0, again.device_seq.0), (1, 1));
    let statuses = again.statuses.into_iter().map(CommittedEvent::Status);
    assert_eq!(statuses.collect::<Vec<_>>(), committed.events[..1]);
    let open = again.open_alerts.into_iter().map(CommittedEvent::Alert);
    assert_eq!(open.collect::<Vec<_>>(), committed.events[1..]);

    let of = |name: &str| {
        let sql = format!("PRAGMA {name}");
        store.db.query_row(&sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
    };
    assert_eq!(of("auto_vacuum"), 2.into());
    assert_eq!(of("page_size"), 4096.into());
    assert_eq!(of("synchronous"), 2.into());
    assert_eq!(of("foreign_keys"), 1.into());
    assert_eq!(of("journal_mode"), "wal".to_owned().into());
    for file in ["lock", "valtronics.db", "valtronics.db-wal"] {
        let mode = dir.path().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_new_directory_is_for_the_server_alone() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("not/yet");
    Store::open(&data).unwrap();
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn alerts_open_rise_end_and_come_again() {
    use AlertStatus::{Acknowledged, Active, Resolved, Shelved};
    use Severity::{Critical, Info, Warning};
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    // Each transition, and the alert_id, seq, announcement and severities that it gets.
    let steps = [
        (Resolved, Warning, None),
        (Acknowledged, Warning, None),
        (Active, Warning, Some((1, 1, true, had(&[Warning])))),
        (Acknowledged, Warning, Some((1, 2, false, had(&[Warning])))),
        (Active, Critical, Some((1, 3, true, had(&[Warning, Critical])))),
        (Active, Info, Some((1, 4, false, had(&[Warning, Critical, Info])))),
        (Active, Warning, Some((1, 5, true, had(&[Warning, Critical, Info])))),
        (Shelved, Warning, Some((1, 6, false, had(&[Warning, Critical, Info])))),
        (Resolved, Critical, Some((1, 7, false, had(&[Warning, Critical, Info])))),
        (Resolved, Critical, None),
        (Active, Info, Some((2, 8, true, had(&[Info])))),
    ];
    for (status, severity, expected) in steps {
        let committed = store.commit(&events(vec![alert("hot", status, severity)])).unwrap();
        assert_eq!(shown(&committed.events).first(), expected.as_ref(), "{status:?} {severity:?}");
        // What is open must not hang on this process.
        drop(store);
        store = Store::open(dir.path()).unwrap().0;
    }
    // The same in one commit, and another key.
    let committed = store.commit(&events(vec![
        alert("hot", Resolved, Info),
        alert("hot", Active, Warning),
        alert("cold", Active, Info),
        alert("hot", Active, Critical),
    ]));
    let expected = [
        (2, 9, false, had(&[Info])),
        (3, 10, true, had(&[Warning])),
        (4, 11, true, had(&[Info])),
        (3, 12, true, had(&[Warning, Critical])),
    ];
    assert_eq!(shown(&committed.unwrap().events), expected);
}

#[test]
fn numbers_only_grow() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let mut highest = 0;
    for next in [5, 4, 6, i64::MAX.cast_unsigned(), 7, 1 << 63, 8, u64::MAX, u64::MAX - 1] {
        highest = highest.max(next);
        let queues = vec![number(Lane::Readings, next)];
        store.commit(&Commit { queues, ..Commit::default() }).unwrap();
        drop(store);
        let restored;
        (store, restored) = Store::open(dir.path()).unwrap();
        assert_eq!(restored.queues, [number(Lane::Readings, highest)]);
    }
}

#[test]
fn the_newest_value_comes_back() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let rows = vec![reading(0, 10, 1), reading(1, 10, 2), reading(2, 10, 3)];
    store.commit(&readings(NOW, rows)).unwrap();
    // As if a preview had shown a value that no commit has brought yet.
    let written = [reading(0, 12, 4), reading(1, 10, 2), reading(2, 10, 3)];
    store.checkpoint(&written, &Marks::default()).unwrap();
    store.commit(&readings(NOW, vec![reading(0, 11, 5), reading(1, 11, 6)])).unwrap();
    store.commit(&readings(NOW, vec![reading(1, 11, 7), reading(3, 1, 8)])).unwrap();
    drop(store);
    let (store, restored) = Store::open(dir.path()).unwrap();
    let expected = [reading(0, 12, 4), reading(1, 11, 7), reading(2, 10, 3), reading(3, 1, 8)];
    assert_eq!(sorted(values(&restored)), expected);
    // What was written down needs no journal.
    store.db.execute("UPDATE journal SET rows = x'00' WHERE id = 1", []).unwrap();
    drop(store);
    assert_eq!(sorted(values(&Store::open(dir.path()).unwrap().1)), expected);
}

#[test]
fn what_is_old_goes() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let keep = DAY;
    let noise = |n: i64| (0..200).map(move |m| reading(0, n * 1000 + m, (n * m) << (m % 50)));
    for n in 0..1500 {
        let received_at = if n < 1200 { NOW } else { NOW.plus(DAY) };
        store.commit(&readings(received_at, noise(n).collect())).unwrap();
    }
    let pages = |store: &Store| -> u64 {
        store.db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap()
    };
    let before = pages(&store);
    assert!(!store.prune(keep, NOW.plus(keep)).unwrap());
    assert_eq!(rows_of(&store, "journal"), 1500);
    // Each commit has a millisecond of its own.
    let later = NOW.plus(keep + Duration::from_millis(1200));
    assert!(store.prune(keep, later).unwrap());
    assert_eq!(rows_of(&store, "journal"), 500);
    while store.prune(keep, later).unwrap() {}
    assert_eq!(rows_of(&store, "journal"), 300);
    assert!(pages(&store) < before / 3, "{} of {before} pages", pages(&store));
    // The newest commit stays, so that the next one gets no number that was used.
    while store.prune(keep, NOW.plus(keep * 10)).unwrap() {}
    assert_eq!(rows_of(&store, "journal"), 1);
    store.checkpoint(&[reading(0, 1, 1)], &Marks::default()).unwrap();
    store.commit(&readings(NOW, vec![reading(0, 2, 2)])).unwrap();
    while store.prune(keep, NOW.plus(keep * 10)).unwrap() {}
    drop(store);
    assert_eq!(values(&Store::open(dir.path()).unwrap().1), [reading(0, 2, 2)]);
}

#[test]
fn old_events_go_and_their_numbers_are_not_used_again() {
    use AlertStatus::{Active, Resolved};
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    names::register(&mut store, "gw", &[("boiler", &[])]).unwrap();
    let years = |n: u32| NOW.plus(DAY * 366 * n);
    let drafts = vec![
        alert("open", Active, Severity::Info),
        alert("over", Active, Severity::Info),
        alert("over", Resolved, Severity::Info),
        status(NOW),
        // An old moment among young ones: events go from the beginning only.
        status(years(1)),
        status(NOW),
        alert_at("late", Active, Severity::Info, years(1)),
        alert_at("late", Resolved, Severity::Info, years(1)),
        alert_at("open", Active, Severity::Info, years(1)),
    ];
    store.commit(&events(drafts)).unwrap();
    assert!(!store.prune(DAY, years(1)).unwrap());
    drop(store);
    let (mut store, restored) = Store::open(dir.path()).unwrap();
    assert_eq!(seqs(&restored.alerts), [4, 5, 6]);
    assert_eq!(seqs(&restored.devices), [2, 3]);
    assert_eq!(restored.oldest, Oldest { alert: Seq(4), device: Seq(2) });
    assert_eq!(store.oldest().unwrap(), restored.oldest);
    let page = |channel, after, most| seqs(&store.events_after(channel, Seq(after), most).unwrap());
    assert_eq!(page(Channel::Alerts, 4, 1), [5]);
    assert_eq!(page(Channel::Alerts, 4, 9), [5, 6]);
    assert_eq!(page(Channel::Devices, 0, 9), [2, 3], "whoever asks sees what is gone");
    assert_eq!(page(Channel::Devices, 3, 9), [0; 0]);
    assert_eq!(store.events_after(Channel::Alerts, Seq(3), 9).unwrap(), restored.alerts);
    assert_eq!(restored.open_alerts.len(), 1);
    assert_eq!(rows_of(&store, "alerts"), 2);
    assert!(!store.prune(DAY, years(9)).unwrap());
    drop(store);
    let (mut store, restored) = Store::open(dir.path()).unwrap();
    assert_eq!(seqs(&restored.alerts), [6]);
    assert_eq!(seqs(&restored.devices), [3]);
    let drafts = vec![status(NOW), alert("new", Active, Severity::Info)];
    let committed = store.commit(&events(drafts)).unwrap();
    assert_eq!(seqs(&committed.events), [4, 7]);
    assert_eq!(shown(&committed.events), [(4, 7, true, had(&[Severity::Info]))]);
}

#[test]
fn a_second_server_is_refused() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked(_))));
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn files_of_others_are_refused() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.db.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let newer = Store::open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(newer, StoreError::Newer { found: 99, .. }), "{newer}");

    let path = dir.path().join("valtronics.db");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let foreign = Store::open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(foreign, StoreError::Foreign(_)), "{foreign}");

    std::fs::write(&path, [b'x'; 8192]).unwrap();
    let garbage = Store::open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(garbage, StoreError::Damaged(_)), "{garbage}");
}

#[test]
fn an_older_file_is_brought_up_to_date() {
    let dir = TempDir::new().unwrap();
    schema::migrate_to(dir.path(), 1)
        .unwrap()
        .execute_batch(
            r#"INSERT INTO alerts VALUES (1, 0, 1, '{"alert_id":1,"device_id":1,"severity":"info",
           "title":"","message":"","timestamp":"2024-01-01T12:00:00Z","seq":3,
           "metadata":{"threshold_value":null,"actual_value":null}}')"#,
        )
        .unwrap();
    // The last version whose commits had no marks.
    let older = schema::migrate_to(dir.path(), 6).unwrap();
    let blob = |at, value| journal::encode(&[reading(at as u32 % 2, at, value)]);
    older.execute("INSERT INTO last_values VALUES (1, 0, ?1)", [blob(4, 4)]).unwrap();
    let commit = "INSERT INTO journal VALUES (1, 1, 7, 7, 1, ?1)";
    older.execute(commit, [blob(7, 7)]).unwrap();
    drop(older);
    let (store, restored) = Store::open(dir.path()).unwrap();
    assert_eq!(restored.open_alerts.len(), 1);
    assert_eq!(sorted(values(&restored)), [reading(0, 4, 4), reading(1, 7, 7)]);
    let seq: u64 = store.db.query_row("SELECT seq FROM alerts", [], |row| row.get(0)).unwrap();
    assert_eq!(seq, 3);
}
