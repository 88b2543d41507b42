//! Which files are modules of which crate. Rules: every file belongs to one, and says what it is for.

use std::collections::BTreeMap;

use crate::scan::words;
use crate::tree::Tree;

/// The place of a file in its crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// The crate's name as code writes it, then the modules down to this one.
    pub(crate) segments: Vec<String>,
    /// True when only tests or benches compile it.
    pub(crate) test: bool,
}

/// Files that no crate compiles.
pub(crate) fn dead(tree: &Tree) -> Vec<String> {
    let unreached = tree.sources("").filter(|source| source.module.is_none());
    unreached
        .map(|source| source.at(0, "no `mod` of any crate reaches this file; delete or declare it"))
        .collect()
}

/// Files that do not start with a `//!` line.
pub(crate) fn undocumented(tree: &Tree) -> Vec<String> {
    let silent = tree.sources("").filter(|source| {
        let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        first.strip_prefix("//!").is_none_or(|doc| doc.trim().is_empty())
    });
    silent.map(|source| source.at(0, "starts without a `//!` line that says what it is for")).collect()
}

/// Follows `mod` from the root of every crate of every package.
pub(crate) fn reachable(tree: &Tree) -> BTreeMap<String, Module> {
    let mut reached = BTreeMap::new();
    for manifest in tree.files().filter(|file| file.text.contains("[package]")) {
        if manifest.path != "Cargo.toml" && !manifest.path.ends_with("/Cargo.toml") {
            continue;
        }
        let package = manifest.path.strip_suffix("Cargo.toml").unwrap_or_default();
        for (path, module) in roots(tree, package, &manifest.text) {
            visit(tree, &path, module, &mut reached);
        }
    }
    reached
}

/// The root files of one package: those cargo finds by itself and those its manifest names.
fn roots(tree: &Tree, package: &str, manifest: &str) -> Vec<(String, Module)> {
    let value = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
        Some(value.trim_matches('"').to_owned())
    };
    let name = manifest.lines().find_map(|line| value(line, "name")).unwrap_or_default().replace('-', "_");
    let named: Vec<String> = manifest.lines().filter_map(|line| value(line, "path")).collect();
    let mut roots = Vec::new();
    for source in tree.files().filter(|file| file.scan.is_some()) {
        let Some(inside) = source.path.strip_prefix(package) else { continue };
        let parts: Vec<&str> = inside.split('/').collect();
        let (crate_name, test) = match parts.as_slice() {
            ["src", "lib.rs" | "main.rs"] => (name.clone(), false),
            ["build.rs"] => ("build".to_owned(), false),
            ["src", "bin", file] => (stem(file), false),
            ["examples", file] | ["examples", file, "main.rs"] => (stem(file), false),
            ["tests" | "benches", file] | ["tests" | "benches", file, "main.rs"] => (stem(file), true),
            _ if named.iter().any(|path| path == inside) => (stem(parts[parts.len() - 1]), true),
            _ => continue,
        };
        roots.push((source.path.clone(), Module { segments: vec![crate_name], test }));
    }
    roots
}

fn visit(tree: &Tree, path: &str, module: Module, reached: &mut BTreeMap<String, Module>) {
    let Some((scan, text)) = tree.file(path).and_then(|file| Some((file.scan.as_ref()?, &file.text))) else {
        return;
    };
    // A file that both the program and its tests compile is code of the program.
    if reached.get(path).is_some_and(|known| !known.test || module.test) {
        return;
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let has_own_folder = module.segments.len() == 1 || file == "mod.rs";
    let children = if has_own_folder { folder.to_owned() } else { format!("{folder}/{}", stem(file)) };
    for (offset, child) in declarations(&scan.code) {
        let candidates = match path_attribute(&text[..offset]) {
            Some(written) => vec![format!("{folder}/{written}")],
            None => vec![format!("{children}/{child}.rs"), format!("{children}/{child}/mod.rs")],
        };
        let segments = module.segments.iter().cloned().chain([child.to_owned()]).collect();
        let module = Module { segments, test: module.test || scan.in_test(offset) };
        for candidate in candidates {
            visit(tree, &candidate, module.clone(), reached);
        }
    }
    reached.insert(path.to_owned(), module);
}

/// Every `mod name;` with the offset of its `mod`.
fn declarations(code: &str) -> Vec<(usize, &str)> {
    let mut words = words(code).peekable();
    let mut found = Vec::new();
    while let Some((offset, word)) = words.next() {
        if let (true, Some((at, name))) = (word == "mod", words.peek())
            && code[at + name.len()..].trim_start().starts_with(';')
        {
            found.push((offset, *name));
        }
    }
    found
}

/// The file of a `#[path = "..."]` at the end of `before`, which ends in front of `mod` or its visibility.
fn path_attribute(before: &str) -> Option<&str> {
    let (_, attribute) = before.rsplit_once("#[path = \"")?;
    let (file, rest) = attribute.split_once("\"]")?;
    (!rest.contains([';', '{', '}'])).then_some(file)
}

fn stem(file: &str) -> String {
    file.strip_suffix(".rs").unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        Tree::sample(&[
            ("Cargo.toml", "[workspace]\n"),
            ("a/Cargo.toml", "[package]\nname = \"a-b\"\n[[bench]]\nname = \"z\"\npath = \"odd/z.rs\"\n"),
            (
                "a/src/lib.rs",
                "//! Root.\nmod c;\n#[path = \"e.rs\"]\npub(crate) mod d;\n#[cfg(test)]\nmod f;\n// mod g;",
            ),
            ("a/src/c.rs", "//! C.\npub mod h;"),
            ("a/src/c/h.rs", "// Nothing.\nfn i() {}"),
            ("a/src/e.rs", "\n//! E."),
            ("a/src/f/mod.rs", "//!\nmod j;"),
            ("a/src/f/j.rs", ""),
            ("a/src/g.rs", "//! Left over."),
            ("a/tests/k/main.rs", "//! K."),
            ("a/odd/z.rs", "//! Z."),
        ])
    }

    #[test]
    fn modules_are_followed_and_test_modules_known() {
        let reached = reachable(&sample());
        let name = |path: &str| reached.get(path).map(|module| (module.segments.join("::"), module.test));
        assert_eq!(name("a/src/c/h.rs"), Some(("a_b::c::h".to_owned(), false)));
        assert_eq!(name("a/src/e.rs"), Some(("a_b::d".to_owned(), false)));
        assert_eq!(name("a/src/f/j.rs"), Some(("a_b::f::j".to_owned(), true)));
        assert_eq!(name("a/tests/k/main.rs"), Some(("k".to_owned(), true)));
        assert_eq!(name("a/odd/z.rs"), Some(("z".to_owned(), true)));
    }

    #[test]
    fn a_file_nobody_declares_is_dead() {
        assert_eq!(dead(&sample()).len(), 1);
        assert!(dead(&sample())[0].starts_with("a/src/g.rs:1: "));
    }

    #[test]
    fn a_file_without_its_doc_is_found() {
        let found = undocumented(&sample());
        let paths: Vec<&str> = found.iter().filter_map(|finding| finding.split(':').next()).collect();
        assert_eq!(paths, ["a/src/c/h.rs", "a/src/f/j.rs", "a/src/f/mod.rs"]);
    }
}
