//! PURE and SHELL: every folder says which it is, and PURE code knows nothing of the world outside.

use std::collections::BTreeMap;

use crate::paths;
use crate::scan::{closing, find_all, words};
use crate::tree::{Source, Tree};

/// The crates whose folders have a colour, with the name code gives them.
const COLOURED: [(&str, &str); 2] = [("ipc-core/src/", "ipc_core"), ("ipc-daemon/src/", "ipc_daemon")];

/// Colours that a folder or file cannot choose.
const EXPECTED: [(&str, Colour); 18] = [
    ("ipc-core/src/wire", Colour::Pure),
    ("ipc-core/src/session", Colour::Pure),
    ("ipc-core/src/transport", Colour::Shell),
    ("ipc-core/src/client", Colour::Shell),
    ("ipc-core/src/blocking", Colour::Shell),
    ("ipc-core/src/service", Colour::Shell),
    ("ipc-core/src/name", Colour::Pure),
    ("ipc-core/src/id", Colour::Pure),
    ("ipc-core/src/limits", Colour::Pure),
    ("ipc-core/src/time", Colour::Pure),
    ("ipc-core/src/error", Colour::Pure),
    ("ipc-core/src/identity", Colour::Pure),
    ("ipc-core/src/payload", Colour::Pure),
    ("ipc-daemon/src/broker", Colour::Pure),
    ("ipc-daemon/src/datagram", Colour::Pure),
    ("ipc-daemon/src/store", Colour::Shell),
    ("ipc-daemon/src/shell", Colour::Shell),
    ("ipc-daemon/src/bridge", Colour::Shell),
];

/// Names that PURE code does not say, alone or in a path.
const FORBIDDEN_WORDS: [&str; 12] = [
    "tokio",
    "nix",
    "rustix",
    "libc",
    "mio",
    "socket2",
    "rand",
    "getrandom",
    "SystemTime",
    "RandomState",
    "async",
    "await",
];

/// Paths that PURE code does not take.
const FORBIDDEN_PATHS: [&str; 8] = [
    "std::net",
    "std::os",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "std::time::Instant",
    "Instant::now",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Pure,
    Shell,
}

/// Folders and top-level files that do not say their colour, or say the wrong one.
pub(crate) fn undeclared(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (crate_folder, _) in COLOURED {
        for source in tree.sources(crate_folder).filter(|source| !source.is_test()) {
            let Some(unit) = unit_of(source.path) else { continue };
            let said = said_colour(source);
            if let Some((_, expected)) = EXPECTED.iter().find(|(path, _)| *path == unit)
                && declares(source.path, unit)
                && said != Some(*expected)
            {
                findings
                    .push(source.at(0, &format!("the first line must begin with `//! {}`", expected.word())));
            } else if declares(source.path, unit) && said.is_none() {
                findings.push(source.at(0, "the first line must begin with `//! PURE.` or `//! SHELL.`"));
            }
            match (folder_colour(tree, source.path), said) {
                (None, _) => {
                    findings.push(source.at(0, &format!("{unit} has no mod.rs that says PURE or SHELL")))
                }
                (Some(folder), Some(said)) if folder != said => {
                    findings.push(
                        source.at(0, &format!("says {} in a folder that is {}", said.word(), folder.word())),
                    );
                }
                (Some(_), _) => {}
            }
        }
    }
    findings
}

/// Everything in PURE code that belongs to SHELL.
pub(crate) fn impure(tree: &Tree) -> Vec<String> {
    let shells = shell_modules(tree);
    let mut findings = Vec::new();
    for (crate_folder, _) in COLOURED {
        for source in tree.sources(crate_folder).filter(|source| !source.is_test()) {
            if unit_of(source.path).is_none() || folder_colour(tree, source.path) != Some(Colour::Pure) {
                continue;
            }
            for (offset, word) in words(&source.scan.live).filter(|(_, word)| FORBIDDEN_WORDS.contains(word))
            {
                findings.push(source.at(offset, &format!("PURE code says `{word}`")));
            }
            for path in paths::live(source) {
                let text = path.text();
                if let Some(forbidden) = FORBIDDEN_PATHS.iter().find(|forbidden| {
                    path.starts_with(forbidden)
                        || (**forbidden == "Instant::now" && text.ends_with(*forbidden))
                }) {
                    findings.push(source.at(path.offset, &format!("PURE code uses `{forbidden}`")));
                } else if let Some(shell) = shells.iter().find(|shell| path.starts_with(shell)) {
                    findings.push(
                        source.at(path.offset, &format!("PURE code imports `{shell}`, which is SHELL")),
                    );
                }
            }
            findings.extend(random_maps(source));
        }
    }
    findings
}

