//! PROTOCOL.md says what the library does: the same frames, kinds, error codes and limits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipc_core::error::ErrorCode;
use ipc_core::limits::{self, Limits};
use ipc_core::wire::datagram::{DATAGRAM_HEADER_BYTES, DatagramKind};
use ipc_core::wire::{HEADER_BYTES, Kind};
use ipc_tests::golden::{parse, vectors};
use ipc_tests::golden_datagrams;

fn specification() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ipc-core/PROTOCOL.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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

/// The rows of the first table whose header begins with the cells of `header`, backquotes taken off.
fn table(text: &str, header: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut lines = text.lines();
    let is_header = |line: &&str| line.starts_with('|') && cells(line).starts_with(&own(header));
    assert!(lines.any(|line| is_header(&line)), "PROTOCOL.md has no table {header:?}");
    assert!(lines.next().is_some_and(|line| line.starts_with("|---")), "no line under the header {header:?}");
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn own(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn number(cell: &str) -> u64 {
    cell.parse().unwrap_or_else(|error| panic!("`{cell}`: {error}"))
}

#[test]
fn every_kind_has_its_hexdump_and_every_hexdump_is_a_golden_vector() {
    let text = specification();
    let (dumps, vectors, datagrams) = (hexdumps(&text), vectors(), golden_datagrams::vectors());
    for (line, bytes) in &dumps {
        let known = vectors.iter().any(|vector| vector.bytes == *bytes)
            || datagrams.iter().any(|vector| vector.bytes == *bytes);
        assert!(known, "the hexdump at PROTOCOL.md:{line} is none of tests/golden/*.hex");
    }
    for vector in &vectors {
        let is_shown = dumps.iter().any(|(_, bytes)| *bytes == vector.bytes);
        assert!(is_shown, "PROTOCOL.md does not show tests/golden/{}.hex", vector.name);
    }
    for vector in &datagrams {
        let is_shown = dumps.iter().any(|(_, bytes)| *bytes == vector.bytes);
        assert!(is_shown, "PROTOCOL.md does not show tests/golden/datagrams/{}.hex", vector.name);
    }
}

#[test]
fn the_table_of_kinds_is_the_librarys() {
    let rows = table(&specification(), &["kind", "name", "way"]);
    let shown: BTreeSet<(String, String)> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known = Kind::ALL.iter().map(|kind| (format!("0x{:02x}", kind.0), kind.name().to_owned()));
    assert_eq!(shown, known.collect());
}

#[test]
fn the_table_of_datagrams_is_the_librarys() {
    let rows = table(&specification(), &["datagram", "name", "way"]);
    let shown: BTreeSet<(String, String)> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known =
        DatagramKind::ALL.iter().map(|kind| (format!("0x{:02x}", kind.number()), kind.name().to_owned()));
    assert_eq!(shown, known.collect());
}

#[test]
fn the_table_of_error_codes_is_the_librarys() {
    let rows = table(&specification(), &["number", "name", "retry", "exit status"]);
    let shown: Vec<Vec<String>> = rows.iter().map(|row| row[..4].to_vec()).collect();
    let known = ErrorCode::ALL.iter().map(|code| {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        own(&[&code.number().to_string(), code.name(), retry, &code.exit_status().to_string()])
    });
    assert_eq!(shown, known.collect::<Vec<_>>());
}

#[test]
fn the_limits_of_the_protocol_are_the_librarys() {
    let rows = table(&specification(), &["name", "value"]);
    let shown: BTreeMap<&str, u64> = rows.iter().map(|row| (row[0].as_str(), number(&row[1]))).collect();
    let known = BTreeMap::from([
        ("HEADER_BYTES", HEADER_BYTES as u64),
        ("ENVELOPE_MAX_BYTES", limits::ENVELOPE_MAX_BYTES as u64),
        ("PAYLOAD_MAX_CEILING_BYTES", limits::PAYLOAD_MAX_CEILING_BYTES.into()),
        ("PAYLOAD_BEFORE_WELCOME_MAX_BYTES", limits::PAYLOAD_BEFORE_WELCOME_MAX_BYTES.into()),
        ("HANDLES_BEFORE_WELCOME_MAX", limits::HANDLES_BEFORE_WELCOME_MAX.into()),
        ("NAME_MAX_BYTES", limits::NAME_MAX_BYTES as u64),
        ("METHOD_NAME_MAX_BYTES", limits::METHOD_NAME_MAX_BYTES as u64),
        ("METHODS_PER_SERVICE_MAX", limits::METHODS_PER_SERVICE_MAX as u64),
        ("METHOD_DESCRIPTION_MAX_BYTES", limits::METHOD_DESCRIPTION_MAX_BYTES as u64),
        ("PROGRAM_NAME_MAX_BYTES", limits::PROGRAM_NAME_MAX_BYTES as u64),
        ("PING_PAYLOAD_MAX_BYTES", limits::PING_PAYLOAD_MAX_BYTES as u64),
        ("ERROR_MESSAGE_MAX_BYTES", limits::ERROR_MESSAGE_MAX_BYTES as u64),
        ("TRACEPARENT_MAX_BYTES", limits::TRACEPARENT_MAX_BYTES as u64),
        ("EXTENSIONS_MAX", limits::EXTENSIONS_MAX as u64),
        ("DATAGRAM_HEADER_BYTES", DATAGRAM_HEADER_BYTES as u64),
        ("DATAGRAM_MAX_BYTES", limits::DATAGRAM_MAX_BYTES as u64),
        ("DEADLINE_MAX", limits::DEADLINE_MAX.as_micros() as u64),
        ("RESOURCE_NAME_MAX_BYTES", limits::RESOURCE_NAME_MAX_BYTES as u64),
        ("TTL_MIN", limits::TTL_MIN.as_micros() as u64),
        ("TTL_MAX", limits::TTL_MAX.as_micros() as u64),
        ("HOLD_DELAY_MAX", limits::HOLD_DELAY_MAX.as_micros() as u64),
        ("HOLD_TAKE_UP_MAX", limits::HOLD_TAKE_UP_MAX.as_micros() as u64),
        ("SECRET_BYTES", limits::SECRET_BYTES as u64),
        ("LEADER_VALUE_MAX_BYTES", limits::LEADER_VALUE_MAX_BYTES as u64),
        ("KEYS_LISTED_MAX", limits::KEYS_LISTED_MAX as u64),
        ("TRANSACTION_KEYS_MAX", limits::TRANSACTION_KEYS_MAX as u64),
        ("ENTRY_ID_MAX_BYTES", limits::ENTRY_ID_MAX_BYTES as u64),
        ("ENTRY_DELAY_MAX", limits::ENTRY_DELAY_MAX.as_micros() as u64),
        ("NACK_REASON_MAX_BYTES", limits::NACK_REASON_MAX_BYTES as u64),
        ("ENTRIES_LISTED_MAX", limits::ENTRIES_LISTED_MAX as u64),
        ("CREDIT_MAX", limits::CREDIT_MAX.into()),
        ("PARTIES_MAX", limits::PARTIES_MAX.into()),
        ("ERROR_REPLY_RESERVE_BYTES", limits::ERROR_REPLY_RESERVE_BYTES as u64),
    ]);
    assert_eq!(shown, known);
}

#[test]
fn the_limits_of_the_library_are_its_own() {
    let rows = table(&specification(), &["name", "value in ipc-core"]);
    let shown: BTreeMap<&str, u64> = rows.iter().map(|row| (row[0].as_str(), number(&row[1]))).collect();
    let known = BTreeMap::from([
        ("DEADLINE_GRACE", limits::DEADLINE_GRACE.as_millis() as u64),
        ("ANNOUNCED_MAX", limits::ANNOUNCED_MAX as u64),
        ("INBOUND_CALLS_MAX", limits::INBOUND_CALLS_MAX as u64),
        ("INBOUND_MAX_BYTES", limits::INBOUND_MAX_BYTES as u64),
        ("OUTPUT_MARK_BYTES", limits::OUTPUT_MARK_BYTES),
        ("KEY_EVENTS_QUEUED_MAX", limits::KEY_EVENTS_QUEUED_MAX as u64),
        ("NAME_EVENTS_QUEUED_MAX", limits::NAME_EVENTS_QUEUED_MAX as u64),
    ]);
    assert_eq!(shown, known);
}

#[test]
fn the_limits_of_a_daemon_are_the_librarys_with_their_ranges() {
    let rows = table(&specification(), &["name", "default", "lowest", "highest"]);
    let shown: Vec<(&str, u64)> = rows.iter().map(|row| (row[0].as_str(), number(&row[1]))).collect();
    assert_eq!(shown, Limits::default().by_name());
    for row in &rows {
        let (name, lowest, highest) = (row[0].as_str(), number(&row[2]), number(&row[3]));
        let fits = |value: u64| Limits::default().set(name, value).is_ok();
        assert!(fits(lowest) && fits(highest), "{name} cannot be {lowest} or {highest}");
        assert!(lowest == 0 || !fits(lowest - 1), "{name} can be below {lowest}");
        assert!(!fits(highest + 1), "{name} can be above {highest}");
    }
}

#[test]
fn the_specification_is_read_as_it_is_meant() {
    let text = "# A\n```hex\n01 02 # one\n03\n```\n| a | `b` | c |\n|---|---|---|\n| 1 | `2` | 3 |\n\n```hex\n04\n```\n";
    assert_eq!(hexdumps(text), [(2, vec![1, 2, 3]), (10, vec![4])]);
    assert_eq!(table(text, &["a", "b"]), [own(&["1", "2", "3"])]);
    assert!(std::panic::catch_unwind(|| table(text, &["b"])).is_err());
}
