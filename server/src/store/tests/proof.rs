//! What the proof of delivery needs: counts of agents, used keys, numberings that age, and room for
//! what has to be said of a full disk.

use std::net::Ipv4Addr;

use super::*;
use crate::{
    commit::QueueMachine,
    tally::{AgentChange, AgentId, AgentKey, AgentKind, AgentRecord, Tally},
    used_key::{Digest, UsedKey},
};

fn record(stored: u64) -> AgentRecord {
    AgentRecord {
        version: None,
        queue: Some("q".into()),
        address: Ipv4Addr::LOCALHOST.into(),
        last_seen: NOW,
        clock_offset_ms: None,
        tally: Tally { received: stored, stored, ..Tally::default() },
        reported: None,
    }
}

fn agent(id: u64, record: Option<AgentRecord>) -> AgentChange {
    let key = AgentKey { sub: "gw".into(), kind: AgentKind::Queue, name: id.to_string().into() };
    AgentChange { id: AgentId(id), key, record, is_new: true }
}

#[test]
fn agents_and_used_keys_come_back() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let used = |key: &str, at: UnixMillis| {
        let (key, body) = (Digest::of(key), Digest::of("body"));
        UsedKey { sub: "gw".into(), key, body, at }
    };
    let commit = Commit {
        agents: vec![agent(1, Some(record(1))), agent(2, Some(record(2)))],
        keys: vec![used("old", NOW), used("new", NOW.plus(DAY))],
        ..Commit::default()
    };
    store.commit(&commit).unwrap();
    // What changes all the time is written alone.
    let sums = AgentChange { is_new: false, ..agent(2, Some(record(3))) };
    let agents = vec![agent(1, None), sums];
    store.commit(&Commit { agents, ..Commit::default() }).unwrap();
    store.prune(DAY, NOW.plus(DAY * 3 / 2)).unwrap();
    drop(store);
    let (_, restored) = Store::open(dir.path()).unwrap();
    let key = agent(2, None).key;
    assert_eq!(restored.agents, [(AgentId(2), key, record(3))]);
    assert_eq!(restored.keys, [used("new", NOW.plus(DAY))]);
}

#[test]
fn a_numbering_that_is_not_seen_for_a_year_goes() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let mut seen = |lane, next, received_at| {
        let queues = vec![number(lane, next)];
        store.commit(&Commit { received_at, queues, ..Commit::default() }).unwrap();
    };
    seen(Lane::Readings, 1, NOW);
    seen(Lane::Events, 1, NOW);
    seen(Lane::Readings, 2, NOW.plus(DAY));
    let QueueKey { sub, queue, .. } = number(Lane::Readings, 1).0;
    let on = |queue| QueueMachine { sub: sub.clone(), queue, machine: "m".into() };
    let machines = vec![on(queue), on("gone".into())];
    store.commit(&Commit { machines, ..Commit::default() }).unwrap();
    store.prune(DAY, NOW.plus(DAY * 365)).unwrap();
    assert_eq!((rows_of(&store, "queues"), rows_of(&store, "queue_machines")), (2, 1));
    store.prune(DAY, NOW.plus(DAY * 366)).unwrap();
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().1.queues, [number(Lane::Readings, 2)]);
}

#[test]
fn what_is_kept_for_a_full_disk_is_let_go_and_taken_again() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let ballast = dir.path().join("ballast");
    assert_eq!(ballast.metadata().unwrap().len(), 8 * 1024 * 1024);
    store.db.pragma_update(None, "max_page_count", 1).unwrap();
    let commit = events((0..1000).map(|_| status(NOW)).collect());
    assert!(matches!(store.commit(&commit), Err(StoreError::DiskFull)));
    assert!(!ballast.exists());
    store.db.pragma_update(None, "max_page_count", u32::MAX - 1).unwrap();
    names::register(&mut store, "gw", &[("boiler", &[])]).unwrap();
    store.commit(&commit).unwrap();
    assert!(!store.is_short());
    assert!(ballast.exists());
}
