//! What a full disk, damage and a kill leave.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::*;

fn limit_pages(store: &Store, pages: u32) {
    store.db.pragma_update(None, "max_page_count", pages).unwrap();
}

#[test]
fn a_full_disk_leaves_no_hole() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    names::register(&mut store, "gw", &[("boiler", &[])]).unwrap();
    // Noise, which cannot be packed into the pages that there are.
    let noise = |n: i64| n.wrapping_mul(0x5851_F42D_4C95_7F2D).rotate_left(17).wrapping_mul(n | 1);
    let commit = Commit {
        readings: (0..20_000).map(|n| reading(0, n, noise(n))).collect(),
        queues: vec![number(Lane::Readings, 9)],
        events: vec![status(NOW), alert("hot", AlertStatus::Active, Severity::Info)],
        ..Commit::default()
    };
    limit_pages(&store, 1);
    for _ in 0..3 {
        assert!(matches!(store.commit(&commit), Err(StoreError::DiskFull)));
    }
    // The limit holds for names too: what comes into being takes a page at some time.
    let failed = (0..).find_map(|n| {
        let name = format!("{n:0>1000}");
        names::register(&mut store, "gw", &[(&name, &[])]).err().map(|error| (n, error))
    });
    let (n, error) = failed.unwrap();
    assert!(matches!(error, RegisterError::Store(StoreError::DiskFull)), "{error}");
    limit_pages(&store, u32::MAX - 1);
    let named = names::register(&mut store, "gw", &[("after", &[])]).unwrap().named;
    assert_eq!(named[0].id, DeviceId(2 + n));
    let committed = store.commit(&commit).unwrap();
    assert_eq!(seqs(&committed.events), [1, 1]);
    assert_eq!(shown(&committed.events), [(1, 1, true, had(&[Severity::Info]))]);
    drop(store);
    let (_, restored) = Store::open(dir.path()).unwrap();
    assert_eq!(restored.queues, [number(Lane::Readings, 9)]);
    assert_eq!(values(&restored), commit.readings[19_999..]);
}

#[test]
fn a_refused_commit_leaves_no_hole() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let refuse = "CREATE TABLE refused (id REFERENCES devices DEFERRABLE INITIALLY DEFERRED);
                  CREATE TRIGGER refuse AFTER INSERT ON events BEGIN
                  INSERT INTO refused VALUES (-1); END";
    store.db.execute_batch(refuse).unwrap();
    let commit = events(vec![status(NOW), alert("hot", AlertStatus::Active, Severity::Info)]);
    // Every statement succeeds; the transaction's end does not.
    assert!(matches!(store.commit(&commit), Err(StoreError::Database(_))));
    store.db.execute_batch("DROP TRIGGER refuse").unwrap();
    let committed = store.commit(&commit).unwrap();
    assert_eq!(seqs(&committed.events), [1, 1]);
    assert_eq!(shown(&committed.events), [(1, 1, true, had(&[Severity::Info]))]);
}

#[test]
fn damage_costs_what_is_damaged() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.commit(&readings(NOW, vec![reading(0, 1, 1)])).unwrap();
    store.checkpoint(&[reading(0, 1, 1)], &Marks::default()).unwrap();
    for n in [2, 3] {
        store.commit(&readings(NOW, vec![reading(0, n, n)])).unwrap();
    }
    let flip = "SET rows = CAST(substr(rows, 1, length(rows) - 1) || 'x' AS BLOB)";
    store.db.execute(&format!("UPDATE journal {flip} WHERE id = 2"), []).unwrap();
    drop(store);
    let (store, restored) = Store::open(dir.path()).unwrap();
    assert_eq!((restored.damaged, values(&restored)), (1, vec![reading(0, 3, 3)]));
    store.db.execute("UPDATE journal SET marks = x'00' WHERE id = 3", []).unwrap();
    drop(store);
    let (store, restored) = Store::open(dir.path()).unwrap();
    assert_eq!((restored.damaged, values(&restored)), (2, vec![reading(0, 1, 1)]));
    store.db.execute("UPDATE journal SET marks = NULL", []).unwrap();
    store.db.execute(&format!("UPDATE last_values {flip}"), []).unwrap();
    drop(store);
    let (_, restored) = Store::open(dir.path()).unwrap();
    assert_eq!((restored.damaged, values(&restored)), (2, vec![reading(0, 3, 3)]));
}

/// Names the data directory of the process that is to be killed.
const DIR: &str = "STORE_TEST_DIR";

/// Commits and says so until it is killed.
#[test]
#[ignore = "runs in a process of its own, started by the test below"]
fn commits_for_ever() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (mut store, restored) = Store::open(Path::new(&dir)).unwrap();
    if restored.names.is_empty() {
        names::register(&mut store, "gw", &[("boiler", &[])]).unwrap();
    }
    let from = restored.queues.first().map_or(0, |(_, number)| *number);
    for n in from + 1.. {
        let commit = Commit {
            received_at: NOW,
            readings: vec![reading(0, n.cast_signed(), n.cast_signed())],
            queues: vec![number(Lane::Readings, n)],
            events: vec![status(NOW)],
            ..Commit::default()
        };
        store.commit(&commit).unwrap();
        println!("committed {n}");
    }
}

#[test]
fn a_kill_loses_nothing_that_was_committed() {
    let dir = TempDir::new().unwrap();
    let mut before = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::failures::commits_for_ever",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        let said =
            |line: std::io::Result<String>| line.ok()?.strip_prefix("committed ")?.parse().ok();
        while told < before + 20 {
            told = said(lines.next().expect("it commits until it is killed")).unwrap_or(told);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told = lines.filter_map(said).last().unwrap_or(told);
        let (_, restored) = Store::open(dir.path()).unwrap();
        let [(_, reached)] = restored.queues[..] else { panic!("one numbering") };
        // The kill may come between a commit and its being told.
        assert!(reached == told || reached == told + 1, "{reached} after {told}");
        assert_eq!(restored.device_seq.0, reached);
        assert_eq!(seqs(&restored.devices), (1..=reached).collect::<Vec<_>>());
        let last = reached.cast_signed();
        assert_eq!(values(&restored), [reading(0, last, last)]);
        before = reached;
    }
}
