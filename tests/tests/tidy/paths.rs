//! The paths that a file names: every `use`, with its groups taken apart, and every `a::b` in the code.

use crate::modules::Module;
use crate::tree::Source;

/// One path, with `crate`, `self` and `super` replaced by what they mean.
pub(crate) struct NamedPath {
    pub(crate) offset: usize,
    pub(crate) segments: Vec<String>,
}

impl NamedPath {
    /// True when the path starts with the segments of `prefix`, written `a::b`.
    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let mut segments = self.segments.iter();
        prefix.split("::").all(|part| segments.next().is_some_and(|segment| segment == part))
    }

    /// The segment at `index`, or nothing.
    pub(crate) fn segment(&self, index: usize) -> &str {
        self.segments.get(index).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// The paths in the part of a file that is not for tests.
pub(crate) fn live(source: Source<'_>) -> Vec<NamedPath> {
    named(&source.scan.live, source.module)
}

/// The paths in all of a file.
pub(crate) fn all(source: Source<'_>) -> Vec<NamedPath> {
    named(&source.scan.code, source.module)
}

fn named(code: &str, module: Option<&Module>) -> Vec<NamedPath> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (_, token) = tokens[at];
        if token == "use" && tokens.get(at + 1).is_some_and(|(_, next)| *next != "<") {
            at = use_tree(&tokens, at + 1, &[], &mut paths);
        } else if token.starts_with(crate::scan::is_word) {
            at = inline_path(&tokens, at, &mut paths);
        } else {
            at += 1;
        }
    }
    for path in &mut paths {
        path.segments = resolve(std::mem::take(&mut path.segments), module);
    }
    paths
}

/// Identifiers, `::`, and single characters.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let len = if crate::scan::is_word(first) {
            code[at..].find(|c| !crate::scan::is_word(c)).unwrap_or(code.len() - at)
        } else if code[at..].starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            tokens.push((at, &code[at..at + len]));
        }
        at += len;
    }
    tokens
}

/// Reads the tree of a `use` from `at`; gives the place behind it.
fn use_tree(tokens: &[(usize, &str)], mut at: usize, prefix: &[String], paths: &mut Vec<NamedPath>) -> usize {
    let mut segments = prefix.to_vec();
    let offset = tokens.get(at).map_or(0, |(offset, _)| *offset);
    while let Some((_, token)) = tokens.get(at) {
        match *token {
            "::" => at += 1,
            "as" => at += 2,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| *token != "}") {
                    at = use_tree(tokens, at, &segments, paths);
                    if tokens.get(at).is_some_and(|(_, token)| *token == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            segment => {
                segments.push(segment.to_owned());
                at += 1;
            }
        }
    }
    // `use a::{self}` names `a`.
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    paths.push(NamedPath { offset, segments });
    at
}

fn inline_path(tokens: &[(usize, &str)], mut at: usize, paths: &mut Vec<NamedPath>) -> usize {
    let (offset, first) = tokens[at];
    let mut segments = vec![first.to_owned()];
    at += 1;
    while let [(_, "::"), (_, next), ..] = tokens[at..] {
        if !next.starts_with(crate::scan::is_word) {
            break;
        }
        segments.push(next.to_owned());
        at += 2;
    }
    if segments.len() > 1 {
        paths.push(NamedPath { offset, segments });
    }
    at
}

fn resolve(segments: Vec<String>, module: Option<&Module>) -> Vec<String> {
    let (Some(module), Some(first)) = (module, segments.first()) else { return segments };
    let here = &module.segments;
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    let (base, skipped) = match first.as_str() {
        "crate" => (&here[..1], 1),
        "self" => (&here[..], 1),
        "super" => (&here[..here.len().saturating_sub(ups).max(1)], ups),
        _ => return segments,
    };
    base.iter().chain(&segments[skipped..]).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn groups_are_taken_apart_and_relative_paths_resolved() {
        let tree = Tree::sample(&[
            ("a/Cargo.toml", "[package]\nname = \"a-b\"\n"),
            ("a/src/lib.rs", "//! A.\nmod c;"),
            (
                "a/src/c.rs",
                "//! C.\npub(crate) use std::{fs::{self, File as F}, io};\nfn f() -> super::g::H { crate::i(self::j::k) }\n\
                 fn l() -> impl use<'m> + ::n::o::P {}",
            ),
        ]);
        let source = tree.sources("a/src/c.rs").next().unwrap();
        let texts: Vec<String> = live(source).iter().map(NamedPath::text).collect();
        assert_eq!(
            texts,
            ["std::fs", "std::fs::File", "std::io", "a_b::g::H", "a_b::i", "a_b::c::j::k", "n::o::P"]
        );
        assert_eq!(source.scan.line(live(source)[3].offset), 3);
    }
}
