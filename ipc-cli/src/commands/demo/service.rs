//! The service of the demo, in a process of its own.

use core::time::Duration;
use std::io::Write as _;

use ipc_core::client::{Client, ConnectOptions};
use ipc_core::service::{Request, Service};
use ipc_core::{Error, Identity, Payload};

use crate::title::title_case;

/// How long a piece of work takes.
const WORK: Duration = Duration::from_millis(50);

/// Offers `service` until the daemon goes.
///
/// # Errors
/// What connecting or registering says.
pub(crate) async fn serve(service: &str, is_group: bool) -> Result<(), Error> {
    let client =
        Client::connect(ConnectOptions { name: service.to_owned(), ..ConnectOptions::default() }).await?;
    let mut offer = Service::new(service)?
        .method("title", |request: Request| async move {
            Ok(Payload::text(title_case(request.payload.as_text()?)))
        })
        .describe("a text in title case")
        .method("whoami", |request: Request| async move {
            Ok(Payload::text(match &request.sender.identity {
                Identity::Local { uid, gid, pid } => format!("uid {uid}, gid {gid}, pid {pid}"),
                Identity::Remote { principal, address } => format!("{principal} at {address}"),
            }))
        })
        .describe("who calls, as the kernel knows it")
        .method("work", |request: Request| async move {
            tokio::time::sleep(WORK).await;
            Ok(request.payload)
        })
        .describe("takes a moment")
        .method("slow", |_request: Request| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Payload::text("at last"))
        })
        .describe("takes a minute");
    if is_group {
        offer = offer.group();
    }
    let serving = client.serve(offer).await?;
    // The demo waits for this line; if it has gone, so will the daemon.
    let _nobody_listens = writeln!(std::io::stdout().lock(), "serving");
    Err(serving.closed().await)
}
