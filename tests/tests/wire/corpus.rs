//! The fuzz targets as ordinary tests: over the corpus, over the golden frames, and over seeded changes of both.

use std::path::Path;

use ipc_core::wire::HEADER_BYTES;
use ipc_tests::fuzz_targets::{TARGETS, sensible_client, truthful_daemon};
use ipc_tests::golden::vectors;
use ipc_tests::golden_datagrams;
use ipc_tests::rng::for_each_seed;

use crate::stream_of_all_frames;

/// The inputs kept for a target, by name.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    // The order of a folder is not the same everywhere, and a seed must mean one run.
    inputs.sort();
    inputs
}

/// The golden frames, as each target takes them.
fn derived(target: &str) -> Vec<(String, Vec<u8>)> {
    let frames = vectors().into_iter();
    match target {
        "decode_stream" => vec![("every golden frame".to_owned(), stream_of_all_frames())],
        "codec" => frames
            .map(|vector| {
                let envelope_len = usize::from(u16::from_le_bytes([vector.bytes[8], vector.bytes[9]]));
                let envelope = &vector.bytes[HEADER_BYTES..HEADER_BYTES + envelope_len];
                (vector.name.to_owned(), [&vector.bytes[..1], envelope].concat())
            })
            .collect(),
        "datagram" => golden_datagrams::vectors()
            .into_iter()
            .map(|vector| (vector.name.to_owned(), vector.bytes))
            .collect(),
        "session" => vec![("a truthful daemon".to_owned(), truthful_daemon())],
        "broker" => (0..4).map(|how| (format!("a sensible client, {how}"), sensible_client(how))).collect(),
        _ => Vec::new(),
    }
}

/// Runs one target over its inputs, then over changes of them.
fn holds(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("the target is listed");
    let inputs: Vec<(String, Vec<u8>)> = kept(name).into_iter().chain(derived(name)).collect();
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for (from, input) in &inputs {
        eprintln!("{from}");
        target(input);
    }
    for_each_seed(2_000, 200_000, |_, mut rng| {
        let (_, input) = rng.pick(&inputs);
        let mut changed = input.clone();
        rng.mutate(&mut changed);
        target(&changed);
    });
}

#[test]
fn decode_stream_holds() {
    holds("decode_stream");
}

#[test]
fn codec_holds() {
    holds("codec");
}

#[test]
fn names_holds() {
    holds("names");
}

#[test]
fn session_holds() {
    holds("session");
}

#[test]
fn broker_holds() {
    holds("broker");
}

#[test]
fn datagram_holds() {
    holds("datagram");
}

#[test]
fn every_target_can_be_fuzzed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let wrapper = std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs")));
        let wrapper = wrapper.unwrap_or_else(|error| panic!("fuzz_targets/{name}.rs: {error}"));
        assert!(
            wrapper.contains(&format!("ipc_tests::fuzz_targets::{name}(data)")),
            "{name} fuzzes something else"
        );
        assert!(manifest.contains(&format!("name = \"{name}\"")), "tests/fuzz/Cargo.toml has no {name}");
    }
}
