//! The other kinds, what people do, flapping, and going on after a restart.

use super::*;

fn alerts(json: &str) -> Alerts {
    let mut alerts = Alerts::restore(Before::default(), UnixMillis(0));
    let rule = Rule::parse_json(json, Some("r")).unwrap();
    alerts.set_rules(vec![rule], UnixMillis(0), &mut Vec::new());
    alerts
}

fn change(alerts: &mut Alerts, change: Change, second: i64) -> String {
    let key = AlertKey { rule: "r".into(), device: DEVICE, metric: "t".into() };
    let mut out = Vec::new();
    alerts.change(&key, change, UnixMillis(second * 1000), &mut out);
    told(&out)
}

#[test]
fn a_value_that_stays_the_same_is_stuck_while_it_speaks() {
    let stuck = r#"{"metric":"t","kind":"stuck","for":"10s"}"#;
    check(
        &mut alerts(stuck),
        "0 5
         9 5
         30 tick
         31 5 -> Active Warning 31 at 31
         32 5
         33 6 -> Resolved Warning 33 at 33
         42 6
         43 6 -> Active Warning 10 at 43
         44 \"x\" -> Resolved Warning 11 at 44",
    );
    // Of the same reading twice, the second one says nothing new.
    check(&mut alerts(stuck), "0 5\n0 5\n9 5\n10 5 -> Active Warning 10 at 10\n10 5");
}

