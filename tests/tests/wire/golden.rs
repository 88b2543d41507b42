//! The library writes and reads exactly the bytes of `tests/golden/`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use ipc_core::wire::datagram::{Datagram, DatagramKind};
use ipc_core::wire::{Decoder, Kind};
use ipc_tests::fuzz_targets::LIMITS;
use ipc_tests::golden::{WRITE_VARIABLE, folder, is_writing, parse, render, vectors};
use ipc_tests::golden_datagrams;

use crate::with_frame;

#[test]
fn every_vector_is_what_the_library_writes() {
    for vector in vectors() {
        let path = folder().join(format!("{}.hex", vector.name));
        if is_writing() && !path.exists() {
            std::fs::write(&path, render(&vector)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; {WRITE_VARIABLE}=1 writes new vectors", path.display())
        });
        let bytes = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(vector.bytes, bytes, "{}: the wire has changed, which it never may", vector.name);
    }
}

#[test]
fn every_vector_is_read_back() {
    for vector in vectors() {
        let read = with_frame(&vector.bytes, |frame| (vector.check)(&frame));
        assert_eq!(read, Ok(Some(())), "{}", vector.name);
    }
}

#[test]
fn every_vector_is_read_from_two_pieces_cut_anywhere() {
    for vector in vectors() {
        for cut in 0..=vector.bytes.len() {
            let (mut first, mut second) = vector.bytes.split_at(cut);
            let mut decoder = Decoder::new(LIMITS);
            if let Some(frame) = decoder.next(&mut first).unwrap() {
                assert_eq!(cut, vector.bytes.len(), "{} ended early at {cut}", vector.name);
                (vector.check)(&frame);
                continue;
            }
            let frame = decoder.next(&mut second).unwrap().expect("the frame is complete");
            (vector.check)(&frame);
            assert!(second.is_empty() && first.is_empty());
        }
    }
}

#[test]
fn every_kind_has_a_vector_and_every_file_belongs_to_one() {
    let vectors = vectors();
    for kind in Kind::ALL {
        assert!(vectors.iter().any(|vector| vector.bytes[0] == kind.0), "{kind:?} has no golden vector");
    }
    let names: BTreeSet<String> = vectors.iter().map(|vector| format!("{}.hex", vector.name)).collect();
    assert_eq!(names.len(), vectors.len(), "two vectors have one name");
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if file.ends_with(".hex") {
            assert!(names.contains(&file), "tests/golden/{file} is not checked by anything");
        }
    }
}

#[test]
fn every_datagram_vector_is_what_the_library_writes_and_reads() {
    let vectors = golden_datagrams::vectors();
    for vector in &vectors {
        let path = golden_datagrams::folder().join(format!("{}.hex", vector.name));
        if is_writing() && !path.exists() {
            std::fs::write(&path, golden_datagrams::render(vector)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; {WRITE_VARIABLE}=1 writes new vectors", path.display())
        });
        let bytes = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(vector.bytes, bytes, "{}: the wire has changed, which it never may", vector.name);
        (vector.check)(&Datagram::parse(&bytes).unwrap());
    }
    for kind in DatagramKind::ALL {
        let is_shown = vectors.iter().any(|vector| vector.bytes[5] == kind.number());
        assert!(is_shown, "{kind:?} has no golden vector");
    }
    let names: BTreeSet<String> = vectors.iter().map(|vector| format!("{}.hex", vector.name)).collect();
    for entry in std::fs::read_dir(golden_datagrams::folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&file), "tests/golden/datagrams/{file} is not checked by anything");
    }
}

/// The specification is enough: a reader in another language, without a library, agrees on every vector.
#[test]
fn another_language_reads_the_same() {
    let script = folder().join("read.py");
    let mut command = Command::new("python3");
    command.arg(&script).arg(folder()).stdin(Stdio::null());
    let output = command.output().expect("python3 starts; .ci/run installs it");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", script.display());
    assert_eq!(out.trim(), format!("{} vectors", vectors().len()), "{err}");
}
