//! Who may import whom. The layers of HOUSE: `wire` <- `session` <- `client`, `service`, `blocking`; registries of
//! the broker know nothing of one another; the tool uses the library's paved path.

use crate::paths::{self, NamedPath};
use crate::scan::find_all;
use crate::tree::{Source, Tree};

/// Code under a path must not name these modules.
const FORBIDDEN: [(&str, &[&str]); 13] = [
    (
        "ipc-core/src/wire",
        &[
            "ipc_core::session",
            "ipc_core::transport",
            "ipc_core::client",
            "ipc_core::service",
            "ipc_core::blocking",
        ],
    ),
    (
        "ipc-core/src/session",
        &["ipc_core::transport", "ipc_core::client", "ipc_core::service", "ipc_core::blocking"],
    ),
    (
        "ipc-core/src/transport",
        &[
            "ipc_core::wire",
            "ipc_core::session",
            "ipc_core::client",
            "ipc_core::service",
            "ipc_core::blocking",
        ],
    ),
    ("ipc-core/src/client", &["ipc_core::blocking"]),
    ("ipc-core/src/service", &["ipc_core::blocking"]),
    ("ipc-core/src/blocking", &["ipc_core::client", "tokio"]),
    ("ipc-core/", &["ipc_daemon", "ipc_cli", "ipc_tests"]),
    ("ipc-daemon/", &["ipc_cli", "ipc_tests"]),
    (
        "ipc-daemon/src/broker",
        &["ipc_daemon::shell", "ipc_daemon::store", "ipc_daemon::bridge", "ipc_daemon::config"],
    ),
    (
        "ipc-daemon/src/datagram",
        &["ipc_daemon::broker", "ipc_daemon::bus", "ipc_daemon::shell", "ipc_daemon::bridge"],
    ),
    ("ipc-daemon/src/store", &["ipc_daemon::shell", "ipc_daemon::bridge"]),
    ("ipc-daemon/src/bridge", &["ipc_daemon::shell", "ipc_daemon::store"]),
    ("ipc-cli/", &["ipc_daemon", "ipc_tests"]),
];

/// The modules of the library that the tool may name: the API and the words its signatures are made of. Items at the
/// root of the library are the paved path too.
const PAVED: [&str; 8] = ["client", "service", "blocking", "name", "error", "payload", "identity", "limits"];

/// The parts of the broker that put registries together.
const COMPOSERS: [&str; 4] = ["mod", "dispatch", "departure", "snapshot"];
/// Records and events that are made of several parts, and that every registry may use.
const SHARED: [&str; 2] = ["event", "peer"];
/// Words and collections that every registry may use and that are made of nothing.
const VOCABULARY: [&str; 4] = ["keys", "filters", "ledger", "records"];

const COMPOSING: &str = "mod, dispatch, departure and snapshot";
const BROKER: &str = "ipc-daemon/src/broker/";
const CODEC: &str = "ipc-core/src/wire/codec.rs";

/// Every import against an arrow.
pub(crate) fn violations(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources("") {
        // Tests may look at a whole layer from above, but nothing except tests knows the tests.
        let used = if source.path.contains("/src/") { paths::live(source) } else { paths::all(source) };
        findings.extend(against_layers(source, &used));
        findings.extend(beside_the_pavement(source, &used));
    }
    findings.extend(sibling_registries(tree));
    findings.extend(bincode_elsewhere(tree));
    findings
}

fn against_layers(source: Source<'_>, used: &[NamedPath]) -> Vec<String> {
    let mut findings = Vec::new();
    for (place, forbidden) in FORBIDDEN {
        // A layer is a folder or, while it is small, a file.
        let inside = source.path.strip_prefix(place);
        if !inside.is_some_and(|rest| place.ends_with('/') || rest.starts_with('/') || rest == ".rs") {
            continue;
        }
        for path in used {
            if let Some(target) = forbidden.iter().find(|target| path.starts_with(target)) {
                findings.push(
                    source.at(
                        path.offset,
                        &format!("{} must not import `{target}`", place.trim_end_matches('/')),
                    ),
                );
            }
        }
    }
    findings
}

