//! Whose word about a client is believed: proxies that the configuration trusts.
//!
//! From anybody else `X-Forwarded-For` and `X-Forwarded-Host` are text that a client made up.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue};
use serde::Deserialize;

/// `trusted_proxies`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(Vec<Network>);

/// A range of addresses, as in `10.0.0.0/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Network {
    address: IpAddr,
    /// How many of its first bits count.
    prefix: u32,
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').unwrap_or((&text, ""));
        let bad = || format!("{text:?} is no range of addresses such as \"10.0.0.0/8\"");
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match text.contains('/') {
            true => prefix.parse().map_err(|_| bad())?,
            false => most,
        };
        if prefix > most { Err(bad()) } else { Ok(Self { address, prefix }) }
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        // Where no bit counts the shift is one too far, and any address is inside.
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let differing = ours.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - self.prefix).unwrap_or_default() == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let differing = ours.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - self.prefix).unwrap_or_default() == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl TrustedProxies {
    /// Tells whether the address is a trusted proxy's.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the client's address: the last one on the way here that is no trusted proxy's.
    ///
    /// Each proxy adds to `X-Forwarded-For` whom it heard, so the list is believed from its end for
    /// as long as it is trusted proxies that speak.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut heard = listed(headers, "x-forwarded-for");
        let mut client = peer;
        while self.contains(client) {
            match heard.next().and_then(address) {
                Some(before) => client = before,
                None => break,
            }
        }
        client
    }

    /// Returns the host that the client asked for, if `peer` is a trusted proxy that says so.
    #[must_use]
    pub fn host(&self, peer: IpAddr, headers: &HeaderMap) -> Option<HeaderValue> {
        let host = listed(headers, "x-forwarded-host").next()?;
        if self.contains(peer) { HeaderValue::from_str(host).ok() } else { None }
    }
}

/// Returns the items of a header that is a list, the last one first.
fn listed<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().rev();
    values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')).map(str::trim)
}

/// Reads an address; some proxies write the port, too.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    text.parse().or_else(|_| with_port()).ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        let networks = networks.iter().map(|text| Network::try_from((*text).to_owned()).unwrap());
        TrustedProxies(networks.collect())
    }

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_client_is_the_last_one_that_is_no_trusted_proxy() {
        let proxies = proxies(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
        for (peer, forwarded, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6", "198.51.100.1,192.0.2.7"], "198.51.100.1"),
            ("10.1.2.3", &["10.4.4.4, 10.5.5.5"], "10.4.4.4"),
            ("10.1.2.3", &["6.6.6.6, nonsense"], "10.1.2.3"),
            ("10.1.2.3", &["6.6.6.6, "], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.1.2.3", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("2001:db8::5", &["[2a00::1]:4711"], "2a00::1"),
            ("::1", &["2a00::1"], "2a00::1"),
            ("2001:db9::5", &["2a00::1"], "2001:db9::5"),
        ] {
            let headers = headers("x-forwarded-for", forwarded);
            let found = proxies.client(peer.parse().unwrap(), &headers);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_what_the_host_was() {
        let proxies = proxies(&["10.0.0.0/8"]);
        let headers = headers("x-forwarded-host", &["forged.example, dash.example.com"]);
        let host = |peer: &str| proxies.host(peer.parse().unwrap(), &headers);
        assert_eq!(host("10.0.0.1").unwrap(), "dash.example.com");
        assert_eq!(host("11.0.0.1"), None);
    }

    #[test]
    fn a_range_is_an_address_and_how_many_bits_of_it_count() {
        for (network, address, expected) in [
            ("0.0.0.0/0", "203.0.113.9", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("192.0.2.128/25", "192.0.2.129", true),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("2001:db8::/127", "2001:db8::1", true),
            ("2001:db8::/127", "2001:db8::2", false),
        ] {
            let found = proxies(&[network]).contains(address.parse().unwrap());
            assert_eq!(found, expected, "{network} {address}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "proxy.example", "/8"]
        {
            assert!(Network::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
