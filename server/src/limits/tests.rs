use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use valtronics_protocol::error::TokenFault;

use super::{
    recent::{Fading, Remembered},
    *,
};

const ADDRESS: &str = "192.0.2.1";

fn admission(config: Config) -> (Admission, Instant, IpAddr, Arc<str>) {
    let address = ADDRESS.parse().unwrap();
    (Admission::new(config), crate::clock::instant(), address, "ops".into())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_user_opens_ten_a_minute_and_is_told_when_to_come_back() {
    let (mut admission, now, address, user) = admission(Config::default());
    for second in 0..10 {
        let at = now + seconds(second);
        admission.open(address, at).unwrap();
        admission.authenticated(address, &user, at).unwrap();
    }
    for (later, retry_after) in [(seconds(10), 50), (Duration::from_millis(58_001), 2)] {
        admission.open(address, now + later).unwrap();
        let refused = admission.authenticated(address, &user, now + later);
        assert_eq!(refused, Err(Refused::UserRate { retry_after }));
    }
    let other = admission.authenticated(address, &"other".into(), now + seconds(10));
    assert_eq!(other, Ok(()), "other users notice nothing");
    // Who was refused has not used up anything.
    assert_eq!(admission.authenticated(address, &user, now + MINUTE), Ok(()));
    assert!(admission.authenticated(address, &user, now + MINUTE).is_err());
}

#[test]
fn room_comes_back_when_connections_end() {
    let config = Config { connections: 2, connections_per_user: 1, ..Config::default() };
    let (mut admission, now, address, user) = admission(config);
    admission.open(address, now).unwrap();
    admission.authenticated(address, &user, now).unwrap();
    admission.open(address, now).unwrap();
    let refused = admission.authenticated(address, &user, now).unwrap_err();
    assert_eq!((refused, refused.retry_after_seconds()), (Refused::UserFull, 60));
    let refused = admission.open(address, now).unwrap_err();
    assert_eq!((refused, refused.http_status()), (Refused::Full, 503));
    admission.close(Some(&user));
    admission.open(address, now).unwrap();
    assert_eq!(admission.authenticated(address, &user, now), Ok(()));
}

#[test]
fn handshakes_that_come_to_nothing_count_by_address() {
    let config = Config {
        handshakes_per_minute_per_address: 3,
        connections_per_user: 5,
        ..Config::default()
    };
    let (mut admission, now, _, user) = admission(config);
    let one: IpAddr = "2001:db8::1".parse().unwrap();
    let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
    for _ in 0..5 {
        admission.open(one, now).unwrap();
        admission.authenticated(one, &user, now).unwrap();
    }
    // A user who is refused has not succeeded either.
    admission.open(one, now).unwrap();
    admission.authenticated(one, &user, now).unwrap_err();
    admission.open(one, now).unwrap();
    admission.open(one, now).unwrap();
    let refused = admission.open(neighbour, now).unwrap_err();
    assert_eq!((refused, refused.http_status()), (Refused::Address { retry_after: 60 }, 429));
    assert_eq!(admission.open("2001:db8:0:1::1".parse().unwrap(), now), Ok(()));
    assert_eq!(admission.open(neighbour, now + MINUTE), Ok(()));
}

#[test]
fn an_address_is_the_same_however_it_is_written() {
    let config = Config { handshakes_per_minute_per_address: 1, ..Config::default() };
    let (mut admission, now, address, _) = admission(config);
    admission.open(address, now).unwrap();
    let mapped = format!("::ffff:{ADDRESS}").parse().unwrap();
    assert!(admission.open(mapped, now).is_err());
    assert_eq!(admission.open("192.0.2.2".parse().unwrap(), now), Ok(()));
}

#[test]
fn who_tries_tokens_is_shut_out_for_a_minute() {
    let (mut admission, now, address, _) = admission(Config::default());
    let mut bring = |token: &str, fault, at| {
        admission.refused_token(address, token, fault, at);
        admission.may_subscribe(address, at)
    };
    for _ in 0..30 {
        bring("the same again", TokenFault::Signature, now).unwrap();
    }
    for (fault, times) in [
        (TokenFault::Expired, 30),
        (TokenFault::NotYetValid, 30),
        (TokenFault::Missing, 30),
        (TokenFault::Malformed, 10),
        (TokenFault::Signature, 9),
    ] {
        for time in 0..times {
            bring(&format!("{fault:?} {time}"), fault, now).unwrap();
        }
    }
    let later = now + seconds(30);
    let shut = bring("one too many", TokenFault::Malformed, later);
    assert_eq!(shut, Err(Refused::Address { retry_after: 60 }));
    assert_eq!(admission.open(address, later), Ok(()), "an agent notices nothing");
    assert_eq!(admission.may_subscribe("192.0.2.2".parse().unwrap(), later), Ok(()));
    assert_eq!(admission.may_subscribe(address, later + MINUTE), Ok(()));
}

#[test]
fn bad_tokens_that_come_slowly_shut_nobody_out() {
    let (mut admission, now, address, _) = admission(Config::default());
    for token in 0..60 {
        let at = now + seconds(3) * token;
        admission.refused_token(address, &token.to_string(), TokenFault::Malformed, at);
        assert_eq!(admission.may_subscribe(address, at), Ok(()), "{token}");
    }
}

#[test]
fn a_refusal_that_repeats_is_answered_later_and_later() {
    let (mut admission, now, address, user) = admission(Config::default());
    let neighbour = "192.0.2.2".parse().unwrap();
    for delay in [0, 1, 2, 4, 8, 8] {
        let fault = TokenFault::Expired;
        assert_eq!(admission.refused_token(address, "old", fault, now), seconds(delay));
        assert_eq!(admission.refused_user(address, &user, now), seconds(delay));
    }
    let zero = Duration::ZERO;
    assert_eq!(admission.refused_token(address, "ops", TokenFault::Malformed, now), zero);
    assert_eq!(admission.refused_token(neighbour, "old", TokenFault::Expired, now), zero);
    assert_eq!(admission.refused_user(neighbour, &user, now), zero);
    assert_eq!(admission.refused_user(address, &user, now + MINUTE), zero);
    assert_eq!(admission.refused_user(address, &user, now + MINUTE), seconds(1));
}

#[derive(Default)]
struct Until(Option<Instant>);

impl Fading for Until {
    fn is_live(&self, now: Instant) -> bool {
        self.0.is_some_and(|until| until > now)
    }
}

#[test]
fn a_full_memory_forgets_what_has_faded_and_never_grows() {
    let now = crate::clock::instant();
    let mut names = Remembered::<u32, Until>::with_most(10);
    for name in 0..1000 {
        let entry = names.entry(name, now);
        assert_eq!(entry.is_some(), name < 10);
        if let Some(entry) = entry {
            entry.0 = Some(now + seconds(if name < 5 { 1 } else { 60 }));
        }
    }
    assert!(names.entry(7, now).is_some(), "what is known stays known");
    assert_eq!(names.len(), 10);
    assert!((1000..1005).all(|name| names.entry(name, now + seconds(1)).is_some()));
    assert!(names.entry(7, now + seconds(1)).is_some());
}

#[test]
fn a_bucket_refills_and_notices_a_flood() {
    let now = crate::clock::instant();
    let mut bucket = TokenBucket::new(100, now);
    assert_eq!((0..150).filter(|_| bucket.take(now)).count(), 100);
    let later = now + Duration::from_millis(500);
    assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 50);
    assert!(!bucket.is_flooded());
    assert!((0..500).all(|_| !bucket.take(later)));
    assert!(bucket.is_flooded());
}

