//! `barrier NAME --parties N`.

use serde::Serialize;

use crate::args::{BarrierArgs, Globals};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct PassedJson<'a> {
    barrier: &'a str,
    generation: u64,
    place: u32,
}

/// Waits until as many as needed have arrived.
pub(crate) async fn run(args: &BarrierArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    bus::check_resource(&args.name)?;
    let client = bus::connect(globals).await?;
    let parties = args.parties.get();
    let passed = client.arrive(&args.name, parties, args.wait).await?;
    if output.is_json() {
        let (generation, place) = (passed.generation, passed.place);
        output.object(&PassedJson { barrier: &args.name, generation, place })?;
    } else {
        output.say(&format!("all {parties} have arrived at {}", args.name));
    }
    client.close().await;
    Ok(())
}