/// Maps and sets that hash with a key of their own, so that their order differs from run to run.
fn random_maps(source: Source<'_>) -> Vec<String> {
    let code = &source.scan.live;
    let mut findings = Vec::new();
    for (name, hasher_at) in [("HashMap", 3), ("HashSet", 2)] {
        for offset in find_all(code, name) {
            let rest = &code[offset + name.len()..];
            let made =
                ["::new(", "::with_capacity(", "::from(", "::from_iter("].iter().any(|f| rest.starts_with(f));
            let generics = rest.strip_prefix("::").unwrap_or(rest);
            if made || generics.starts_with('<') && count_generics(generics) < hasher_at {
                findings.push(source.at(offset, &format!("{name} with a random hash key: give it a hasher")));
            }
        }
    }
    findings
}

/// The number of arguments in the `<...>` that `code` starts with.
fn count_generics(code: &str) -> usize {
    let (mut depth, mut count, mut is_empty) = (0usize, 1, true);
    let mut at = 0;
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b'<' => depth += 1,
            b'>' if depth == 1 => break,
            b'>' => depth -= 1,
            b'-' if code[at..].starts_with("->") => at += 1,
            b'(' | b'[' => {
                at = closing(code, at);
                is_empty = false;
                continue;
            }
            b',' if depth == 1 => {
                count += 1;
                is_empty = true;
            }
            byte if !byte.is_ascii_whitespace() => is_empty = false,
            _ => {}
        }
        at += 1;
    }
    // A list may end with a comma.
    if is_empty { count - 1 } else { count }
}

impl Colour {
    fn word(self) -> &'static str {
        match self {
            Colour::Pure => "PURE.",
            Colour::Shell => "SHELL.",
        }
    }
}

/// What the first line of a file says.
fn said_colour(source: Source<'_>) -> Option<Colour> {
    let first = source.text.lines().next()?.strip_prefix("//!")?.trim_start();
    [Colour::Pure, Colour::Shell].into_iter().find(|colour| first.starts_with(colour.word()))
}

/// The folder of modules a file belongs to, or the file itself without `.rs` when it stands at the top.
/// The roots of a crate have no colour: they only name the parts.
fn unit_of(path: &str) -> Option<&str> {
    let (crate_folder, _) = COLOURED.iter().find(|(folder, _)| path.starts_with(folder))?;
    match path[crate_folder.len()..].rsplit_once('/') {
        Some((folder, _)) => Some(&path[..crate_folder.len() + folder.len()]),
        None if path.ends_with("/lib.rs") || path.ends_with("/main.rs") => None,
        None => path.strip_suffix(".rs"),
    }
}

/// True when `path` is the file that speaks for `unit`.
fn declares(path: &str, unit: &str) -> bool {
    path.strip_prefix(unit).is_some_and(|rest| rest == ".rs" || rest == "/mod.rs")
}

/// The colour that holds for a file: its folder's, or its own at the top of the crate.
fn folder_colour(tree: &Tree, path: &str) -> Option<Colour> {
    let unit = unit_of(path)?;
    let said = |file: String| tree.sources(&file).find(|source| source.path == file).and_then(said_colour);
    // In a folder whose module file stands beside it, the folder above has a say over that file.
    said(format!("{unit}/mod.rs")).or_else(|| said(format!("{unit}.rs")))
}

