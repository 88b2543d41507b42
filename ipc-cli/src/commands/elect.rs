//! `elect NAME [--value V] [-- CMD]`, `elect NAME --observe`, `elect NAME --release`.

use ipc_core::client::Leader;
use serde::Serialize;

use super::absent;
use super::holding::{self, What};
use crate::args::{ElectArgs, Globals, PayloadArgument};
use crate::bus;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;
use crate::render::{PayloadJson, PeerJson, payload_for_people, peer_for_people};

#[derive(Serialize)]
struct LeaderJson<'a> {
    election: &'a str,
    /// 0 when nobody leads.
    token: u64,
    leader: Option<PeerJson>,
    #[serde(flatten)]
    value: Option<PayloadJson>,
}

/// Leads while the command runs, or until standard input closes; or shows who leads.
pub(crate) async fn run(
    args: ElectArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let name = args.name.as_str();
    if args.observe {
        bus::check_resource(name)?;
        return unless_interrupted(&mut interrupts, observe(name, globals, output)).await;
    }
    let what = What { noun: "election", name };
    if args.hold.release {
        return absent::give_back(what, globals, output, interrupts).await;
    }
    let client = holding::begin(name, &args.hold, globals, &mut interrupts).await?;
    let value = bus::read_payload(PayloadArgument::new(args.value, None)).await?;
    let take = |options| client.campaign(name, value.clone(), options);
    holding::hold(what, args.hold, output, interrupts, take).await
}

async fn observe(name: &str, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let client = bus::connect(globals).await?;
    let mut observation = client.observe(name).await?;
    while let Some(leader) = observation.next().await {
        show(name, leader?.as_ref(), output)?;
    }
    Ok(())
}

fn show(election: &str, leader: Option<&Leader>, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(&LeaderJson {
            election,
            token: leader.map_or(0, |leader| leader.token),
            leader: leader.map(|leader| PeerJson::from(&leader.peer)),
            value: leader.map(|leader| PayloadJson::from(&leader.value)),
        });
    }
    match leader {
        None => output.line("nobody leads"),
        Some(Leader { token, peer, value }) => {
            let (leader, value) = (peer_for_people(peer), payload_for_people(value));
            let shown = if value.is_empty() { value } else { format!(": {value}") };
            output.line(&format!("{leader} leads with token {token}{shown}"))
        }
    }
}
