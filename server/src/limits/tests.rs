use super::*;

fn admission(config: Config) -> (Admission, Instant, IpAddr, Arc<str>) {
    let address = "192.0.2.1".parse().unwrap();
    (Admission::new(config), crate::clock::instant(), address, "ops".into())
}

#[test]
fn a_user_opens_ten_a_minute_and_is_told_when_to_come_back() {
    let (mut admission, now, address, user) = admission(Config::default());
    for second in 0..10 {
        let at = now + Duration::from_secs(second);
        admission.open(address, at).unwrap();
        admission.authenticated(address, &user, at).unwrap();
    }
    let at = now + Duration::from_secs(10);
    admission.open(address, at).unwrap();
    let refused = admission.authenticated(address, &user, at);
    assert_eq!(refused, Err(Refused::UserRate { retry_after: 51 }));
    let later = now + MINUTE;
    assert_eq!(admission.authenticated(address, &user, later), Ok(()));
    assert!(admission.authenticated(address, &user, later).is_err());
}

#[test]
fn room_comes_back_when_connections_end() {
    let config = Config { connections: 2, connections_per_user: 1, ..Config::default() };
    let (mut admission, now, address, user) = admission(config);
    admission.open(address, now).unwrap();
    admission.authenticated(address, &user, now).unwrap();
    admission.open(address, now).unwrap();
    assert_eq!(admission.authenticated(address, &user, now), Err(Refused::UserFull));
    assert_eq!(admission.open(address, now), Err(Refused::Full));
    admission.close(Some(&user));
    admission.open(address, now).unwrap();
    assert_eq!(admission.authenticated(address, &user, now), Ok(()));
}

#[test]
fn handshakes_that_come_to_nothing_count_by_address() {
    let config = Config { handshakes_per_minute_per_address: 3, ..Config::default() };
    let (mut admission, now, _, user) = admission(config);
    let one: IpAddr = "2001:db8::1".parse().unwrap();
    let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
    for _ in 0..5 {
        admission.open(one, now).unwrap();
        admission.authenticated(one, &user, now).unwrap();
    }
    for _ in 0..3 {
        admission.open(one, now).unwrap();
    }
    assert_eq!(admission.open(neighbour, now), Err(Refused::Address { retry_after: 61 }));
    assert_eq!(admission.open(neighbour, now + MINUTE), Ok(()));
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
