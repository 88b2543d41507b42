//! Every promise names a test that there is.

use crate::tree::Tree;

const GUARANTEES: &str = "docs/GUARANTEES.md";
/// A name of so many words is that of a test; shorter ones are codes, keys and limits.
const TEST_NAME_WORDS_MIN: usize = 4;

/// Tests that the guarantees name and that are not there.
pub(crate) fn unproved(tree: &Tree) -> Vec<String> {
    let Some(file) = tree.file(GUARANTEES) else { return Vec::new() };
    let mut findings = Vec::new();
    for (line, text) in file.text.lines().enumerate() {
        for name in named_tests(text) {
            let function = format!("fn {name}(");
            let is_there = tree.files().any(|file| file.scan.is_some() && file.text.contains(&function));
            if !is_there {
                findings.push(format!("{GUARANTEES}:{}: there is no test {name}", line + 1));
            }
        }
    }
    findings
}

/// What stands between backticks and has the name of a test, without the module before it.
fn named_tests(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| {
        let name = quoted.rsplit("::").next()?;
        let is_name = name.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_');
        (is_name && name.split('_').count() >= TEST_NAME_WORDS_MIN).then_some(name)
    })
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let table =
        "| it holds | `key_history_max` | in all worlds; `gate::one_at_a_time`, `nobody_is_kept_out` |\n";
    let code = "#[test]\nfn one_at_a_time() {}\n";
    let tree = Tree::sample(&[(GUARANTEES, table), ("tests/tests/broker/main.rs", code)]);
    assert_eq!(unproved(&tree), ["docs/GUARANTEES.md:1: there is no test nobody_is_kept_out"]);
}
