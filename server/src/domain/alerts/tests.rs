//! Scripts of readings and the transitions that follow.

use std::{collections::HashMap, fmt::Write};

use proptest::prelude::*;

use super::*;

mod kinds;

const DEVICE: DeviceId = DeviceId(1);

fn rule(name: &str, rest: &str) -> Rule {
    let kind = if rest.contains("kind") { "" } else { r#""kind":"threshold","# };
    let json = format!(r#"{{"metric":"t",{kind}{rest}}}"#);
    Rule::parse_json(&json, Some(name)).unwrap()
}

fn engine(rest: &str) -> Alerts {
    let mut alerts = Alerts::default();
    alerts.set_rules(vec![rule("r", rest)], UnixMillis(0), &mut Vec::new());
    alerts
}

/// Begins with one alert of rule `r`.
fn before(rule: &str, metric: &str, severity: Severity, status: AlertStatus) -> Alerts {
    let key = AlertKey { rule: rule.into(), device: DEVICE, metric: metric.into() };
    let alert_type = "threshold".into();
    let open = vec![OpenBefore { key, alert_type, severity, status }];
    Alerts::restore(Before { open, ..Before::default() }, UnixMillis(0))
}

fn told(out: &[AlertDraft]) -> String {
    let mut told = String::new();
    for draft in out {
        let actual = draft.actual.as_ref().map(ToString::to_string).unwrap_or_default();
        let (status, severity) = (draft.status, draft.severity);
        write!(told, "{status:?} {severity:?} {actual} at {}; ", draft.at.0 / 1000).unwrap();
    }
    told.trim_end_matches("; ").to_owned()
}

/// Plays lines such as `10 31.5 -> Active Warning 31.5 at 10`: second, value or `tick`, and what is
/// told; `9@10` is measured at 9 and received at 10.
fn check(alerts: &mut Alerts, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once("->").unwrap_or((line, ""));
        let (time, value) = input.trim().split_once(' ').unwrap();
        let (at, now) = time.split_once('@').unwrap_or((time, time));
        let moment = |text: &str| UnixMillis(text.parse::<i64>().unwrap() * 1000);
        let mut out = Vec::new();
        if value == "tick" {
            alerts.tick(moment(now), &mut out);
        } else {
            let value = serde_json::from_str(value).unwrap();
            for rule in alerts.rules_for("d", "s/d", "t") {
                alerts.observe(rule, DEVICE, &value, (moment(at), moment(now)), &mut out);
            }
        }
        assert_eq!(told(&out), expected.trim(), "{line}");
    }
}

#[test]
fn a_rule_that_changed_while_the_server_was_stopped_ends_its_alerts() {
    for (after, expected) in [
        (vec![rule("r", r#""above":30,"for":"1m""#)], ""),
        (vec![rule("r", r#""above":31,"for":"1m""#)], "Rule r was changed"),
        (vec![], "Rule r was deleted"),
    ] {
        let mut alerts = before("r", "t", Severity::Warning, AlertStatus::Active);
        let mut out = Vec::new();
        let known = vec![rule("r", r#""above":30,"for":"1m""#)];
        alerts.set_rules(known, UnixMillis(1000), &mut out);
        assert_eq!(told(&out), "", "so it was when the server stopped");
        alerts.set_rules(after, UnixMillis(2000), &mut out);
        assert_eq!(out.first().map_or("", |draft| &*draft.message), expected);
        if !expected.is_empty() {
            assert_eq!(told(&out), "Resolved Warning  at 2");
            assert!(alerts.watches.is_empty() && alerts.schedule.is_empty());
        }
    }
}

#[test]
fn hysteresis_keeps_an_alert_until_it_is_clear() {
    check(
        &mut engine(r#""above":30.0,"clear_below":28.0,"severity":"critical""#),
        "0 29.0
         1 30.0
         2 30.5 -> Active Critical 30.5 at 2
         3 29.0
         4 28.0
         5 31
         6 27.9 -> Resolved Critical 27.9 at 6
         7 29.0
         8 30.1 -> Active Critical 30.1 at 8",
    );
}

#[test]
fn every_bound_begins_and_ends_an_alert() {
    for (rest, script) in [
        (r#""above":5"#, "0 5\n1 5.1 -> Active Warning 5.1 at 1\n2 5 -> Resolved Warning 5 at 2"),
        (r#""below":5"#, "0 5\n1 4 -> Active Warning 4 at 1\n2 5 -> Resolved Warning 5 at 2"),
        (
            r#""below":5,"clear_above":6"#,
            "1 4 -> Active Warning 4 at 1\n2 6\n3 6.5 -> Resolved Warning 6.5 at 3",
        ),
        (r#""outside":[1,2]"#, "0 1\n1 3 -> Active Warning 3 at 1\n2 2 -> Resolved Warning 2 at 2"),
        (
            r#""outside":[1,5],"clear_above":2,"clear_below":4"#,
            "1 0 -> Active Warning 0 at 1\n2 2\n3 4\n4 3 -> Resolved Warning 3 at 4",
        ),
        (r#""inside":[1,2]"#, "0 0\n1 1 -> Active Warning 1 at 1\n2 3 -> Resolved Warning 3 at 2"),
        (
            r#""inside":[1,2],"clear_below":0"#,
            "1 1 -> Active Warning 1 at 1\n2 0.5\n3 2.5 -> Resolved Warning 2.5 at 3",
        ),
        (
            r#""inside":[1,2],"clear_above":3,"clear_below":0"#,
            "1 1 -> Active Warning 1 at 1\n2 3\n3 0\n4 -1 -> Resolved Warning -1 at 4
             5 2 -> Active Warning 2 at 5\n6 4 -> Resolved Warning 4 at 6",
        ),
        (r#""equal":3"#, "0 4\n1 3.0 -> Active Warning 3.0 at 1\n2 4 -> Resolved Warning 4 at 2"),
        (
            r#""equal":9007199254740993"#,
            "0 9007199254740992\n1 9007199254740993 -> Active Warning 9007199254740993 at 1",
        ),
        (
            r#""equal":"on""#,
            "0 \"off\"\n1 \"on\" -> Active Warning on at 1\n2 7 -> Resolved Warning 7 at 2",
        ),
        (
            r#""equal":true"#,
            "0 false\n1 true -> Active Warning true at 1\n2 1 -> Resolved Warning 1 at 2",
        ),
        (r#""above":5"#, "0 true\n1 \"9\"\n2 9 -> Active Warning 9 at 2\n3 \"0\"\n4 false"),
    ] {
        check(&mut engine(rest), script);
    }
}

#[test]
fn a_condition_has_to_hold() {
    check(
        &mut engine(r#""above":30,"for":"3s""#),
        "0 31
         1 31
         2 0
         3 31
         5 31
         6 31 -> Active Warning 31 at 6
         7 30 -> Resolved Warning 30 at 7
         8 31
         9 0
         20 tick",
    );
}

#[test]
fn a_condition_matures_without_further_readings() {
    let mut alerts = engine(r#""above":30,"for":"3s""#);
    check(&mut alerts, "0 31\n2 tick");
    assert_eq!(alerts.deadline(), Some(UnixMillis(3000)));
    check(&mut alerts, "4 tick -> Active Warning 31 at 3");
    assert_eq!(alerts.deadline(), None);
    check(&mut alerts, "5 31\n6 0 -> Resolved Warning 0 at 6\n7 31\n8 0");
    assert_eq!(alerts.deadline(), None);
}

#[test]
fn a_clock_that_is_wrong_waits_as_long_as_any_other() {
    check(
        &mut engine(r#""above":30,"for":"10s""#),
        "100@5000 31
         5009 tick
         109@5009 31
         5010 tick -> Active Warning 31 at 110",
    );
}

#[test]
fn late_readings_never_date_the_end_before_the_beginning() {
    check(
        &mut engine(r#""above":30,"for":"10s""#),
        "0@0 31\n10 tick -> Active Warning 31 at 10\n5@60 0 -> Resolved Warning 0 at 10",
    );
}

#[test]
fn the_first_reading_after_a_silence_restarts_the_time() {
    check(
        &mut engine(r#""above":30,"for":"10s""#),
        "0 0
         1 0
         2 31
         5 31
         9 31
         20 31
         29 31
         30 31 -> Active Warning 31 at 30",
    );
}

#[test]
fn steps_move_one_alert_up_and_down() {
    let steps = r#""steps":[{"above":30,"severity":"warning"},{"above":35,"severity":"critical"}]"#;
    check(
        &mut engine(&format!(r#"{steps},"clear_below":28"#)),
        "0 31 -> Active Warning 31 at 0
         1 36 -> Active Critical 36 at 1
         2 35 -> Active Warning 35 at 2
         3 36 -> Active Critical 36 at 3
         4 29 -> Active Warning 29 at 4
         5 27 -> Resolved Warning 27 at 5
         6 40 -> Active Critical 40 at 6
         7 20 -> Resolved Critical 20 at 7",
    );
    check(
        &mut engine(&format!(r#"{steps},"for":"10s""#)),
        "0 31
         5 36
         10 36 -> Active Warning 36 at 10
         14 tick
         16 tick -> Active Critical 36 at 15
         17 30 -> Resolved Critical 30 at 17",
    );
}

#[test]
fn an_alert_says_both_values() {
    let check = |rest: &str, values: &[f64], expected: &[&str]| {
        let (mut alerts, mut out) = (engine(rest), Vec::new());
        for (second, value) in (0..).zip(values) {
            let at = UnixMillis(second);
            alerts.observe(RuleIndex(0), DEVICE, &Value::Float(*value), (at, at), &mut out);
        }
        let told = |draft: &AlertDraft| {
            format!("{} ({})", draft.message, draft.threshold.as_ref().unwrap())
        };
        assert_eq!(out.iter().map(told).collect::<Vec<_>>(), expected);
    };
    check(
        r#""above":30.0"#,
        &[31.5, 2.0],
        &["t is 31.5, above 30.0 (30.0)", "t is 2.0, no longer above 30.0 (30.0)"],
    );
    check(r#""outside":[1,9]"#, &[9.5], &["t is 9.5, outside 1 to 9 (9)"]);
    check(r#""above":3,"message":"Hot""#, &[5.0, 1.0], &["Hot (3)", "Hot (3)"]);
    check(
        r#""steps":[{"above":3,"severity":"info"},{"above":5,"severity":"critical"}],"clear_below":2"#,
        &[6.0, 2.5],
        &["t is 6.0, above 5 (5)", "t is 2.5, no longer above 3 but not clear of it (3)"],
    );
}

#[test]
fn changed_rules_end_their_alerts_and_the_others_go_on() {
    let mut alerts = Alerts::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| rule(name, r#""above":30,"for":"5s""#));
    let mut out = Vec::new();
    alerts.set_rules(vec![a.clone(), b.clone(), c.clone()], UnixMillis(0), &mut out);
    let active = "Active Warning 31 at 5; Active Warning 31 at 5; Active Warning 31 at 5";
    check(&mut alerts, &format!("0 31\n6 tick -> {active}"));
    alerts.set_rules(vec![rule("b", r#""above":1"#), c.clone()], UnixMillis(9000), &mut out);
    assert_eq!(told(&out), "Resolved Warning 31 at 9; Resolved Warning 31 at 9");
    assert_eq!(*out[0].message, *"Rule a was deleted");
    assert_eq!(*out[1].message, *"Rule b was changed");
    check(&mut alerts, "10 31 -> Active Warning 31 at 10");
    check(&mut alerts, "11 30 -> Resolved Warning 30 at 11\n12 31");
    alerts.set_rules(vec![c], UnixMillis(12_000), &mut out);
    check(&mut alerts, "17 tick -> Active Warning 31 at 17");
}

#[test]
fn restored_alerts_go_on() {
    let restore = |rule_name: &str, metric: &str, status| {
        let mut alerts = before(rule_name, metric, Severity::Warning, status);
        let mut out = Vec::new();
        alerts.set_rules(vec![rule("r", r#""above":30"#)], UnixMillis(0), &mut out);
        (alerts, told(&out))
    };
    for status in [AlertStatus::Active, AlertStatus::Acknowledged, AlertStatus::Shelved] {
        let (mut alerts, out) = restore("r", "t", status);
        assert_eq!(out, "");
        check(&mut alerts, "1 31\n2 0 -> Resolved Warning 0 at 2\n3 0");
    }
    assert_eq!(restore("gone", "t", AlertStatus::Active).1, "Resolved Warning  at 0");
    assert_eq!(restore("r", "other", AlertStatus::Active).1, "Resolved Warning  at 0");
}

#[test]
fn a_rise_in_severity_wakes_an_acknowledged_alert() {
    for (status, script) in [
        (
            AlertStatus::Acknowledged,
            "0 4 -> Acknowledged Warning 4 at 0\n1 6 -> Active Critical 6 at 1",
        ),
        (AlertStatus::Shelved, "0 2 -> Shelved Info 2 at 0\n1 6 -> Shelved Critical 6 at 1"),
    ] {
        let mut alerts = before("r", "t", Severity::Critical, status);
        let steps = r#""steps":[{"above":1,"severity":"info"},{"above":3},{"above":5,"severity":"critical"}]"#;
        alerts.set_rules(vec![rule("r", steps)], UnixMillis(0), &mut Vec::new());
        check(&mut alerts, script);
    }
}

#[test]
fn a_rule_watches_its_metric_of_its_devices() {
    let mut alerts = Alerts::default();
    let rules = [r#""device":"boiler*""#, r#""device":"site/*""#, r#""device":"*""#];
    let rules = ["a", "b", "c"].into_iter().zip(rules);
    let rules = rules.map(|(name, device)| rule(name, &format!(r#""above":1,{device}"#)));
    alerts.set_rules(rules.collect(), UnixMillis(0), &mut Vec::new());
    let found = |name, key, metric| {
        alerts.rules_for(name, key, metric).iter().map(|i| i.0).collect::<Vec<_>>()
    };
    assert_eq!(found("boiler-1", "site/boiler-1", "t"), [0, 1, 2]);
    assert_eq!(found("pump", "other/pump", "t"), [2]);
    assert!(found("boiler-1", "site/boiler-1", "u").is_empty());
}

proptest! {
    /// Whatever comes, each alert begins active, is resolved once, and moves only in between.
    #[test]
    fn there_is_one_alert_of_a_key_at_a_time(
        steps in prop::collection::vec((0..3_u64, 0..8_u8, 25..40_i64, -3000..9000_i64), 1..80),
        rests in prop::sample::subsequence(vec![
            r#""above":30,"clear_below":28"#,
            r#""outside":[28,35],"for":"4s","severity":"info""#,
            r#""steps":[{"above":30,"severity":"info"},{"above":33,"severity":"warning"},{"above":36,"severity":"critical"}],"clear_below":27,"for":"2s""#,
            r#""equal":31"#,
            r#""kind":"rate","above":3,"per":"4s","for":"1s""#,
            r#""kind":"stuck","for":"3s""#,
            r#""kind":"missing","for":"35s""#,
        ], 1..7),
    ) {
        let rules = |rests: &[&str]| rests.iter().map(|rest| rule(&rest.len().to_string(), rest)).collect::<Vec<_>>();
        let (mut alerts, mut out) = (Alerts::default(), Vec::new());
        alerts.set_rules(rules(&rests), UnixMillis(0), &mut out);
        let (mut now, mut open) = (UnixMillis(0), HashMap::new());
        for (device, what, value, later) in steps {
            now.0 += later.max(0);
            let at = UnixMillis(now.0 + later.min(0));
            match what {
                0 => alerts.set_rules(rules(&rests[1..]), now, &mut out),
                1 => alerts.set_rules(rules(&rests), now, &mut out),
                2 => alerts.tick(now, &mut out),
                _ => {
                    for rule in alerts.rules_for("d", "s/d", "t") {
                        alerts.observe(rule, DeviceId(device), &Value::Int(value), (at, now), &mut out);
                    }
                }
            }
            if what == 2 {
                prop_assert!(alerts.deadline().is_none_or(|due| due > now), "no busy waiting");
            }
            for draft in out.drain(..) {
                let now = (draft.severity, draft.at);
                match (draft.status, open.insert(draft.key.clone(), now)) {
                    (AlertStatus::Active, None) => {}
                    (AlertStatus::Active, Some((severity, at))) => {
                        let held = draft.message.contains("held until");
                        prop_assert!((held || severity != draft.severity) && at <= draft.at);
                    }
                    (AlertStatus::Resolved, Some((severity, _))) => {
                        prop_assert_eq!(severity, draft.severity);
                        open.remove(&draft.key);
                    }
                    (status, before) => prop_assert!(false, "{status:?} after {before:?}"),
                }
            }
            prop_assert!(alerts.schedule.len() <= alerts.watches.len());
        }
    }
}
