use super::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn shown(described: &mut Described, topic: &str, payload: &str) -> Vec<String> {
    let heard = described.hear(topic, payload.as_bytes(), NOW).expect("the topic is announced");
    let sample = |sample: &Sample| {
        let (device, unit) = (sample.device.as_deref(), sample.unit.as_deref());
        let (metric, value) = (&sample.metric, &sample.value);
        format!("{} {metric} {value} {}", device.unwrap_or("-"), unit.unwrap_or("-"))
    };
    heard.samples.iter().map(sample).collect()
}

fn announce(described: &mut Described, topic: &str, payload: &str) -> Change {
    let topic = format!("homeassistant/{topic}/config");
    described.announce(&topic, payload.as_bytes()).expect("it is an announcement").unwrap()
}

fn presences(presences: &[Presence]) -> Vec<(&str, bool)> {
    presences.iter().map(|presence| (&*presence.device, presence.is_there)).collect()
}

fn topics_of(topics: &BTreeSet<Arc<str>>) -> Vec<&str> {
    topics.iter().map(|topic| &**topic).collect()
}

#[test]
fn an_entity_becomes_a_metric_with_its_unit() {
    let mut described = Described::new("homeassistant");
    let change = announce(
        &mut described,
        "sensor/0x00158d/temperature",
        r#"{"state_topic":"zigbee2mqtt/porch","unit_of_measurement":"°C","name":"Temperature",
            "value_template":"{{ value_json[\"temperature\"] }}","unique_id":"0x00158d_t",
            "device":{"identifiers":["zigbee2mqtt_0x00158d"],"name":"porch"},
            "availability":[{"topic":"zigbee2mqtt/bridge/state",
                             "value_template":"{{ value_json.state }}"}]}"#,
    );
    assert_eq!(topics_of(&change.wanted), ["zigbee2mqtt/bridge/state", "zigbee2mqtt/porch"]);
    let found = shown(&mut described, "zigbee2mqtt/porch", r#"{"temperature":21.5,"battery":90}"#);
    assert_eq!(found, ["porch temperature 21.5 °C"]);
    assert_eq!(shown(&mut described, "zigbee2mqtt/porch", r#"{"battery":90}"#), [""; 0]);
    assert_eq!(shown(&mut described, "zigbee2mqtt/porch", r#"{"temperature":"warm"}"#), [""; 0]);
    assert!(described.hear("zigbee2mqtt/other", b"{}", NOW).is_none());
}

#[test]
fn abbreviations_and_bases_are_written_out() {
    let mut described = Described::new("my_home/homeassistant");
    let topic = "my_home/homeassistant/binary_sensor/node1/door/config";
    let payload = br#"{"~":"some/base","stat_t":"~/state","pl_on":"open","pl_off":"closed",
        "avty":[{"t":"~/avail","pl_avail":"yes","pl_not_avail":"no"},{"t":"avail2/~"}],
        "avty_mode":"all","dev":{"ids":"5706DF","name":null}}"#;
    let change = described.announce(topic, payload).unwrap().unwrap();
    let wanted = ["avail2/some/base", "some/base/avail", "some/base/state"];
    assert_eq!(topics_of(&change.wanted), wanted);
    assert_eq!(shown(&mut described, "some/base/state", "open"), ["5706DF door true -"]);
    assert_eq!(shown(&mut described, "some/base/state", "closed"), ["5706DF door false -"]);
    assert_eq!(shown(&mut described, "some/base/state", "ajar"), [""; 0]);
    let mut said = |topic, word: &str| {
        let heard = described.hear(topic, word.as_bytes(), NOW).unwrap();
        heard.presences.first().map(|presence| presence.is_there)
    };
    assert_eq!(said("some/base/avail", "yes"), None);
    assert_eq!(said("avail2/some/base", "online"), Some(true));
    assert_eq!(said("some/base/avail", "what?"), Some(true));
    assert_eq!(said("some/base/avail", "no"), Some(false));
}

#[test]
fn a_device_may_announce_all_of_itself() {
    let mut described = Described::new("homeassistant");
    let change = announce(
        &mut described,
        "device/0AFFD2",
        r#"{"dev":{"ids":"ea334450945afc","name":"Kitchen"},"o":{"name":"bla"},
            "stat_t":"kitchen/state","avty_t":"kitchen/online","pl_avail":true,"pl_not_avail":false,
            "cmps":{"temp1":{"p":"sensor","unit_of_meas":"°C","val_tpl":"{{value_json.t}}"},
                    "door":{"p":"binary_sensor","stat_t":"kitchen/door"},
                    "reset":{"p":"button","cmd_t":"kitchen/reset"},
                    "gone":{"p":"sensor"}}}"#,
    );
    assert_eq!(topics_of(&change.wanted), ["kitchen/door", "kitchen/online", "kitchen/state"]);
    assert_eq!(shown(&mut described, "kitchen/door", "ON"), ["Kitchen door true -"]);
    assert_eq!(shown(&mut described, "kitchen/state", r#"{"t":5}"#), ["Kitchen t 5 °C"]);
    let heard = described.hear("kitchen/online", b"False", NOW).unwrap();
    assert_eq!(presences(&heard.presences), [("Kitchen", false)]);
    let change = announce(&mut described, "device/0AFFD2", "");
    assert_eq!(topics_of(&change.unwanted), ["kitchen/door", "kitchen/online", "kitchen/state"]);
    assert!(described.devices.is_empty() && described.bytes == 0 && described.entities == 0);
}

#[test]
fn what_two_claim_is_called_by_what_only_one_has() {
    let mut described = Described::new("homeassistant");
    for (id, place) in [("a", 1), ("a", 2), ("b", 3)] {
        let payload = format!(
            r#"{{"stat_t":"t/{place}","val_tpl":"{{{{ value_json.power }}}}",
                "dev":{{"ids":["{id}"],"name":"Plug"}}}}"#
        );
        announce(&mut described, &format!("sensor/{id}/{id}_power{place}"), &payload);
    }
    let document = r#"{"power":5}"#;
    assert_eq!(shown(&mut described, "t/1", document), ["a power1 5 -"]);
    assert_eq!(shown(&mut described, "t/3", document), ["b power 5 -"]);
    announce(&mut described, "sensor/a/a_power2", "");
    assert_eq!(shown(&mut described, "t/1", document), ["a power 5 -"]);
    announce(&mut described, "sensor/b/b_power3", "");
    assert_eq!(shown(&mut described, "t/1", document), ["Plug power 5 -"]);
}

#[test]
fn a_later_device_hears_what_was_said_before() {
    let mut described = Described::new("homeassistant");
    let entity = |id: &str| {
        format!(r#"{{"stat_t":"{id}/state","avty_t":"bridge","dev":{{"ids":["{id}"]}}}}"#)
    };
    announce(&mut described, "sensor/one/t", &entity("one"));
    let heard = described.hear("bridge", b"offline", NOW).unwrap();
    assert_eq!(presences(&heard.presences), [("one", false)]);
    let change = announce(&mut described, "sensor/two/t", &entity("two"));
    assert_eq!(topics_of(&change.wanted), ["two/state"]);
    assert_eq!(presences(&change.presences), [("two", false)]);
    // The same again changes nothing, something else keeps what is known.
    assert_eq!(announce(&mut described, "sensor/two/t", &entity("two")), Change::default());
    let changed = entity("two").replace("two/state", "two/other");
    let change = announce(&mut described, "sensor/two/t", &changed);
    assert_eq!(topics_of(&change.wanted), ["two/other"]);
    assert_eq!(topics_of(&change.unwanted), ["two/state"]);
    assert_eq!(change.presences, []);
    // Renamed, it is reported by its new name.
    let renamed = changed.replace(r#""ids":["two"]"#, r#""ids":["two"],"name":"Two""#);
    announce(&mut described, "sensor/two/t", &renamed);
    let heard = described.hear("bridge", b"online", NOW).unwrap();
    assert_eq!(presences(&heard.presences), [("one", true), ("Two", true)]);
}

#[test]
fn silence_is_declared_when_all_entities_expire() {
    let mut described = Described::new("homeassistant");
    let mut silences = |object: &str, expire: &str| {
        let payload = format!(r#"{{"stat_t":"t","dev":{{"ids":["d"]}}{expire}}}"#);
        announce(&mut described, &format!("sensor/d/{object}"), &payload).silences
    };
    let after = |seconds| vec![(Arc::from("d"), Some(Duration::from_secs(seconds)))];
    assert_eq!(silences("a", r#","exp_aft":60"#), after(60));
    assert_eq!(silences("b", r#","exp_aft":"90""#), after(90));
    assert_eq!(silences("c", ""), [(Arc::from("d"), None)]);
}

#[test]
fn what_is_wrong_is_refused_and_what_is_bounded_stays_so() {
    let mut described = Described::new("homeassistant");
    let topic = "homeassistant/sensor/bla/config";
    let mut refused = |payload: &str| described.announce(topic, payload.as_bytes()).unwrap();
    assert_eq!(refused("not json"), Err(Refused::NoJson));
    assert_eq!(refused(&"[".repeat(200_000)), Err(Refused::NoJson));
    assert_eq!(refused(r#"{"stat_t":"a/#"}"#), Err(Refused::Wrong("topic")));
    assert_eq!(
        refused(r#"{"stat_t":"a","avty":"incorrect"}"#),
        Err(Refused::Wrong("availability"))
    );
    let looping = r#"{"stat_t":"a","val_tpl":"{% for x in y %}{% endfor %}"}"#;
    assert_eq!(refused(looping), Err(Refused::Wrong("value_template")));
    assert_eq!(refused(&" ".repeat(300_000)), Err(Refused::TooLarge));
    for topic in
        ["sensor/config", "timer/a/config", "sensor/rörkrökare/config", "sensor/a/b/c/config"]
    {
        assert_eq!(described.announce(&format!("homeassistant/{topic}"), b"{}"), None, "{topic}");
    }
    let mut full = 0;
    for n in 0..MAX_ENTITIES + 10 {
        let topic = format!("homeassistant/sensor/s{n}/config");
        let payload = format!(r#"{{"stat_t":"t/{n}"}}"#);
        let outcome = described.announce(&topic, payload.as_bytes()).unwrap();
        full += usize::from(outcome == Err(Refused::Full));
    }
    assert_eq!(
        (full, described.entities, described.states.len()),
        (10, MAX_ENTITIES, MAX_ENTITIES)
    );
}

#[test]
fn a_document_may_name_its_time() {
    let mut described = Described::new("homeassistant");
    let payload = r#"{"stat_t":"t","val_tpl":"{{ value_json.t }}"}"#;
    announce(&mut described, "sensor/t", payload);
    let mut at = |document: &str| {
        described.hear("t", document.as_bytes(), NOW).unwrap().samples[0].at.map(|at| at.0)
    };
    assert_eq!(at(r#"{"t":1,"last_seen":"2026-01-01T00:00:00Z"}"#), Some(1_767_225_600_000));
    assert_eq!(at(r#"{"t":1,"last_seen":1767225600000}"#), Some(1_767_225_600_000));
    assert_eq!(at(r#"{"t":1,"last_seen":"2 min ago"}"#), None);
}