#[test]
fn a_metric_is_missing_by_the_servers_clock() {
    let mut missing = alerts(r#"{"metric":"t","kind":"missing","for":"60s"}"#);
    missing.watch(RuleIndex(0), DEVICE, None, UnixMillis(5000));
    check(
        &mut missing,
        "64 tick
         65 tick -> Active Warning 60 at 65
         66 tick
         9000@70 1 -> Resolved Warning 65 at 70
         9000@100 1
         0@129 2
         188 tick
         189 tick -> Active Warning 60 at 189",
    );
    assert_eq!(missing.deadline(), None);
}

#[test]
fn each_kind_says_what_is_wrong_and_when_it_no_longer_is() {
    let check = |rule: &str, values: &[(i64, i64)], expected: &[&str]| {
        let (mut alerts, mut out) = (alerts(rule), Vec::new());
        for (second, value) in values {
            let at = UnixMillis(second * 1000);
            alerts.tick(at, &mut out);
            alerts.observe(RuleIndex(0), DEVICE, &Value::Int(*value), (at, at), &mut out);
        }
        let told = |draft: &AlertDraft| {
            let [threshold, actual] =
                [&draft.threshold, &draft.actual].map(|v| v.as_ref().unwrap());
            format!("{}: {} ({threshold}, {actual})", draft.alert_type, draft.message)
        };
        assert_eq!(out.iter().map(told).collect::<Vec<_>>(), expected);
    };
    check(
        r#"{"metric":"t","kind":"rate","above":5,"per":"1m"}"#,
        &[(0, 20), (60, 32), (120, 33)],
        &[
            "rate: t changes by 12.0 per 1m, above 5 (5, 12.0)",
            "rate: t changes by 1.0 per 1m, no longer above 5 (5, 1.0)",
        ],
    );
    check(
        r#"{"metric":"t","kind":"missing","for":"5m"}"#,
        &[(0, 20), (360, 20)],
        &[
            "missing: No t for 5 min, expected every 5 min (300, 300)",
            "missing: t is heard again after 6 min (300, 360)",
        ],
    );
    check(
        r#"{"metric":"t","kind":"stuck","for":"5m"}"#,
        &[(0, 20), (360, 20), (480, 21)],
        &[
            "stuck: t is 20, unchanged for 6 min (300, 360)",
            "stuck: t is 21, changed after 8 min (300, 480)",
        ],
    );
    let (mut offline, mut out) = (alerts(r#"{"kind":"status","is":"offline"}"#), Vec::new());
    for (second, status) in [(1, Status::Offline), (2, Status::Online)] {
        let at = UnixMillis(second);
        offline.observe_status(RuleIndex(0), DEVICE, status, (at, at), &mut out);
    }
    let told: Vec<&str> = out.iter().map(|draft| &*draft.message).collect();
    assert_eq!(told, ["Device is offline", "Device is online, no longer offline"]);
}

#[test]
fn after_a_start_agents_have_time_to_come_back() {
    let mut missing = alerts(r#"{"metric":"t","kind":"missing","for":"5s"}"#);
    let long_ago = (&Value::Int(1), UnixMillis(-60_000));
    missing.watch(RuleIndex(0), DEVICE, Some(long_ago), UnixMillis(0));
    check(
        &mut missing,
        "10 tick
         29 tick
         31 tick -> Active Warning 90 at 30",
    );
    let mut spoke = alerts(r#"{"metric":"t","kind":"missing","for":"5s"}"#);
    spoke.watch(RuleIndex(0), DEVICE, Some(long_ago), UnixMillis(0));
    check(&mut spoke, "20 1\n26 tick\n29 1\n33 tick\n34 tick -> Active Warning 5 at 34");
}

#[test]
fn a_status_raises_an_alert_and_ends_it() {
    let mut offline = alerts(r#"{"kind":"status","is":"offline","for":"5s"}"#);
    let status = |alerts: &mut Alerts, status, second: i64| {
        let (at, mut out) = (UnixMillis(second * 1000), Vec::new());
        for rule in alerts.rules_for_status("d", "s/d") {
            alerts.observe_status(rule, DEVICE, status, (at, at), &mut out);
        }
        told(&out)
    };
    assert_eq!(status(&mut offline, Status::Online, 0), "");
    assert_eq!(status(&mut offline, Status::Offline, 1), "");
    assert_eq!(status(&mut offline, Status::Warning, 2), "");
    assert_eq!(status(&mut offline, Status::Offline, 3), "");
    check(&mut offline, "7 tick\n8 tick -> Active Warning offline at 8");
    assert_eq!(status(&mut offline, Status::Online, 9), "Resolved Warning online at 9");
    assert!(offline.rules_for("d", "s/d", "").len() < 2, "it watches no metric of a device");
}

#[test]
fn people_change_alerts() {
    let hot = r#"{"metric":"t","kind":"threshold","above":30}"#;
    let mut hot_now = alerts(hot);
    assert_eq!(change(&mut hot_now, Change::Acknowledge, 0), "", "there is none");
    check(&mut hot_now, "1 31 -> Active Warning 31 at 1");
    assert_eq!(change(&mut hot_now, Change::Acknowledge, 2), "Acknowledged Warning 31 at 2");
    assert_eq!(change(&mut hot_now, Change::Acknowledge, 3), "", "it is so already");
    let shelve = |second: i64| Change::Shelve(UnixMillis(second * 1000));
    assert_eq!(change(&mut hot_now, shelve(10), 4), "Shelved Warning 31 at 4");
    assert_eq!(change(&mut hot_now, shelve(8), 5), "", "only its end is another one");
    check(&mut hot_now, "7 32\n8 tick -> Active Warning 32 at 8\n10 tick");
    assert_eq!(change(&mut hot_now, Change::Resolve, 11), "Resolved Warning 32 at 11");
    assert_eq!(change(&mut hot_now, Change::Resolve, 12), "");
    check(&mut hot_now, "13 33\n14 30\n15 31 -> Active Warning 31 at 15");
    assert_eq!(change(&mut hot_now, shelve(20), 16), "Shelved Warning 31 at 16");
    check(&mut hot_now, "17 1 -> Resolved Warning 1 at 17\n20 tick");
}

#[test]
fn what_flaps_is_held_until_it_is_quiet() {
    let mut flaps = alerts(r#"{"metric":"t","kind":"threshold","above":30}"#);
    for n in 0..9 {
        let (up, down) = (2 * n, 2 * n + 1);
        let script = format!(
            "{up} 31 -> Active Warning 31 at {up}\n{down} 1 -> Resolved Warning 1 at {down}"
        );
        check(&mut flaps, &script);
    }
    check(
        &mut flaps,
        "18 31 -> Active Warning 31 at 18
         19 1 -> Active Warning 1 at 19
         20 31
         21 1
         400 31
         401 1
         1000 1
         1001 tick -> Resolved Warning 1 at 1001
         1002 31 -> Active Warning 31 at 1002
         1003 1 -> Resolved Warning 1 at 1003",
    );
}

#[test]
fn what_flaps_between_steps_stays_at_the_worse_one() {
    let steps = r#""steps":[{"above":30,"severity":"info"},{"above":35,"severity":"critical"}]"#;
    let mut flaps = engine(steps);
    let mut out = Vec::new();
    for second in 0..2000 {
        let (value, at) = (if second % 2 == 0 { 36 } else { 31 }, UnixMillis(second * 1000));
        flaps.observe(RuleIndex(0), DEVICE, &Value::Int(value), (at, at), &mut out);
    }
    // Ten rises, and nine falls between them, in each window.
    assert!(out.len() < 20 * 4, "{}", told(&out));
    check(&mut flaps, "2001 31\n2700 31 -> Active Info 31 at 2700");
}

/// What the engine would have saved by now.
fn save(alerts: &mut Alerts, kept: &mut HashMap<WatchKey, Saved>) {
    for (key, saved) in alerts.take_unsaved() {
        match saved {
            Some(saved) => drop(kept.insert(key, saved)),
            None => drop(kept.remove(&key)),
        }
    }
}

/// Begins again from what was saved, as a row would hold it.
fn again(
    rule: &Rule,
    kept: &HashMap<WatchKey, Saved>,
    open: &HashMap<AlertKey, (Severity, AlertStatus)>,
    last: Option<(&Value, UnixMillis)>,
    now: UnixMillis,
) -> Alerts {
    let row = |saved: &Saved| serde_json::from_str(&serde_json::to_string(saved).unwrap()).unwrap();
    let saved = kept.iter().map(|(key, saved)| (key.clone(), row(saved))).collect();
    let open = open.iter().map(|(key, (severity, status))| OpenBefore {
        key: key.clone(),
        alert_type: rule.kind.name().into(),
        severity: *severity,
        status: *status,
    });
    let mut alerts = Alerts::restore(Before { open: open.collect(), saved }, now);
    let mut out = Vec::new();
    alerts.set_rules(vec![rule.clone()], now, &mut out);
    alerts.watch(RuleIndex(0), DEVICE, last, now);
    assert!(out.is_empty());
    alerts
}

proptest! {
    /// Whenever the server is killed and starts again: what is told is the same.
    #[test]
    fn a_restart_changes_nothing(
        steps in prop::collection::vec((0..6_u8, 28..34_i64, prop::bool::weighted(0.3)), 1..80),
        rule in prop::sample::select(vec![
            r#"{"metric":"t","kind":"threshold","above":30}"#,
            r#"{"metric":"t","kind":"threshold","above":30,"clear_below":29,"for":"3s"}"#,
            r#"{"metric":"t","kind":"threshold","steps":[{"above":29,"severity":"info"},{"above":31,"severity":"critical"}],"for":"2s"}"#,
            r#"{"metric":"t","kind":"stuck","for":"2s"}"#,
        ]),
    ) {
        let rule = Rule::parse_json(rule, Some("r")).unwrap();
        let (none, nothing) = (HashMap::new(), HashMap::new());
        let mut on = again(&rule, &none, &nothing, None, UnixMillis(0));
        let mut killed = again(&rule, &none, &nothing, None, UnixMillis(0));
        let (mut kept, mut open, mut last) = (HashMap::new(), HashMap::new(), None);
        for ((what, value, kill), second) in steps.into_iter().zip(1..) {
            let now = UnixMillis(second * 1000);
            if kill {
                let last = last.as_ref().map(|(value, at)| (value, *at));
                killed = again(&rule, &kept, &open, last, now);
            }
            let [mut expected, mut found] = [Vec::new(), Vec::new()];
            for (alerts, out) in [(&mut on, &mut expected), (&mut killed, &mut found)] {
                let key = AlertKey { rule: "r".into(), device: DEVICE, metric: "t".into() };
                match what {
                    0 => alerts.change(&key, Change::Resolve, now, out),
                    1 => alerts.change(&key, Change::Acknowledge, now, out),
                    2 => alerts.change(&key, Change::Shelve(now.plus(Duration::from_secs(3))), now, out),
                    _ => {}
                }
                alerts.tick(now, out);
                alerts.observe(RuleIndex(0), DEVICE, &Value::Int(value), (now, now), out);
            }
            prop_assert_eq!(told(&expected), told(&found), "second {}", second);
            last = Some((Value::Int(value), now));
            save(&mut killed, &mut kept);
            for draft in found {
                match draft.status {
                    AlertStatus::Resolved => drop(open.remove(&draft.key)),
                    status => drop(open.insert(draft.key, (draft.severity, status))),
                }
            }
        }
    }
}
