//! How names come into being.

use super::*;
use crate::{
    auth::DeviceGrant,
    commit::RegistryChange,
    store_task::{Named, Registrant, Wanted},
};

type Device<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

const LIMITS: RegistryLimits = RegistryLimits { devices_per_sub: 1000, metrics_per_device: 3 };

fn wanted(devices: &[Device<'_>]) -> Vec<Wanted> {
    let owned = |(name, unit): &(&str, Option<&str>)| ((*name).into(), unit.map(String::from));
    let devices = devices.iter().map(|(device, metrics)| Wanted {
        device: (*device).into(),
        metrics: metrics.iter().map(owned).collect(),
    });
    devices.collect()
}

fn registrant(sub: &str, gateway: Option<&str>) -> Registrant {
    Registrant { sub: sub.into(), gateway: gateway.map(Into::into), devices: DeviceGrant::All }
}

/// Registers without a gateway.
pub(super) fn register(
    store: &mut Store,
    sub: &str,
    devices: &[Device<'_>],
) -> Result<Registered, RegisterError> {
    store.register(&registrant(sub, None), &wanted(devices), LIMITS, NOW)
}

fn named(id: u64, indices: &[u32]) -> Named {
    let indices = indices.iter().copied().map(MetricIndex).collect();
    Named { id: DeviceId(id), indices }
}

/// A change in short.
fn told(change: &RegistryChange) -> String {
    match change {
        RegistryChange::Device(it) => match &it.gateway {
            Some(gateway) => format!("{} {} by {gateway}", it.id, it.key()),
            None => format!("{} {}", it.id, it.key()),
        },
        RegistryChange::Metric(it) => {
            format!("{}.{} {} [{}]", it.device, it.index.0, it.name, it.unit)
        }
    }
}

#[test]
fn names_get_numbers_in_their_order() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let (t, t_c, t_k) = (("t", None), ("t", Some("°C")), ("t", Some("K")));
    let (h, w) = (("h", None), ("w", Some("W")));
    // Who asks for what, the numbers, and what it changes.
    type Step<'a> = (&'a str, &'a [Device<'a>], Vec<Named>, &'a [&'a str]);
    let steps: [Step<'_>; 9] = [
        (
            "a",
            &[("boiler", &[t_c, h])],
            vec![named(1, &[0, 1])],
            &["1 a/boiler", "1.0 t [°C]", "1.1 h []"],
        ),
        ("a", &[("boiler", &[h, t])], vec![named(1, &[1, 0])], &[]),
        ("a", &[("boiler", &[t_c])], vec![named(1, &[0])], &[]),
        ("b", &[("boiler", &[w])], vec![named(2, &[0])], &["2 b/boiler", "2.0 w [W]"]),
        ("a", &[("boiler", &[t_k])], vec![named(1, &[0])], &["1.0 t [K]"]),
        ("a", &[("boiler", &[t])], vec![named(1, &[0])], &[]),
        // Within one message, as they stand; a repeat is no second one.
        (
            "a",
            &[("x", &[t, t_c, h]), ("boiler", &[w]), ("x", &[h])],
            vec![named(3, &[0, 0, 1]), named(1, &[2]), named(3, &[1])],
            &["3 a/x", "3.0 t []", "3.0 t [°C]", "3.1 h []", "1.2 w [W]"],
        ),
        ("b", &[("x", &[]), ("y", &[])], vec![named(4, &[]), named(5, &[])], &["4 b/x", "5 b/y"]),
        ("a", &[], vec![], &[]),
    ];
    for (sub, devices, expected, changes) in steps {
        let registered = register(&mut store, sub, devices).unwrap();
        assert_eq!(registered.named, expected, "{sub} {devices:?}");
        assert_eq!(registered.changes.iter().map(told).collect::<Vec<_>>(), changes);
        // The numbers of the file, not those of this process.
        drop(store);
        store = Store::open(dir.path()).unwrap().0;
    }
    drop(store);
    let names = Store::open(dir.path()).unwrap().1.names;
    let expected = [
        "1 a/boiler",
        "1.0 t [K]",
        "1.1 h []",
        "1.2 w [W]",
        "2 b/boiler",
        "2.0 w [W]",
        "3 a/x",
        "3.0 t [°C]",
        "3.1 h []",
        "4 b/x",
        "5 b/y",
    ];
    assert_eq!(names.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn a_device_moves_to_another_gateway() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let asked = wanted(&[("boiler", &[])]);
    let steps: [(Option<&str>, &[&str]); 5] = [
        (None, &["1 a/boiler"]),
        (Some("gw-01"), &["1 a/boiler by gw-01"]),
        (Some("gw-01"), &[]),
        (None, &[]),
        (Some("gw-02"), &["1 a/boiler by gw-02"]),
    ];
    for (gateway, changes) in steps {
        let registered = store.register(&registrant("a", gateway), &asked, LIMITS, NOW).unwrap();
        assert_eq!(registered.named, [named(1, &[])]);
        assert_eq!(registered.changes.iter().map(told).collect::<Vec<_>>(), changes);
    }
    drop(store);
    let names = Store::open(dir.path()).unwrap().1.names;
    assert_eq!(names.iter().map(told).collect::<Vec<_>>(), ["1 a/boiler by gw-02"]);
}

