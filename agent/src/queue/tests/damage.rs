//! A disk that fails, tears and gives back something else.

use valtronics_protocol::uplink::{Gap, GapReason};

use super::*;

/// Appends in several commits, and returns the number of the last reading.
fn fill(queue: &mut Queue) -> u64 {
    for commit in 0..40 {
        append(queue, commit * 10..commit * 10 + 10);
        save(queue);
    }
    queue.end().seq
}

/// Copies what `bench` has, with `damage` done to the file `name`.
fn damaged(bench: &Bench, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Bench {
    let copy = Bench::new();
    for path in bench.files("") {
        std::fs::copy(&path, copy.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let mut file = std::fs::read(bench.path(name)).unwrap();
    damage(&mut file);
    std::fs::write(copy.path(name), file).unwrap();
    copy
}

/// Opens a damaged copy, and returns what is left and what is told as lost.
fn reopen(
    bench: &Bench,
    name: &str,
    damage: impl FnOnce(&mut Vec<u8>),
) -> (Vec<(u64, i64)>, Vec<Gap>) {
    let copy = damaged(bench, name, damage);
    let mut queue = copy.open();
    let found = read_all(&mut queue, 0);
    // It goes on as ever, and says at the next start what it says now.
    append(&mut queue, [1000]);
    let gaps = gaps_before_last(&mut queue);
    save(&mut queue);
    drop(queue);
    let mut again = copy.open();
    let mut expected = found.clone();
    expected.push((store::RESERVE + 1, 1000));
    assert_eq!(read_all(&mut again, 0), expected);
    assert_eq!(gaps_before_last(&mut again), gaps);
    (found, gaps)
}

fn gaps_before_last(queue: &mut Queue) -> Vec<Gap> {
    let seq = read_all(queue, 0).iter().rev().nth(1).map_or(0, |(number, _)| *number);
    read(queue, Position { seq, ..Position::default() }, ALL).gaps
}

/// A prefix of what was written, without a hole.
#[track_caller]
fn check_prefix(found: &[(u64, i64)]) -> usize {
    let expected: Vec<(u64, i64)> = (1..).zip(0..).take(found.len()).collect();
    assert_eq!(found, expected);
    found.len()
}

fn telemetry(bench: &Bench) -> (String, usize) {
    let path = bench.files("telemetry-").pop().unwrap();
    let file = std::fs::read(&path).unwrap();
    let used = file.len() - file.iter().rev().take_while(|byte| **byte == 0).count();
    (path.file_name().unwrap().to_str().unwrap().into(), used)
}

#[test]
fn a_file_may_end_at_any_byte() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let last = fill(&mut queue) as usize;
    drop(queue);
    let (name, used) = telemetry(&bench);
    let mut before = 0;
    for length in used.saturating_sub(4096)..=used {
        let (found, gaps) = reopen(&bench, &name, |file| file.truncate(length));
        let kept = check_prefix(&found);
        assert!(kept >= before && kept.is_multiple_of(10), "{kept} after {length} bytes");
        assert_eq!(gaps, [], "nothing says that more was there");
        before = kept;
    }
    assert_eq!(before, last);
}

#[test]
fn any_bit_may_flip() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let last = fill(&mut queue);
    drop(queue);
    let (name, used) = telemetry(&bench);
    for at in used.saturating_sub(4096)..used {
        let (found, gaps) = reopen(&bench, &name, |file| file[at] ^= 1 << (at % 8));
        let kept = check_prefix(&found) as u64;
        let lost: u64 = gaps.iter().map(|gap| gap.last + 1 - gap.first).sum();
        let is_length = kept + lost < last;
        assert!(gaps.len() <= 1 && gaps.iter().all(|gap| gap.first == kept + 1));
        // Where a record's length is damaged, nothing tells what follows from a torn end.
        assert!(kept + lost == last || is_length && lost == 0, "byte {at}: {kept} + {lost}");
        if at < segment::RECORDS {
            assert_eq!(kept, last, "the second header counts");
        }
    }
}

#[test]
fn after_a_clean_end_every_loss_is_counted() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let last = fill(&mut queue);
    close(queue);
    let (name, used) = telemetry(&bench);
    for at in segment::RECORDS..used {
        let (found, gaps) = reopen(&bench, &name, |file| file[at] ^= 0x80);
        let kept = check_prefix(&found) as u64;
        let lost: Vec<_> = gaps.iter().map(|gap| (gap.first, gap.last, gap.reason)).collect();
        assert_eq!(lost, [(kept + 1, last, GapReason::Corrupt)], "byte {at}");
    }
    let (found, gaps) = reopen(&bench, &name, |file| file.fill(0xff));
    assert_eq!((found.len(), gaps[0].first, gaps[0].last), (0, 1, last));
}

#[test]
fn a_segment_that_was_only_begun_is_no_loss() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let last = fill(&mut queue) as usize;
    drop(queue);
    let mut queue = bench.open();
    append(&mut queue, [last as i64]);
    save(&mut queue);
    drop(queue);
    let (name, _) = telemetry(&bench);
    let mut bench = damaged(&bench, &name, |file| file.truncate(segment::RECORDS));
    for _ in 0..2 {
        let mut queue = bench.open();
        append(&mut queue, [1000]);
        assert_eq!(gaps_before_last(&mut queue), []);
        save(&mut queue);
        drop(queue);
        bench = damaged(&bench, "cursor", |_| {});
    }
    assert_eq!(check_prefix(&read_all(&mut bench.open(), 0)[..last]), last);
}

