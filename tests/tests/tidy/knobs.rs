//! No knob without an effect: every configuration key is read by something, every limit is used and documented.

use crate::scan::{closing, find_all, words};
use crate::tree::{Source, Tree};

const CONFIG: &str = "ipc-daemon/src/config";
/// Functions of the configuration that hand keys on or compare them: that alone is no use of a key.
const HANDED_ON_BY: [&str; 2] = ["layer", "fixed_changes"];
const LIMITS: &str = "ipc-core/src/limits.rs";
/// The specification, which holds a table of the limits.
const PROTOCOL: &str = "ipc-core/PROTOCOL.md";
/// The parts of the project that keep the limits: a limit can be unused only once all of them stand.
const KEEPERS: [&str; 6] = [
    "ipc-core/src/session",
    "ipc-core/src/client",
    "ipc-core/src/blocking",
    "ipc-daemon/src/broker",
    "ipc-daemon/src/shell",
    "ipc-daemon/src/bridge",
];

/// Fields of the configuration that no code reads.
pub(crate) fn unread_keys(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for config in tree.sources(CONFIG).filter(|source| !source.is_test()) {
        for (offset, field) in fields(&config.scan.live) {
            let is_read = tree.sources("ipc-daemon/").any(|source| {
                // In its own file a key counts when it is read; elsewhere it may also be taken apart by a pattern.
                let is_config = source.path.starts_with(CONFIG);
                let read = format!(".{field}");
                let functions = if is_config { source.scan.functions() } else { Vec::new() };
                let handing_on: Vec<_> = functions
                    .into_iter()
                    .filter(|function| HANDED_ON_BY.contains(&function.name.as_str()))
                    .collect();
                find_all(&source.scan.live, if is_config { &read } else { field })
                    .any(|at| !handing_on.iter().any(|function| (function.start..function.end).contains(&at)))
            });
            if !is_read {
                findings.push(config.at(offset, &format!("no code reads the configuration key `{field}`")));
            }
        }
    }
    findings
}

/// Limits that no code uses, or that no document names.
pub(crate) fn unused_limits(tree: &Tree) -> Vec<String> {
    let Some(limits) = tree.sources(LIMITS).next() else { return Vec::new() };
    let documents: Vec<&str> = tree
        .files()
        .filter(|file| file.path.ends_with(".md") && file.path != "CHANGELOG.md")
        .map(|file| file.text.as_str())
        .collect();
    let can_be_used = KEEPERS.iter().all(|part| tree.sources(part).next().is_some());
    let can_be_named = tree.file(PROTOCOL).is_some();
    let mut findings = Vec::new();
    let names = fields(&limits.scan.live).into_iter().chain(constants(&limits.scan.live));
    for (offset, name) in names {
        if can_be_used && !is_used(tree, limits, name) {
            findings.push(limits.at(offset, &format!("nothing uses the limit `{name}`")));
        }
        let lower = name.to_lowercase();
        let named = |text: &&str| [name, &lower].iter().any(|name| find_all(text, name).next().is_some());
        if can_be_named && !documents.iter().any(named) {
            findings.push(limits.at(offset, &format!("no document (*.md) names the limit `{name}`")));
        }
    }
    findings
}

/// True when code outside the limits and outside tests says `name`, or a limit that others use is made from it.
fn is_used(tree: &Tree, limits: Source<'_>, name: &str) -> bool {
    let others = tree.sources("ipc-").filter(|source| source.path != LIMITS && !source.is_test());
    others.into_iter().any(|source| find_all(&source.scan.live, name).next().is_some())
        || constants(&limits.scan.live).iter().any(|(offset, other)| {
            let statement = limits.scan.live[*offset..].split(';').next().unwrap_or_default();
            *other != name && find_all(statement, name).next().is_some() && is_used(tree, limits, other)
        })
}

