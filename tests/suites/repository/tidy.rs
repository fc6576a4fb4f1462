//! What must stay true of the tree: its top level, who may name what, and which names are unique.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::root;

/// The top level is closed: these names and dot files.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "openapi.json",
    "messenger-core",
    "messenger-server",
    "migration",
    "examples",
    "tests",
];

/// The arrows between the modules of the engine: a module and those that it must not name.
const ARROWS: [(&str, &[&str]); 7] = [
    (
        "ids.rs",
        &[
            "auth",
            "users",
            "conversations",
            "messages",
            "sync",
            "events",
            "write",
            "store",
            "engine",
        ],
    ),
    (
        "clock.rs",
        &[
            "auth",
            "users",
            "conversations",
            "messages",
            "sync",
            "events",
            "write",
            "store",
            "engine",
        ],
    ),
    (
        "error.rs",
        &[
            "auth",
            "users",
            "conversations",
            "messages",
            "sync",
            "events",
            "write",
            "store",
            "engine",
        ],
    ),
    (
        "limits.rs",
        &[
            "auth",
            "users",
            "conversations",
            "messages",
            "sync",
            "events",
            "write",
            "store",
            "engine",
        ],
    ),
    (
        "store",
        &[
            "auth",
            "users",
            "conversations",
            "messages",
            "sync",
            "events",
            "write",
            "engine",
        ],
    ),
    ("users", &["conversations", "messages", "sync"]),
    ("conversations", &["messages", "sync"]),
];

/// Where the database may be named.
fn may_name_the_database(path: &str) -> bool {
    path.starts_with("store/")
        || path.starts_with("write/")
        || path.ends_with("/queries.rs")
        || path == "sync/pages.rs"
        || path == "sync/delta.rs"
}

#[test]
fn the_top_level_has_nothing_else() {
    // What a server leaves here when it is run here is not part of the repository.
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: Vec<&str> = ignored
        .lines()
        .map(|pattern| pattern.trim_matches('/').trim_end_matches('*'))
        .filter(|pattern| !pattern.is_empty())
        .collect();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = TOP_LEVEL.contains(&name.as_str()) || name.starts_with('.');
        let ignored = ignored
            .iter()
            .any(|pattern| match pattern.strip_prefix('*') {
                Some(ending) => name.contains(ending),
                None => name.starts_with(pattern),
            });
        assert!(
            known || ignored,
            "{name} does not belong into the top folder"
        );
    }
}

#[test]
fn the_database_is_named_in_its_own_rooms_only() {
    for (path, text) in sources("messenger-core/src") {
        let code = without_comments(&text);
        let names = code.contains("sea_orm") || code.contains("sqlx");
        assert!(
            !names || may_name_the_database(&path),
            "{path} names the database"
        );
    }
    for manifest in ["messenger-server", "tests"] {
        let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
        assert!(!text.contains("sea-orm"), "{manifest} lists sea-orm");
    }
    let core = fs::read_to_string(root().join("messenger-core/Cargo.toml")).unwrap();
    assert!(!core.contains("poem"), "messenger-core lists poem");
}

#[test]
fn the_modules_of_the_engine_point_one_way() {
    for (path, text) in sources("messenger-core/src") {
        let code = without_comments(&text);
        for (room, forbidden) in ARROWS {
            let inside = path == room || path.starts_with(&format!("{room}/"));
            for module in forbidden.iter().filter(|_| inside) {
                let named = code.contains(&format!("crate::{module}::"));
                assert!(!named, "{path} names {module}");
            }
        }
    }
}

#[test]
fn only_the_clock_asks_for_the_time_of_day() {
    for (path, text) in sources("messenger-core/src") {
        let asks = without_comments(&text).contains("SystemTime");
        assert!(!asks || path == "clock.rs", "{path} asks for the time");
    }
}

#[test]
fn no_error_code_stands_twice() {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for code in error_codes() {
        assert!(
            code.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{code}"
        );
        *seen.entry(code).or_default() += 1;
    }
    assert!(seen.len() > 10);
    assert!(
        seen.values().all(|count| *count == 1),
        "a code stands twice: {seen:?}"
    );
}

/// The codes of the engine's errors.
pub(crate) fn error_codes() -> Vec<String> {
    let (_, text) = sources("messenger-core/src")
        .into_iter()
        .find(|(path, _)| path == "error.rs")
        .unwrap();
    let codes = text.split("pub fn code").nth(1).unwrap();
    let codes = codes.split("pub fn kind").next().unwrap();
    let codes = codes.split('"').skip(1).step_by(2);
    codes.map(str::to_owned).collect()
}

#[test]
fn no_line_waits_to_be_written() {
    for folder in [
        "messenger-core/src",
        "messenger-server/src",
        "migration/src",
        "examples",
    ] {
        for (path, text) in sources(folder) {
            for word in ["todo!(", "unimplemented!(", "dbg!("] {
                assert!(!text.contains(word), "{folder}/{path} has {word}");
            }
        }
    }
}

/// Every Rust file below a folder, with its path from there.
fn sources(folder: &str) -> Vec<(String, String)> {
    let folder = root().join(folder);
    let mut found = Vec::new();
    collect(&folder, &mut found);
    assert!(!found.is_empty(), "{} has no sources", folder.display());
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn without_comments(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}