#[test]
fn limits_take_all_or_nothing() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let limits = RegistryLimits { devices_per_sub: 2, metrics_per_device: 2 };
    let m = |name| (name, None);
    let mut check = |sub: &str, devices: &[Device<'_>], expected: Result<&[u64], &str>| {
        let result = store.register(&registrant(sub, None), &wanted(devices), limits, NOW);
        match (result, expected) {
            (Ok(registered), Ok(ids)) => {
                let named = registered.named.iter().map(|named| named.id.0);
                assert_eq!(named.collect::<Vec<_>>(), ids);
            }
            (Err(RegisterError::Limit(text)), Err(part)) => assert!(text.contains(part), "{text}"),
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    };
    check("a", &[("one", &[m("t")]), ("two", &[]), ("three", &[])], Err("\"three\""));
    check("a", &[("one", &[m("t"), m("h"), m("w")])], Err("\"w\""));
    check("a", &[("one", &[m("t"), m("h")]), ("two", &[])], Ok(&[1, 2]));
    check("a", &[("three", &[])], Err("\"three\""));
    check("a", &[("one", &[m("w")])], Err("\"w\""));
    check("a", &[("two", &[m("t")]), ("one", &[m("w")])], Err("\"w\""));
    check("b", &[("three", &[]), ("one", &[m("w")])], Ok(&[3, 4]));
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().1.names.len(), 4 + 3);
}

#[test]
fn many_names_at_once_are_each_their_own() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let limits = RegistryLimits { devices_per_sub: 100_000, metrics_per_device: 100_000 };
    let name = |n: usize| n.to_string();
    let metric = |n| (name(n), Some("V".to_owned()));
    let mut wanted: Vec<_> =
        (0..20_000).map(|n| Wanted { device: name(n), metrics: vec![metric(0)] }).collect();
    wanted.push(Wanted { device: name(7), metrics: (0..20_000).map(metric).collect() });
    for changes in [60_000 - 1, 0] {
        let registrant = registrant("gw", None);
        let registered = store.register(&registrant, &wanted, limits, NOW).unwrap();
        assert_eq!(registered.changes.len(), changes);
        let ids = registered.named.iter().take(20_000).map(|named| named.id.0);
        assert!(ids.eq(1..=20_000));
        let last = registered.named.last().unwrap();
        assert_eq!(last.id, DeviceId(8));
        assert!(last.indices.iter().copied().eq((0..20_000).map(MetricIndex)));
    }
}
