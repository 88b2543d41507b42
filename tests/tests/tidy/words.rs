//! Words that must not stand in the project: places of one machine, work left undone, tests switched off, waits
//! for a time, unsafe code, and results dropped without a reason.
//!
//! The words are put together here, so that this file does not hold them itself.

use crate::scan::find_all;
use crate::tree::Tree;

/// The only files with unsafe code: system calls that no crate offers, and the allocator that counts for a test.
const UNSAFE_FILES: [&str; 2] = ["ipc-core/src/transport/sys.rs", "tests/src/allocations.rs"];

/// Paths of a machine and folders beside the project: in no file at all.
const PLACES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("../sh", "ared")];
/// Work left undone: in no file at all.
const UNDONE: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
/// Calls and attributes that leave work undone or switch a test off: in no code.
const SWITCHED_OFF: [&str; 3] =
    [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("#[ign", "ore")];

/// Unwanted words with their places.
pub(crate) fn unwanted(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.files().filter(|file| file.path != "Cargo.lock") {
        for (at, line) in file.text.lines().enumerate() {
            for place in PLACES.iter().filter(|place| has_place(line, place)) {
                findings.push(format!("{}:{}: `{place}` is a place of one machine", file.path, at + 1));
            }
            for word in UNDONE.iter().filter(|word| find_all(line, word).next().is_some()) {
                findings.push(format!("{}:{}: `{word}`: do it, or open an issue", file.path, at + 1));
            }
        }
    }
    for source in tree.sources("") {
        for word in SWITCHED_OFF {
            let found = find_all(&source.scan.code, word);
            findings
                .extend(found.map(|offset| source.at(offset, &format!("`{word}` leaves something undone"))));
        }
    }
    findings
}

/// True when `line` holds `place` as the start of a path, not as the end of a longer name.
fn has_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !place.starts_with('/') || !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// `unsafe` outside its few places.
pub(crate) fn unsafe_code(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources("").filter(|source| !UNSAFE_FILES.contains(&source.path)) {
        let found = find_all(&source.scan.code, "unsafe");
        findings.extend(
            found.map(|offset| source.at(offset, &format!("unsafe code belongs into {}", UNSAFE_FILES[0]))),
        );
    }
    findings
}

/// Tests that wait for a time to pass instead of watching the state they wait for.
pub(crate) fn sleeping_tests(tree: &Tree) -> Vec<String> {
    let call = concat!("sle", "ep(");
    let mut findings = Vec::new();
    for source in tree.sources("") {
        let is_test_file = source.is_test() || source.path.starts_with("tests/");
        for offset in find_all(&source.scan.code, call) {
            if is_test_file || source.scan.in_test(offset) {
                findings.push(source.at(offset, "a test sleeps: watch the state it waits for, with a bound"));
            }
        }
    }
    findings
}

/// Results and lints dropped without a comment on the same line or on the one above.
pub(crate) fn unexplained(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources("").filter(|source| !source.is_test() && !source.path.starts_with("tests/")) {
        let lines: Vec<&str> = source.text.lines().collect();
        for dropped in ["let _ =", "#[allow(", "#![allow("] {
            for offset in find_all(&source.scan.live, dropped) {
                let line = source.scan.line(offset);
                let near = &lines[line.saturating_sub(2)..line];
                if !near.iter().any(|line| line.contains("//")) {
                    findings.push(source.at(offset, &format!("`{dropped}` without a comment that says why")));
                }
            }
        }
        for offset in find_all(&source.scan.code, "#![allow(clippy::too_many") {
            findings.push(source.at(offset, "a whole file is excused from being split"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::sample(&[(path, text)])
    }

    #[test]
    fn each_unwanted_word_is_found_once() {
        for place in PLACES {
            assert_eq!(unwanted(&tree("a.md", &format!("see\n`{place}b`"))).len(), 1);
            assert!(unwanted(&tree("a.md", &format!("see\n`{place}b`")))[0].starts_with("a.md:2: "));
        }
        for word in UNDONE {
            assert_eq!(unwanted(&tree("a.sh", &format!("# {word}: later"))).len(), 1);
        }
        for word in SWITCHED_OFF {
            assert_eq!(unwanted(&tree("a.rs", word)).len(), 1);
        }
        assert_eq!(
            unwanted(&tree("a.md", concat!("framewo", "rk/x net", "wo", "rk/y method"))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unsafe_code_is_found_outside_its_place() {
        assert_eq!(unsafe_code(&tree("a.rs", "// unsafe\nunsafe { b() }")).len(), 1);
        assert!(unsafe_code(&tree(UNSAFE_FILES[0], "unsafe { b() }")).is_empty());
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let call = concat!("thread::sle", "ep(a)");
        assert_eq!(sleeping_tests(&tree("tests/src/a.rs", call)).len(), 1);
        assert_eq!(
            sleeping_tests(&tree("b/src/c.rs", &format!("#[cfg(test)]\nfn d() {{ {call} }}"))).len(),
            1
        );
        assert!(sleeping_tests(&tree("b/src/c.rs", call)).is_empty());
    }

    #[test]
    fn a_dropped_result_needs_its_reason() {
        assert_eq!(
            unexplained(&tree("a/src/b.rs", "c();\nlet _ = d();")),
            ["a/src/b.rs:2: `let _ =` without a comment that says why"]
        );
        assert!(unexplained(&tree("a/src/b.rs", "// Nobody is left to tell.\nlet _ = d();")).is_empty());
        assert_eq!(unexplained(&tree("a/src/b.rs", "#[allow(dead_code)]\nfn e() {}")).len(), 1);
    }
}
