//! The house's own rules, so that they stay true.

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    for member in ["protocol", "agent", "server"] {
        for (path, text) in sources(&root().join(member).join("src")) {
            let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
            assert!(is_test || text.starts_with("//! "), "{} has no header", path.display());
            let lines = text.lines().count();
            assert!(lines <= 460, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn pure_parts_know_no_runtime_no_files_and_no_clock() {
    let pure = [
        ("protocol/src", &["tokio::", "std::fs", "std::net", "SystemTime", "Instant"][..]),
        ("server/src/domain", &["tokio::", "axum", "rusqlite", "std::fs", "clock::"]),
        (
            "server/src/hub",
            &["tokio::net", "axum", "rusqlite", "std::fs", "clock::now", "async fn"],
        ),
        ("agent/src/decode", &["tokio::", "std::fs", "clock::"]),
        ("agent/src/describe", &["tokio::", "rumqttc", "std::fs", "clock::"]),
    ];
    for (folder, forbidden) in pure {
        for (path, text) in sources(&root().join(folder)) {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in forbidden {
                assert!(!code.contains(word), "{} knows {word}", path.display());
            }
        }
    }
}

#[test]
fn agent_and_server_do_not_know_each_other() {
    for (member, other) in [("agent", "valtronics_server"), ("server", "valtronics_agent")] {
        for (path, text) in sources(&root().join(member).join("src")) {
            assert!(!text.contains(other), "{} knows {other}", path.display());
        }
    }
}
