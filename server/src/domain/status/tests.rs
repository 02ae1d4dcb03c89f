//! Scripts of what is heard and reported, and the changes that follow.

use proptest::prelude::*;

use super::*;

/// Plays lines such as `10 offline Cut -> Online to Offline: Cut`, times in seconds.
fn check(health: &mut Health, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once("->").unwrap_or((line, ""));
        let mut words = input.trim().splitn(3, ' ');
        let seconds: f64 = words.next().unwrap().parse().unwrap();
        let now = UnixMillis((seconds * 1000.0) as i64);
        apply(health, words.next().unwrap(), words.next().unwrap_or_default(), now);
        let told = health.transition(DeviceId(1), now);
        let told = told.map(|told| format!("{:?} to {:?}: {}", told.old, told.new, told.reason));
        assert_eq!(told.unwrap_or_default(), expected.trim(), "{line}");
    }
}

fn apply(health: &mut Health, what: &str, reason: &str, now: UnixMillis) {
    match what {
        "heard" => health.heard(now),
        "online" => health.reported(Status::Online, &reason.into(), now),
        "offline" => health.reported(Status::Offline, &reason.into(), now),
        "warning" => health.reported(Status::Warning, &reason.into(), now),
        "away" => health.gateway_away(now),
        "lost" => health.gateway_lost(reason, now),
        "back" => health.gateway_back(now),
        "tick" => {}
        other => panic!("{other}"),
    }
}

#[test]
fn silence_is_three_usual_intervals() {
    let mut health = Health::default();
    check(
        &mut health,
        "0 heard -> Offline to Online: Receiving data\n30 heard\n30 heard\n60 heard",
    );
    assert_eq!(health.deadline(), Some(UnixMillis(960_000)), "two intervals are no rhythm");
    check(&mut health, "90 heard");
    assert_eq!(health.deadline(), Some(UnixMillis(180_000)));
    check(
        &mut health,
        "179 tick
         180 tick -> Online to Offline: No data for 90 s
         181 tick",
    );
    assert_eq!(health.deadline(), None, "nothing more to come");
    check(&mut health, "300 heard -> Offline to Online: Receiving data");
}

#[test]
fn silence_has_a_floor_and_may_be_configured() {
    let mut health = Health::default();
    check(&mut health, "0 heard -> Offline to Online: Receiving data\n1 heard\n2 heard\n3 heard");
    check(&mut health, "47.9 tick\n48 tick -> Online to Offline: No data for 45 s");
    health.configure_offline_after(Some(Duration::from_secs(120)));
    check(&mut health, "50 heard -> Offline to Online: Receiving data");
    check(&mut health, "169 tick\n170 tick -> Online to Offline: No data for 2 min");
}

#[test]
fn metrics_on_topics_of_their_own_are_one_sign_of_life() {
    let mut health = Health::default();
    for minute in 0..4_i64 {
        for part in 0..9 {
            health.heard(UnixMillis(minute * 60_000 + part * 5));
        }
    }
    assert_eq!(health.deadline(), Some(UnixMillis(180_040 + 180_000)));
}

#[test]
fn a_device_that_sends_once_an_hour_is_found_to_do_so() {
    let mut health = Health::default();
    check(
        &mut health,
        "0 heard -> Offline to Online: Receiving data
         900 tick -> Online to Offline: No data for 15 min
         3600 heard -> Offline to Online: Receiving data
         4500 tick -> Online to Offline: No data for 15 min
         7200 heard -> Offline to Online: Receiving data
         8100 tick -> Online to Offline: No data for 15 min
         10800 heard -> Offline to Online: Receiving data
         21599 tick
         21600 tick -> Online to Offline: No data for 3 h",
    );
}

#[test]
fn the_worst_shows_and_then_the_next() {
    check(
        &mut Health::default(),
        "0 heard -> Offline to Online: Receiving data
         1 warning Battery low -> Online to Warning: Battery low
         2 heard
         3 offline Serial port unplugged -> Warning to Offline: Serial port unplugged
         4 lost Gateway gw-01 offline
         5 back
         6 online Serial port found -> Offline to Online: Serial port found
         7 lost Gateway gw-01 offline -> Online to Offline: Gateway gw-01 offline
         8 warning Battery low
         9 back -> Offline to Warning: Battery low
         10 offline Cut -> Warning to Offline: Cut
         11 heard -> Offline to Online: Receiving data",
    );
}

