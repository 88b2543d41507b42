//! PROTOCOL.md says what the library does: the same frames, kinds and error codes.

use std::path::Path;

use ipc_core::error::ErrorCode;
use ipc_core::wire::Kind;
use ipc_tests::golden::{parse, vectors};

/// The specification, once it is written.
fn specification() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ipc-core/PROTOCOL.md");
    std::fs::read_to_string(path).ok()
}

/// The bytes in each block that is fenced as `hex`, with the number of its first line.
fn hexdumps(text: &str) -> Vec<(usize, Vec<u8>)> {
    let mut dumps = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == "```hex" {
            let block: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            let bytes =
                parse(&block.join("\n")).unwrap_or_else(|error| panic!("PROTOCOL.md:{number}: {error}"));
            dumps.push((number + 1, bytes));
        }
    }
    dumps
}

/// True when some row of a table holds both, each as a cell of its own, in backquotes or not.
fn has_row(text: &str, one: &str, other: &str) -> bool {
    text.lines().filter(|line| line.starts_with('|')).any(|line| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        cells.contains(&one) && cells.contains(&other)
    })
}

#[test]
fn every_kind_has_its_hexdump_and_every_hexdump_is_a_golden_vector() {
    let Some(text) = specification() else { return };
    let (dumps, vectors) = (hexdumps(&text), vectors());
    for (line, bytes) in &dumps {
        let known = vectors.iter().any(|vector| vector.bytes == *bytes);
        assert!(known, "the hexdump at PROTOCOL.md:{line} is none of tests/golden/*.hex");
    }
    for kind in Kind::ALL {
        let shown = dumps.iter().any(|(_, bytes)| bytes.first() == Some(&kind.0));
        assert!(shown, "PROTOCOL.md shows no {kind:?}: put one of tests/golden/ into a block fenced as hex");
    }
}

#[test]
fn every_kind_and_error_code_is_in_a_table() {
    let Some(text) = specification() else { return };
    for kind in Kind::ALL {
        assert!(
            has_row(&text, &format!("0x{:02x}", kind.0), kind.name()),
            "no row of PROTOCOL.md has {kind:?}"
        );
    }
    for code in ErrorCode::ALL {
        let (number, name) = (code.number().to_string(), code.name());
        assert!(has_row(&text, &number, name), "no row of PROTOCOL.md has error {number}, {name}");
    }
}

#[test]
fn the_specification_is_read_as_it_is_meant() {
    let text = "# A\n```hex\n01 02 # one\n03\n```\n| `0x01` | `hello` |\n```hex\n04\n```\n";
    assert_eq!(hexdumps(text), [(2, vec![1, 2, 3]), (7, vec![4])]);
    assert!(has_row(text, "0x01", "hello"));
    assert!(!has_row(text, "0x01", "hell"));
}