/// The named fields of every struct and of the `limits!` table, with their offsets.
fn fields(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for at in find_all(code, "struct").chain(find_all(code, "limits!")) {
        let Some(open) = code[at..].find(['{', ';', '(']).map(|len| at + len) else { continue };
        if !code[open..].starts_with('{') {
            continue;
        }
        let body = &code[open + 1..closing(code, open)];
        let mut depth = 0usize;
        let mut last = 0;
        for (offset, word) in words(body) {
            for byte in body[last..offset].bytes() {
                match byte {
                    b'(' | b'[' | b'{' | b'<' => depth += 1,
                    b')' | b']' | b'}' | b'>' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            last = offset;
            let rest = body[offset + word.len()..].trim_start();
            let in_path = rest.starts_with("::") || body[..offset].ends_with(':');
            if depth == 0 && rest.starts_with(':') && !in_path {
                found.push((open + 1 + offset, word));
            }
        }
    }
    found
}

/// The name of every `const NAME:`, with its offset.
fn constants(code: &str) -> Vec<(usize, &str)> {
    let named = find_all(code, "const").filter_map(|at| {
        let after = at + "const".len();
        let (offset, name) = words(&code[after..]).next()?;
        let is_name = name != "_" && code[after + offset + name.len()..].trim_start().starts_with(':');
        is_name.then_some((after + offset, name))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_nothing_reads_is_found() {
        let tree = Tree::sample(&[
            ("ipc-daemon/Cargo.toml", "[package]\nname = \"ipc-daemon\"\n"),
            (
                "ipc-daemon/src/lib.rs",
                "//! Root.\nmod config; fn a(c: Config) { c.read(); let Config { taken, .. } = c; }",
            ),
            (
                "ipc-daemon/src/config.rs",
                "//! SHELL.\npub struct Config {\n    pub read: u32,\n    #[serde(default)]\n    pub taken: Vec<std::net::IpAddr>,\n\
                 \n    pub idle: u32,\n    pub copied: u32,\n}\n\
                 fn default() -> Config { Config { read: 1, idle: 2 } }\n\
                 fn layer(written: Config) -> Config { Config { copied: written.copied } }\n",
            ),
        ]);
        let found = unread_keys(&tree);
        let unread = |line, key| {
            format!("ipc-daemon/src/config.rs:{line}: no code reads the configuration key `{key}`")
        };
        assert_eq!(found, [unread(7, "idle"), unread(8, "copied")]);
    }

    const LIMITS_SAMPLE: &str = "//! PURE.
pub const PART_MAX: usize = 1;
pub const SUM_MAX: usize = PART_MAX + 1;
pub const LONE_MAX: u8 = 1;
limits! {
    /// Doc.
    queue_bytes: u32 = 8 << 20, 1, 2;
}
const _: () = assert!(LONE_MAX > 0);
";

    #[test]
    fn a_limit_without_use_or_document_is_found() {
        let mut files = vec![
            ("ipc-core/Cargo.toml", "[package]\nname = \"ipc-core\"\n"),
            (
                "ipc-core/src/lib.rs",
                "//! Root.\nmod limits; fn a() { limits::SUM_MAX; b.queue_bytes }\n#[cfg(test)] mod c { LONE_MAX }",
            ),
            (LIMITS, LIMITS_SAMPLE),
            (PROTOCOL, "`part_max`, `SUM_MAX`, `LONE_MAX`"),
            ("CHANGELOG.md", "queue_bytes"),
        ];
        let undocumented = "ipc-core/src/limits.rs:7: no document (*.md) names the limit `queue_bytes`";
        assert_eq!(unused_limits(&Tree::sample(&files)), [undocumented]);
        let keepers: Vec<String> = KEEPERS.iter().map(|part| format!("{part}/mod.rs")).collect();
        files.extend(keepers.iter().map(|path| (path.as_str(), "//! Here.")));
        let unused = "ipc-core/src/limits.rs:4: nothing uses the limit `LONE_MAX`";
        assert_eq!(unused_limits(&Tree::sample(&files)), [undocumented, unused]);
    }
}
