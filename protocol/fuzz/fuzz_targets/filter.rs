//! Filters and options of a `subscribe`, as one channel after the other reads them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value as Json, json};
use valtronics_protocol::filter::{Channel, parse};

fuzz_target!(|text: &str| {
    let Ok(request) = serde_json::from_str::<Map<String, Json>>(text) else { return };
    for channel in Channel::ALL {
        let Ok((filters, _)) = parse(channel, &request) else { continue };
        let Json::Object(said) = json!(filters) else { panic!("filters are an object") };
        assert_eq!(parse(channel, &said).unwrap().0, filters);
        let patterns = filters.metric_patterns();
        let named = filters.metrics.unwrap_or_default();
        // A name that asks for itself is matched by its pattern.
        for name in named.iter().filter(|name| !name.ends_with('*')) {
            assert!(patterns.iter().any(|pattern| pattern.matches(name)));
        }
    }
});