fn beside_the_pavement(source: Source<'_>, used: &[NamedPath]) -> Vec<String> {
    if !source.path.starts_with("ipc-cli/") {
        return Vec::new();
    }
    let beside = used.iter().filter(|path| {
        let part = path.segment(1);
        path.segment(0) == "ipc_core"
            && part.starts_with(|c: char| c.is_ascii_lowercase())
            && path.segments.len() > 2
            && !PAVED.contains(&part)
    });
    let message = |path: &NamedPath| {
        format!("ipc-cli uses `{}`, which is not on the library's paved path", path.text())
    };
    beside.map(|path| source.at(path.offset, &message(path))).collect()
}

/// Registries of the broker that import one another, directly or through names that `broker/mod.rs` brought in, or that
/// reach all of them as methods of the broker.
fn sibling_registries(tree: &Tree) -> Vec<String> {
    let parts: Vec<String> = tree.sources(BROKER).filter_map(|source| part_of(source.path)).collect();
    let brought_in = brought_in(tree, &parts);
    let mut findings = Vec::new();
    for source in tree.sources(BROKER).filter(|source| !source.is_test()) {
        let Some(own) = part_of(source.path).filter(|part| !COMPOSERS.contains(&part.as_str())) else {
            continue;
        };
        for offset in find_all(&source.scan.live, "impl Broker") {
            let message =
                format!("broker/{own} has methods of the whole broker: they belong into {COMPOSING}");
            findings.push(source.at(offset, &message));
        }
        for path in paths::live(source).iter().filter(|path| path.starts_with("ipc_daemon::broker")) {
            let named = path.segment(2);
            let target = brought_in.iter().find(|(name, _)| name == named).map_or(named, |(_, part)| part);
            let is_registry = parts.iter().any(|part| part == target)
                && !SHARED.contains(&target)
                && !SHARED.contains(&own.as_str())
                && !VOCABULARY.contains(&target);
            if target != own && (is_registry || COMPOSERS.contains(&target)) {
                let message = format!(
                    "broker/{own} imports `{}` of broker/{target}: parts are put together in {COMPOSING}, what they \
                     share is in {}, and what one part owns is in its folder",
                    path.text(),
                    [&VOCABULARY[..], &SHARED].concat().join(", ")
                );
                findings.push(source.at(path.offset, &message));
            }
        }
    }
    findings
}

/// The names that `broker/mod.rs` imports from its parts, which its children see too, each with its part.
fn brought_in(tree: &Tree, parts: &[String]) -> Vec<(String, String)> {
    let is_root = |path: &str| path == "ipc-daemon/src/broker.rs" || path == "ipc-daemon/src/broker/mod.rs";
    let mut names = Vec::new();
    for path in
        tree.sources("ipc-daemon/src/broker").filter(|source| is_root(source.path)).flat_map(paths::live)
    {
        let part_at = if path.starts_with("ipc_daemon::broker") { 2 } else { 0 };
        let part = path.segment(part_at);
        if path.segments.len() > part_at + 1 && parts.iter().any(|known| known == part) {
            names.push((path.segments[path.segments.len() - 1].clone(), part.to_owned()));
        }
    }
    names
}

/// The part of the broker that a file belongs to: `calls` for `calls.rs` and `calls/table.rs`.
fn part_of(path: &str) -> Option<String> {
    let part = path.strip_prefix(BROKER)?.split('/').next()?;
    Some(part.strip_suffix(".rs").unwrap_or(part).to_owned())
}