/// The modules of both crates that are SHELL, as paths.
fn shell_modules(tree: &Tree) -> Vec<String> {
    let mut units: BTreeMap<&str, Colour> = EXPECTED.iter().map(|(path, colour)| (*path, *colour)).collect();
    for (crate_folder, _) in COLOURED {
        for source in tree.sources(crate_folder) {
            if let (Some(unit), Some(colour)) = (unit_of(source.path), folder_colour(tree, source.path)) {
                units.entry(unit).or_insert(colour);
            }
        }
    }
    let shells = units.into_iter().filter(|(_, colour)| *colour == Colour::Shell);
    let named = shells.filter_map(|(unit, _)| {
        let (folder, name) = COLOURED.iter().find(|(folder, _)| unit.starts_with(folder))?;
        Some(format!("{name}::{}", unit[folder.len()..].replace('/', "::")))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: (&str, &str) = ("ipc-core/Cargo.toml", "[package]\nname = \"ipc-core\"\n");

    #[test]
    fn a_silent_folder_is_found() {
        let tree = Tree::sample(&[
            MANIFEST,
            ("ipc-core/src/lib.rs", "//! Root.\nmod wire; mod odd; mod name; mod extra;"),
            ("ipc-core/src/wire/mod.rs", "//! SHELL. Not what it is.\nmod a;"),
            ("ipc-core/src/wire/a.rs", "//! PURE. Not what its folder is."),
            ("ipc-core/src/odd/mod.rs", "//! Colourless.\nmod inner;"),
            ("ipc-core/src/odd/inner.rs", "//! Inner."),
            ("ipc-core/src/name.rs", "//! Names."),
            ("ipc-core/src/extra.rs", "//! SHELL. May choose."),
        ]);
        let found = undeclared(&tree);
        let places: Vec<&str> = found.iter().filter_map(|finding| finding.split(": ").next()).collect();
        for (wanted, times) in
            [("wire/mod.rs:1", 1), ("wire/a.rs:1", 1), ("odd/mod.rs:1", 2), ("odd/inner.rs:1", 1)]
        {
            let count = places.iter().filter(|place| place.ends_with(wanted)).count();
            assert_eq!(count, times, "{wanted}: {found:#?}");
        }
        assert!(places.iter().any(|place| place.ends_with("name.rs:1")));
        assert!(!places.iter().any(|place| place.ends_with("extra.rs:1")));
    }

    fn impure_lines(code: &str) -> Vec<String> {
        let tree = Tree::sample(&[
            MANIFEST,
            ("ipc-core/src/lib.rs", "//! Root.\nmod wire;"),
            ("ipc-core/src/wire/mod.rs", &format!("//! PURE. Wire.\n{code}")),
        ]);
        impure(&tree)
    }

    #[test]
    fn each_way_out_of_pure_code_is_found() {
        for code in [
            "use tokio::net;",
            "use std::{collections::BTreeMap, net::IpAddr};",
            "fn a() { std::fs::read(b); }",
            "use std::time::{Duration, Instant};",
            "let now = Instant::now();",
            "fn a(t: SystemTime) {}",
            "async fn a() {}",
            "use crate::transport::unix;",
            "use ipc_daemon::shell;",
            "let a = HashMap::new();",
            "struct A { b: HashMap<u32, Vec<(u8, u8)>> }",
            "fn a(b: HashSet<u32,>) {}",
            "let a = HashSet::<u32>::default();",
        ] {
            assert_eq!(impure_lines(code).len(), 1, "{code}: {:?}", impure_lines(code));
            assert!(impure_lines(code)[0].starts_with("ipc-core/src/wire/mod.rs:2: "));
            assert!(impure_lines(&format!("#[cfg(test)]\nmod tests {{ {code} }}")).is_empty(), "{code}");
        }
    }

    #[test]
    fn pure_code_passes() {
        for code in [
            "use core::net::IpAddr; use std::{time::Duration, collections::HashMap};",
            "struct A { b: HashMap<u32, fn(u8) -> u8, Keyed>, c: HashSet<u8, S> }",
            "use crate::time::Instant; fn a(now: Instant) {} // tokio",
            "use super::session; let random = \"async\"; let a = HashMap::with_hasher(key);",
        ] {
            assert_eq!(impure_lines(code), Vec::<String>::new(), "{code}");
        }
    }
}