#[test]
fn a_gateway_explains_the_silence() {
    let heard = "0 heard -> Offline to Online: Receiving data\n1 heard\n2 heard\n3 heard\n";
    let gone =
        "4 away\n60 tick\n61 lost Gateway gw offline -> Online to Offline: Gateway gw offline\n";
    let back = "90 back -> Offline to Online: Gateway connected again\n";
    let mut health = Health::default();
    check(&mut health, &[heard, gone, back].concat());
    check(&mut health, "134 tick\n135 tick -> Online to Offline: No data for 45 s\n136 back");
    check(
        &mut Health::default(),
        &[heard, "48 tick -> Online to Offline: No data for 45 s\n49 away\n50 back\n99 lost Gw\n100 back"].concat(),
    );
    check(&mut Health::default(), &[heard, "4 away\n90 back\n134 tick\n134.5 heard"].concat());
}

#[test]
fn who_is_heard_without_its_gateway_is_there() {
    check(
        &mut Health::default(),
        "0 heard -> Offline to Online: Receiving data
         4 away
         5 lost Gateway gw offline -> Online to Offline: Gateway gw offline
         6 heard -> Offline to Online: Receiving data
         905 tick
         906 tick -> Online to Offline: No data for 15 min",
    );
}

#[test]
fn a_restart_changes_nothing_and_counts_silence_anew() {
    let (seen, start) = (Some(UnixMillis(5)), UnixMillis(1_000_000));
    let restored = |status, reason: &str| Health::restored(status, &reason.into(), seen, start);
    check(
        &mut restored(Status::Online, "Receiving data"),
        "1000 tick\n1899 tick\n1900 tick -> Online to Offline: No data for 15 min",
    );
    let mut offline = restored(Status::Offline, "Cut");
    assert_eq!(offline.last_seen(), seen);
    check(&mut offline, "99999 tick\n100000 heard -> Offline to Online: Receiving data");
    check(
        &mut restored(Status::Warning, "Battery low"),
        "1001 heard\n1002 online Charged -> Warning to Online: Charged",
    );
}

#[test]
fn nothing_is_said_before_something_is_known() {
    check(
        &mut Health::default(),
        "0 tick\n9999 tick\n10000 away\n10001 back\n10002 offline No such port -> Offline to Offline: No such port",
    );
    check(
        &mut Health::default(),
        "0 lost Gateway gw offline -> Offline to Offline: Gateway gw offline\n1 back",
    );
}

#[test]
fn a_report_has_its_own_time() {
    let mut health = Health::default();
    health.reported(Status::Warning, &"Battery low".into(), UnixMillis(7000));
    let told = health.transition(DeviceId(1), UnixMillis(9000)).unwrap();
    assert_eq!((told.at, told.last_seen), (UnixMillis(7000), None));
}

proptest! {
    #[test]
    fn each_change_begins_where_the_last_ended(
        steps in prop::collection::vec((0..8_usize, 0..120_000_i64), 1..60),
    ) {
        let inputs = ["heard", "online", "offline", "warning", "away", "lost", "back", "tick"];
        let (mut health, mut now, mut last) = (Health::default(), UnixMillis(0), None);
        for (input, later) in steps {
            now.0 += later;
            apply(&mut health, inputs[input], "Because", now);
            let due = health.deadline().is_some_and(|at| at <= now);
            let told = health.transition(DeviceId(1), now);
            prop_assert!(!due || told.is_some() , "a deadline is kept");
            if let Some(told) = told {
                prop_assert_eq!(told.old, last.unwrap_or(Status::Offline));
                prop_assert!(told.new != told.old || last.is_none());
                prop_assert!(told.at <= now);
                last = Some(told.new);
            }
            prop_assert!(health.deadline().is_none_or(|at| at > now), "no busy waiting");
            prop_assert!(health.transition(DeviceId(1), now).is_none());
        }
    }
}
