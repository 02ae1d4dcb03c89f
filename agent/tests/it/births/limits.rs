//! What damaged and hostile messages of Sparkplug cost.

use valtronics_agent::{
    decode::sparkplug::wire::{MAX_METRICS as IN_A_PAYLOAD, Malformed},
    describe::sparkplug::{MAX_DEVICES, MAX_METRICS, Refused},
};

use super::{Host, check, temperature};
use crate::edge::{Metric, Value, by_alias, named, payload};

#[test]
fn what_is_no_payload_changes_nothing() {
    let mut host = Host::with_births();
    let data = payload(2, [by_alias(1, Value::Float(2.5)), temperature()]);
    let mut good = 0;
    for length in 0..data.len() {
        good += u32::from(host.try_hear("DDATA", "d", &data[..length]).is_ok());
    }
    assert!(good <= 4, "only what ends behind a field is one: {good}");
    for bad in [
        &b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x12\x05\x0a\x7fabc",
        b"\x12\x04\x0a\x02\xff\xfe",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b\x0c",
        b"\x00\x00",
        b"{\"t\":1}",
        b"\x12\x02\x08\x01",
    ] {
        let refused = host.try_hear("DDATA", "d", bad);
        assert_eq!(refused, Err(Refused::Malformed(Malformed::Damaged)), "{bad:?}");
    }
    let compressed = b"\x22\x12SPBV1.0_COMPRESSED\x2a\x01x";
    let refused = host.try_hear("DDATA", "d", compressed);
    assert_eq!(refused, Err(Refused::Malformed(Malformed::Compressed)));
    let mut flipped = data.clone();
    for place in 0..data.len() {
        flipped[place] ^= 0x10;
        let _ = host.try_hear("DDATA", "d", &flipped);
        flipped[place] ^= 0x10;
    }
}

#[test]
fn templates_however_deep_are_passed_over() {
    let mut host = Host::default();
    // Written from the inside, as no library would dare to.
    let mut inner = Vec::new();
    for tag in [18_u32 << 3 | 2, 2 << 3 | 2].into_iter().cycle().take(10_000) {
        let mut outer = Vec::new();
        prost::encoding::encode_varint(tag.into(), &mut outer);
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        inner.splice(0..0, outer);
    }
    let news = host.try_hear("NBIRTH", "", &inner).unwrap();
    assert_eq!((news.samples.len(), news.unfit), (0, 1));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut host = Host::default();
    let metric = |number| Metric { alias: Some(number), ..named("t", 11, Value::Bool(true)) };
    let metrics = |count: usize| (0..count as u64).map(metric).collect::<Vec<_>>();
    let many = payload(0, metrics(IN_A_PAYLOAD + 1));
    assert_eq!(host.try_hear("NBIRTH", "", &many), Err(Refused::Malformed(Malformed::TooMany)));
    // 4 MiB of metrics that say nothing.
    let empty = b"\x12\x00".repeat(2 << 20);
    assert_eq!(host.try_hear("NBIRTH", "", &empty), Err(Refused::Malformed(Malformed::TooMany)));

    let full = payload(0, metrics(IN_A_PAYLOAD));
    for device in 0..MAX_METRICS / IN_A_PAYLOAD {
        assert!(host.try_hear("DBIRTH", &device.to_string(), &full).is_ok());
    }
    let one = payload(1, metrics(1));
    assert_eq!(host.try_hear("DBIRTH", "one", &one), Err(Refused::TooManyMetrics));
    // Births that replace others find room.
    assert!(host.try_hear("DBIRTH", "0", &full).is_ok());
    assert!(host.try_hear("NBIRTH", "", &one).is_ok());
    assert!(host.try_hear("DBIRTH", "one", &one).is_ok());

    let mut host = Host::default();
    for device in 0..MAX_DEVICES - 1 {
        assert!(host.try_hear("DDATA", &device.to_string(), &one).is_ok());
    }
    assert_eq!(host.try_hear("DDATA", "one more", &one), Err(Refused::TooManyDevices));
    assert!(host.try_hear("DDATA", "0", &one).is_ok());
}

#[test]
fn names_that_no_reading_may_have_are_none() {
    let mut host = Host::default();
    let long = "x".repeat(129);
    let one = payload(0, [temperature()]);
    assert_eq!(host.try_hear("DBIRTH", &long, &one), Err(Refused::Name));
    assert_eq!(host.try_hear("DDATA", "a\u{7}", &one), Err(Refused::Name));
    let metrics =
        [named(&long, 9, Value::Float(1.5)).called(1), temperature().called(2).unit(&long)];
    let news = host.hear("NBIRTH", "", 0, &metrics);
    assert_eq!((news.samples.len(), news.unfit), (1, 1));
    // Its alias is known, and so is that it cannot be read: no birth would help.
    let news = host.hear("NDATA", "", 1, &[by_alias(1, Value::Float(2.5))]);
    check(&news, &[], false);
    assert_eq!(news.unfit, 1);
    // A unit that is too long is unknown.
    let overlong = named("v", 9, Value::Float(2.5)).unit(&long);
    check(&host.hear("NDATA", "", 2, &[overlong]), &["p/n v 2.5 -"], false);
}