#[test]
fn the_cursor_outlives_the_loss_of_a_slot() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let last = fill(&mut queue) as usize;
    let id = queue.id();
    drop(queue);
    for slot in [0, 4096] {
        for at in slot..slot + 84 {
            let copy = damaged(&bench, "cursor", |file| file[at] ^= 1 << (at % 8));
            let mut queue = copy.open();
            assert_eq!(queue.id(), id);
            assert!(queue.append(UnixMillis(START), [reading(1)]) > store::RESERVE);
            assert_eq!(check_prefix(&read_all(&mut queue, 0)[..last]), last);
        }
    }
    // Both are lost: the newest segment tells the id, and numbers jump far enough.
    let copy = damaged(&bench, "cursor", |file| file.fill(0));
    let mut queue = copy.open();
    assert_eq!(queue.id(), id);
    assert!(queue.append(UnixMillis(START), [reading(1)]) > 2 * store::RESERVE);
    assert_eq!(check_prefix(&read_all(&mut queue, 0)[..last]), last);
}

#[test]
fn what_a_newer_version_wrote_is_set_aside() {
    let bench = Bench::new();
    let mut queue = bench.open();
    fill(&mut queue);
    drop(queue);
    let (name, _) = telemetry(&bench);
    let mut file = std::fs::read(bench.path(&name)).unwrap();
    file[8] = 9;
    file[64 + 8] = 9;
    std::fs::write(bench.path(&name), &file).unwrap();
    assert_eq!(values(&mut bench.open()), Vec::<i64>::new());
    assert_eq!(std::fs::read(bench.path(&format!("{name}.newer"))).unwrap(), file);
}

#[test]
fn what_was_damaged_is_kept_but_not_for_ever() {
    let bench = Bench::new();
    for _ in 0..10 {
        let mut queue = bench.open();
        fill(&mut queue);
        drop(queue);
        let (name, _) = telemetry(&bench);
        let mut file = std::fs::read(bench.path(&name)).unwrap();
        file.fill(7);
        std::fs::write(bench.path(&name), &file).unwrap();
    }
    drop(bench.open());
    assert_eq!(bench.files(".damaged").len(), 4);
    assert!(bench.bytes() <= bench.config.max_bytes.0);
}

#[test]
fn a_failed_sync_is_never_trusted() {
    let bench = Bench::new();
    let mut queue = bench.open();
    append(&mut queue, 0..5);
    save(&mut queue);
    append(&mut queue, 5..10);
    bench.faults.fail_syncs(1);
    save(&mut queue);
    let Counters { unsaved, disk_errors, .. } = queue.counters();
    assert_eq!((unsaved, disk_errors, queue.safe()), (5, 1, 5));
    append(&mut queue, 10..15);
    save(&mut queue);
    assert_eq!((queue.counters().unsaved, queue.safe()), (0, 15));
    assert_eq!(bench.files("telemetry-").len(), 2);
    drop(queue);
    bench.faults.cut_power(|_| 0);
    let mut queue = bench.open();
    assert_eq!(check_prefix(&read_all(&mut queue, 0)), 15);
    assert_eq!(read(&mut queue, Position::default(), ALL).gaps, []);
}

#[test]
fn without_a_disk_it_goes_on_in_memory_and_comes_back() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
        let bench = Bench::new();
        let mut queue = bench.open();
        append(&mut queue, 0..5);
        save(&mut queue);
        bench.faults.fail_writes(Some(kind));
        append(&mut queue, 5..10);
        queue.append_event(event("a"));
        // A file that is there could still be written to, but not this one.
        save(&mut queue);
        assert!(queue.is_disk_broken());
        assert_eq!(check_prefix(&read_all(&mut queue, 0)), 10);
        bench.faults.fail_writes(None);
        save(&mut queue);
        assert!(!queue.is_disk_broken());
        drop(queue);
        let mut queue = bench.open();
        assert_eq!(check_prefix(&read_all(&mut queue, 0)), 10);
        assert_eq!(events(&mut queue), [(1, "a".into())]);
    }
}

#[test]
fn a_disk_that_stays_broken_costs_the_oldest() {
    let mut bench = Bench::new();
    bench.config = Config::default();
    bench.faults.fail_writes(Some(io::ErrorKind::ReadOnlyFilesystem));
    let mut queue = bench.open();
    let id = queue.id();
    append(&mut queue, 0..200_000);
    save(&mut queue);
    let Counters { evicted, waiting, unsaved, .. } = queue.counters();
    assert_eq!((evicted + waiting, waiting), (200_000, unsaved));
    assert!(evicted > 0 && waiting > 50_000, "{evicted} are lost");
    let gaps = read(&mut queue, Position::default(), ALL).gaps;
    let lost = [(1, evicted, GapReason::Evicted)];
    assert_eq!(gaps.iter().map(|gap| (gap.first, gap.last, gap.reason)).collect::<Vec<_>>(), lost);
    bench.faults.fail_writes(None);
    save(&mut queue);
    assert_eq!((queue.counters().unsaved, queue.id()), (0, id.clone()));
    drop(queue);
    let mut queue = bench.open();
    assert_eq!((queue.id(), read(&mut queue, Position::default(), ALL).gaps), (id, gaps));
}

#[test]
fn room_is_left_for_others() {
    let bench = Bench::new();
    let mut queue = bench.open();
    append(&mut queue, 0..10);
    save(&mut queue);
    bench.faults.set_free_bytes(Some(1024 * 1024));
    let mut next = 10;
    while queue.counters().evicted == 0 {
        append(&mut queue, next..next + 1000);
        next += 1000;
        save(&mut queue);
        assert!(next < 100_000);
    }
    // The segment that is there is written over.
    assert_eq!(bench.files("telemetry-").len(), 1);
    assert!(!queue.is_disk_broken());
}