fn bincode_elsewhere(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources("").filter(|source| source.path != CODEC) {
        for offset in find_all(&source.scan.code, "bincode") {
            // `PayloadKind::bincode()` and fields of that name are ours; what counts is the crate.
            let before = source.scan.code[..offset].trim_end();
            let after = source.scan.code[offset + "bincode".len()..].trim_start();
            let is_ours = before.ends_with('.')
                || before.ends_with("fn")
                || before.ends_with("::") && !after.starts_with("::");
            if !is_ours {
                findings.push(source.at(offset, &format!("bincode is named in {CODEC} only")));
            }
        }
    }
    for manifest in
        tree.files().filter(|file| file.path.ends_with("/Cargo.toml") && file.path != "ipc-core/Cargo.toml")
    {
        let lines = manifest.text.lines().enumerate().filter(|(_, line)| line.starts_with("bincode"));
        findings.extend(
            lines.map(|(at, _)| format!("{}:{}: only ipc-core depends on bincode", manifest.path, at + 1)),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found when `path`, a module of its crate, holds `code`.
    fn found(path: &str, code: &str) -> Vec<String> {
        let (package, inside) = path.split_once('/').unwrap();
        let manifest = format!("[package]\nname = \"{package}\"\n");
        let modules: Vec<&str> =
            inside.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
        let root = format!("//! Root.\nmod {};", modules[0]);
        let folder = format!(
            "//! PURE.\nuse calls::Calls;\nmod calls; mod names; mod {};",
            modules[modules.len() - 1]
        );
        let mut files = vec![
            (format!("{package}/Cargo.toml"), manifest),
            (format!("{package}/src/lib.rs"), root),
            (format!("{package}/src/{}/mod.rs", modules[0]), folder),
            (format!("{package}/src/{}/calls.rs", modules[0]), "//! Calls.".to_owned()),
            (format!("{package}/src/{}/names.rs", modules[0]), "//! Names.".to_owned()),
        ];
        files.push((path.to_owned(), format!("//! Sample.\n{code}")));
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        violations(&Tree::sample(&files))
    }

    #[test]
    fn each_wrong_arrow_is_found() {
        for (path, code) in [
            ("ipc-core/src/wire/a.rs", "use crate::session::Session;"),
            ("ipc-core/src/session/a.rs", "use crate::{wire::Frame, client::Client};"),
            ("ipc-core/src/transport/a.rs", "fn a(b: crate::wire::Frame) {}"),
            ("ipc-core/src/transport/a.rs", "use super::super::session;"),
            ("ipc-core/src/blocking/a.rs", "use tokio::net;"),
            ("ipc-core/src/client/a.rs", "use ipc_tests::rng::Rng;"),
            ("ipc-daemon/src/broker/a.rs", "use crate::shell::Loop;"),
            ("ipc-daemon/src/broker/names.rs", "use super::calls::Calls;"),
            ("ipc-daemon/src/broker/names.rs", "use crate::broker::{Calls as C};"),
            ("ipc-daemon/src/broker/keys.rs", "use super::names::Names;"),
            ("ipc-daemon/src/broker/event.rs", "use super::dispatch::dispatch;"),
            ("ipc-daemon/src/broker/names.rs", "impl Broker { fn a(&self) {} }"),
            ("ipc-daemon/src/broker/names.rs", "use super::dispatch::dispatch;"),
            ("ipc-cli/src/commands/a.rs", "use ipc_core::session::Session;"),
            ("ipc-cli/src/commands/a.rs", "use ipc_daemon::run;"),
            ("ipc-core/src/wire/header.rs", "use bincode::Encode;"),
            ("ipc-core/src/wire/header.rs", "#[derive(::bincode::Encode)] struct A;"),
        ] {
            assert_eq!(found(path, code).len(), 1, "{path}: {code}: {:?}", found(path, code));
            assert!(found(path, code)[0].starts_with(&format!("{path}:2: ")), "{:?}", found(path, code));
        }
    }

    #[test]
    fn right_arrows_pass() {
        for (path, code) in [
            ("ipc-core/src/session/a.rs", "use crate::wire::Frame;"),
            ("ipc-core/src/client/a.rs", "use crate::{session::Session, transport::unix};"),
            ("ipc-core/src/wire/codec.rs", "use bincode::Encode;"),
            ("ipc-core/src/wire/header.rs", "fn bincode() {} let a = Kind::bincode; b.bincode"),
            ("ipc-daemon/src/broker/dispatch.rs", "use super::{calls::Calls, names::Names};"),
            (
                "ipc-daemon/src/broker/names.rs",
                "use super::event::Event; use super::PeerKey; use super::names::b;",
            ),
            ("ipc-daemon/src/broker/peer.rs", "use super::names::Names;"),
            ("ipc-daemon/src/broker/dispatch.rs", "impl Broker { fn a(&self) {} }"),
            ("ipc-daemon/src/broker/bridge/a.rs", "use super::loopguard;"),
            ("ipc-cli/src/commands/a.rs", "use ipc_core::{client::Client, Address, Error};"),
            ("ipc-core/src/wire/a.rs", "#[cfg(test)]\nmod tests { use crate::session::Session; }"),
        ] {
            assert_eq!(found(path, code), Vec::<String>::new(), "{path}: {code}");
        }
    }

    #[test]
    fn a_second_user_of_bincode_is_found_in_its_manifest() {
        let tree = Tree::sample(&[("ipc-cli/Cargo.toml", "[dependencies]\nbincode.workspace = true\n")]);
        assert_eq!(violations(&tree), ["ipc-cli/Cargo.toml:2: only ipc-core depends on bincode"]);
    }
}
