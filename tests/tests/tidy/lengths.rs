//! Short files and short functions: the bad code is always one state machine that nobody split.

use crate::tree::Tree;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the limit, not counting what `#[cfg(test)]` switches on.
pub(crate) fn long_files(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources("") {
        let lines = source.scan.lines_without_tests();
        if lines > FILE_LINES_MAX {
            findings.push(
                source.at(0, &format!("{lines} lines without tests, at most {FILE_LINES_MAX}; split it")),
            );
        }
    }
    findings
}

/// Functions over the limit, from the line of `fn` to that of the closing bracket.
pub(crate) fn long_functions(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources("") {
        for function in source.scan.functions() {
            let lines =
                source.scan.line(function.end.saturating_sub(1)) - source.scan.line(function.start) + 1;
            if lines > FUNCTION_LINES_MAX {
                let message = format!("`{}` has {lines} lines, at most {FUNCTION_LINES_MAX}", function.name);
                findings.push(source.at(function.start, &message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_measured_without_its_tests() {
        let long = "// A line.\n".repeat(FILE_LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "a!();\n".repeat(100));
        let tree = Tree::sample(&[
            ("a.rs", &format!("{long}b!();\n{tests}")),
            ("c.rs", &format!("{long}{tests}")),
            ("d.rs", &"e!();\n".repeat(FILE_LINES_MAX)),
        ]);
        assert_eq!(long_files(&tree), ["a.rs:1: 501 lines without tests, at most 500; split it"]);
    }

    #[test]
    fn a_function_is_measured_with_its_brackets() {
        let body = |lines: usize| "    a!();\n".repeat(lines);
        let text = format!("fn short() {{\n{}}}\nfn long(\n) {{\n{}}}\n", body(68), body(68));
        let tree = Tree::sample(&[("a.rs", &text)]);
        assert_eq!(long_functions(&tree), ["a.rs:71: `long` has 71 lines, at most 70"]);
    }
}
