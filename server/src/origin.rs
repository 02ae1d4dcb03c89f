//! Which web pages may connect (WebSocket API, section 8): a browser sends the page's origin.

use std::net::IpAddr;

/// Decides by `Origin`, `Host`, the configured list, and whether the server listens on loopback
/// only. Who sends no origin is no browser.
#[must_use]
pub fn allowed(
    origin: Option<&str>,
    host: Option<&str>,
    listed: &[String],
    loopback_only: bool,
) -> bool {
    let Some(origin) = origin else { return true };
    if listed.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let scheme = [("http://", ":80"), ("https://", ":443")]
        .into_iter()
        .find_map(|(scheme, port)| Some((origin.strip_prefix(scheme)?, port)));
    let Some((authority, default_port)) = scheme else {
        return false;
    };
    let bare = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    host.is_some_and(|own| bare(own) == bare(authority))
        || (loopback_only && is_loopback(authority))
}

fn is_loopback(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "0"),
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address: Option<IpAddr> = match v6 {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    };
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || address.is_some_and(|address| address.is_loopback());
    is_loopback && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listed_and_loopback_pages_may_connect() {
        let listed = vec!["https://dash.example.com".to_owned()];
        for (origin, loopback_only, expected) in [
            (None, false, true),
            (Some("http://good:8000"), false, true),
            (Some("https://good:8000"), false, true),
            (Some("HTTP://good:8000"), false, false),
            (Some("http://good"), false, false),
            (Some("http://good:8001"), false, false),
            (Some("http://evil"), false, false),
            (Some("https://good:8000.evil"), false, false),
            (Some("https://good.evil:8000"), false, false),
            (Some("https://evil.good:8000"), false, false),
            (Some("https://evil@good:8000"), false, false),
            (Some("ws://good:8000"), false, false),
            (Some("good:8000"), false, false),
            (Some(""), true, false),
            (Some("null"), false, false),
            (Some("null"), true, false),
            (Some("https://dash.example.com"), false, true),
            (Some("https://DASH.example.com"), false, true),
            (Some("http://dash.example.com"), false, false),
            (Some("https://dash.example.com:8443"), false, false),
            (Some("https://dash.example.com.evil"), false, false),
            (Some("http://localhost:3000"), false, false),
            (Some("http://localhost:3000"), true, true),
            (Some("https://localhost"), true, true),
            (Some("http://127.0.0.1:3000"), true, true),
            (Some("http://[::1]:3000"), true, true),
            (Some("http://[::1]"), true, true),
            (Some("http://localhost.evil"), true, false),
            (Some("http://localhost:3000.evil"), true, false),
            (Some("http://127.0.0.1.evil"), true, false),
            (Some("http://[::1].evil"), true, false),
            (Some("http://10.0.0.1:3000"), true, false),
            (Some("file://localhost"), true, false),
        ] {
            let found = allowed(origin, Some("good:8000"), &listed, loopback_only);
            assert_eq!(found, expected, "{origin:?}");
        }
        assert!(allowed(Some("http://good"), Some("good:80"), &[], false));
        assert!(allowed(Some("https://good"), Some("good"), &[], false));
        assert!(!allowed(Some("https://good"), Some("good:80"), &[], false));
        assert!(!allowed(Some("http://good"), None, &[], false));
        assert!(allowed(Some("null"), None, &["null".to_owned()], false));
    }
}