#[test]
fn a_flood_of_an_earlier_minute_is_forgotten() {
    let now = crate::clock::instant();
    let mut bucket = TokenBucket::new(1, now);
    assert_eq!((0..400).filter(|_| bucket.take(now)).count(), 1);
    let later = now + MINUTE;
    assert_eq!((0..400).filter(|_| bucket.take(later)).count(), 1);
    assert!(!bucket.is_flooded());
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (text, wrong) in [
        ("", None),
        ("queue_bytes = \"16KiB\"\nmessage_bytes = 2048\nping_after = \"1s\"", None),
        ("auth_within = \"300ms\"\nconnects_per_minute = 1", None),
        ("connects_per_minute = 0", Some("at least 1")),
        ("messages_per_second = 0", Some("at least 1")),
        ("connections = -1", Some("invalid value")),
        ("handshake_within = \"0s\"", Some("from 100ms to 24h")),
        ("auth_within = \"2d\"", Some("from 100ms to 24h")),
        ("auth_within = 10", Some("period")),
        ("queue_bytes = 10", Some("at least 256")),
        ("queue_bytes = \"1MB\"", Some("a size is")),
        ("queue_bytes = \"99999999999999GiB\"", Some("a size is")),
        ("message_bytes = \"1MiB\"", Some("64KiB")),
        ("silence = \"30s\"", Some("longer than ping_after")),
        ("conections = 1", Some("unknown field `conections`")),
    ] {
        let read = toml::from_str::<Config>(text);
        match (wrong, &read) {
            (None, Ok(_)) => {}
            (Some(wrong), Err(error)) => assert!(error.message().contains(wrong), "{error}"),
            _ => panic!("{text}: {read:?}"),
        }
    }
    let read: Config = toml::from_str("queue_bytes = \"2MiB\"").unwrap();
    assert_eq!(read.queue_bytes, 2 * 1024 * 1024);
}
