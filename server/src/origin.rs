//! Which web pages may connect (WebSocket API, section 8): a browser sends the page's origin.

/// Decides by `Origin`, `Host`, what a trusted proxy says the host was, the configured list, and
/// whether the server listens on loopback only. Who sends no origin is no browser.
#[must_use]
pub fn allowed(
    origin: Option<&str>,
    host: Option<&str>,
    forwarded_host: Option<&str>,
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
    let own = forwarded_host.or(host);
    own.is_some_and(|own| bare(own) == bare(authority)) || (loopback_only && is_loopback(authority))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
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
            (Some("http://good"), false, false),
            (Some("http://evil"), false, false),
            (Some("https://good:8000.evil"), false, false),
            (Some("null"), false, false),
            (Some("null"), true, false),
            (Some("https://dash.example.com"), false, true),
            (Some("http://dash.example.com"), false, false),
            (Some("http://localhost:3000"), false, false),
            (Some("http://localhost:3000"), true, true),
            (Some("http://127.0.0.1:3000"), true, true),
            (Some("http://[::1]:3000"), true, true),
            (Some("http://localhost.evil"), true, false),
        ] {
            let found = allowed(origin, Some("good:8000"), None, &listed, loopback_only);
            assert_eq!(found, expected, "{origin:?}");
        }
        assert!(allowed(Some("http://good"), Some("good:80"), None, &[], false));
        assert!(allowed(Some("https://out"), Some("in:8000"), Some("out"), &[], false));
    }
}
