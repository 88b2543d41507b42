//! The steps of the demo that leave the stream socket: datagrams, TCP and UDP, and plain programs both ways.

use serde_json::Value;

use super::narrator::{Narrator, Ran};
use super::plain::{self, Servers};
use super::scenes::{expect, run, status, surprise};
use super::stage::Stage;
use crate::error::Failure;

/// Calls without a connection.
pub(super) async fn datagrams(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "datagram",
        "One datagram there, one back",
        "The same call without a connection: over the local datagram socket, and over UDP.",
    )?;
    let local = format!("dgram:{}", stage.daemon.runtime_dir().join("bus.dgram").display());
    let network = address_of(stage, "udp").await?;
    for address in [&local, &network] {
        let call = ["--address", address, "call", "demo.title", "title", "lost or doubled, it runs once"];
        let answered = run(stage, narrator, &call).await?;
        expect(answered.stdout == "Lost Or Doubled, It Runs Once", "a datagram is answered")?;
    }
    narrator.observe("each call is numbered, sent again until it is answered, and run at most once")
}

/// The bus protocol over TCP, where one is nobody.
pub(super) async fn streams(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "tcp",
        "The bus over TCP",
        "The same tool and the same protocol. But whoever comes over the network has proved nothing, and is nobody.",
    )?;
    let network = address_of(stage, "tcp").await?;
    let title = ["--address", &network, "call", "demo.title", "title", "from a port of loopback"];
    let answered = run(stage, narrator, &title).await?;
    expect(answered.stdout == "From A Port Of Loopback", "a call over TCP is answered")?;
    let known = run(stage, narrator, &["--address", &network, "call", "demo.title", "whoami"]).await?;
    expect(known.stdout.starts_with("anonymous at "), "the network is not taken for a user")?;
    let refused = run(stage, narrator, &["--address", &network, "publish", "sensor.x", "1"]).await?;
    expect(refused.stderr.contains("permission_denied"), "the network may do what is listed and no more")?;
    narrator.observe(&format!(
        "exit status {}: the two calls are in this daemon's [remote] allow, and nothing else",
        status(&refused)
    ))
}

/// Where the daemon listens in that way, by its status, as an address to connect to.
async fn address_of(stage: &Stage, kind: &str) -> Result<String, Failure> {
    let asked = stage.tool(&["status", "--json"]).await?;
    let found = || {
        let status: Value = serde_json::from_str(&asked.stdout).ok()?;
        let rows = status.get("addresses")?.as_array()?;
        let row = rows.iter().find(|row| row.get("kind").is_some_and(|found| found == kind))?;
        Some(format!("{kind}:{}", row.get("address")?.as_str()?))
    };
    Ok(found().ok_or_else(|| surprise(&format!("there is no {kind} port")))?)
}

/// Network clients that reach a service.
pub(super) async fn exposed(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "expose",
        "Plain doors",
        "Ports whose bytes go to one method, and to nothing else. Any network client will do, unmodified.",
    )?;
    let port = open_port(stage, narrator, "tcp:127.0.0.1:0=demo.title/title").await?;
    let answers = plain::tcp_client(port, &["a client from the network", "that asks twice"]).await?;
    show(narrator, format!("nc 127.0.0.1 {port}"), answers.join("\n"))?;
    expect(answers == ["A Client From The Network", "That Asks Twice"], "the network client is answered")?;
    let port = open_port(stage, narrator, "udp:127.0.0.1:0=demo.title/title").await?;
    let answer = plain::udp_client(port, "and one that sends a datagram").await?;
    show(narrator, format!("nc -u 127.0.0.1 {port}"), answer.clone())?;
    expect(answer == "And One That Sends A Datagram", "the datagram is answered")?;
    narrator.observe("they have never heard of the bus, and can reach nothing of it but this one method")
}

async fn open_port(stage: &Stage, narrator: &mut Narrator<'_>, spec: &str) -> Result<u16, Failure> {
    let opened = run(stage, narrator, &["bridge", "expose", spec]).await?;
    let port = opened.stdout.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
    Ok(port.ok_or_else(|| surprise("the port was not opened"))?)
}

/// What a plain client was answered.
fn show(narrator: &mut Narrator<'_>, line: String, stdout: String) -> Result<(), Failure> {
    narrator.ran(&Ran { line, stdout, ..Ran::default() })
}

/// Network servers that become services.
pub(super) async fn forwarded(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.step(
        "forward",
        "The other way",
        "Two servers of the network, one on TCP and one on UDP, become services. They have never heard of the bus either.",
    )?;
    let servers = Servers::start().await?;
    for (service, port, protocol) in
        [("demo.loud", servers.tcp_port, "tcp"), ("demo.louder", servers.udp_port, "udp")]
    {
        let spec = format!("{service}={protocol}:127.0.0.1:{port}");
        let forward = run(stage, narrator, &["bridge", "forward", &spec]).await?;
        expect(forward.status == Some(0), "the server becomes a service")?;
        let answered = run(stage, narrator, &["call", service, "send", "can you hear me?"]).await?;
        expect(answered.stdout == "CAN YOU HEAR ME?", "the server of the network answers")?;
    }
    let listed = run(stage, narrator, &["bridge", "list"]).await?;
    expect(listed.stdout.contains("demo.louder"), "every bridge is listed")?;
    narrator.observe("called like any other service, with a deadline and exactly one outcome")
}
