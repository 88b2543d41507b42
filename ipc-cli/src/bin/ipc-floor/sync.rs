//! SHELL. Appending to a file and syncing it: the price of a promise that survives a loss of power.

use std::fs::{File, OpenOptions, remove_file};
use std::io::Write as _;
use std::time::Instant;

use crate::args::Options;
use crate::control::now_ns;
use crate::failure::{Failure, at};
use crate::report::{Report, Samples};

/// Does so until the time is up. The file has no name while it is written, so that nothing is left.
pub(crate) fn write_and_sync(options: &Options) -> Result<Report, Failure> {
    let path = std::env::temp_dir().join(format!("ipc-floor-sync-{}", std::process::id()));
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = opened.map_err(at("make a file in the temporary directory"))?;
    remove_file(&path).map_err(at("remove the file's name"))?;
    let bytes = vec![b'x'; options.size];
    for _ in 0..options.warmup {
        append(&mut file, &bytes)?;
    }
    let (begin, start_ns) = (Instant::now(), now_ns()?);
    let count = options.count.min(Samples::MAX);
    let mut samples = Samples::with_room_for(count);
    let mut end_ns = start_ns;
    while samples.len() < count && (samples.len() == 0 || begin.elapsed() < options.time) {
        let begun_ns = end_ns;
        append(&mut file, &bytes)?;
        end_ns = now_ns()?;
        samples.push(end_ns - begun_ns);
    }
    let (measured, total) = (samples.len(), samples.len() + options.warmup);
    let (p50_ns, p99_ns) = samples.percentiles();
    Ok(Report { start_ns, end_ns, measured, total, p50_ns, p99_ns })
}

fn append(file: &mut File, bytes: &[u8]) -> Result<(), Failure> {
    file.write_all(bytes).map_err(at("write to a file"))?;
    file.sync_data().map_err(at("sync a file"))
}
