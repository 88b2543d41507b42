//! SHELL. Reaching the bus: the connection every command makes, and the daemon's own service.

use core::time::Duration;

use ipc_core::client::{Backoff, Client, ConnectOptions};
use ipc_core::name::{Filter, MethodName, ResourceName, ServiceName, TopicName};
use ipc_core::{Address, Error, ErrorCode, Payload};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::args::{Globals, PayloadArgument};

/// The daemon's own service.
const DAEMON_SERVICE: &str = "ipc.daemon";

/// Reconnecting ends after some 20 seconds: longer than a daemon takes to restart, shorter than anybody waits.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
const RECONNECT_ATTEMPTS_MAX: u32 = 50;

/// A runtime for one command.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Error::new(ErrorCode::Io, format!("cannot start a runtime: {error}")))
}

/// Connects for one request or a few.
pub(crate) async fn connect(globals: &Globals) -> Result<Client, Error> {
    Client::connect(options(globals)?).await
}

/// Connects to stay: a lost connection is made anew.
pub(crate) async fn connect_and_stay(globals: &Globals) -> Result<Client, Error> {
    let reconnect = Backoff {
        max: RECONNECT_PAUSE_MAX,
        attempts_max: Some(RECONNECT_ATTEMPTS_MAX),
        ..Backoff::default()
    };
    Client::connect(options(globals)?.reconnect(reconnect)).await
}

/// Connects to hold something: a lost connection is made anew for as long as what is held may be taken up again.
pub(crate) async fn connect_and_hold(globals: &Globals) -> Result<Client, Error> {
    let reconnect = Backoff { max: RECONNECT_PAUSE_MAX, ..Backoff::default() };
    Client::connect(options(globals)?.reconnect(reconnect)).await
}

fn options(globals: &Globals) -> Result<ConnectOptions, Error> {
    let address = globals.address.as_deref().map(Address::parse_os).transpose()?;
    Ok(ConnectOptions {
        address,
        runtime_dir: globals.runtime_dir.clone(),
        name: "ipc-cli".to_owned(),
        connect_timeout: globals.timeout,
        call_timeout: globals.timeout,
        ..ConnectOptions::default()
    })
}

/// Where the daemon is. Connects to nothing.
pub(crate) fn address(globals: &Globals) -> Result<Address, Error> {
    options(globals)?.find_daemon()
}

/// Asks the daemon's own service.
pub(crate) async fn ask_daemon(globals: &Globals, method: &str, argument: &str) -> Result<Value, Error> {
    let client = connect(globals).await?;
    let answer = ask(&client, method, argument).await;
    client.close().await;
    answer
}

/// The same over a connection that is there.
pub(crate) async fn ask(client: &Client, method: &str, argument: &str) -> Result<Value, Error> {
    let reply = client.call(DAEMON_SERVICE, method, argument).await?;
    serde_json::from_slice(&reply.payload.body).map_err(|error| {
        Error::new(
            ErrorCode::ProtocolViolation,
            format!("the daemon's answer to {method} is not JSON: {error}"),
        )
    })
}

/// Reads a payload argument. Standard input may be slow: signals and the runtime go on meanwhile.
pub(crate) async fn read_payload(argument: PayloadArgument) -> Result<Payload, Error> {
    match tokio::task::spawn_blocking(|| argument.read()).await {
        Ok(payload) => payload,
        Err(error) => Err(Error::new(ErrorCode::Io, format!("reading the payload failed: {error}"))),
    }
}

/// Whether the name can be that of a service.
pub(crate) fn check_service(service: &str) -> Result<(), Error> {
    ServiceName::parse(service).map(|_| ())
}

/// Whether the names can be those of a method; found before anything is connected.
pub(crate) fn check_method(service: &str, method: &str) -> Result<(), Error> {
    ServiceName::parse(service)?;
    MethodName::parse(method)?;
    Ok(())
}

/// Whether the name can be that of a topic.
pub(crate) fn check_topic(topic: &str) -> Result<(), Error> {
    TopicName::parse(topic).map(|_| ())
}

/// Whether the name can be that of a lock or of anything else that is coordinated.
pub(crate) fn check_resource(name: &str) -> Result<(), Error> {
    ResourceName::parse(name).map(|_| ())
}

/// Whether the text can be a filter.
pub(crate) fn check_filter(filter: &str) -> Result<(), Error> {
    Filter::parse(filter).map(|_| ())
}

/// `LOCK:TOKEN`, the token of a lock that something is done under.
pub(crate) fn parse_fence(text: &str) -> Result<(ResourceName, u64), Error> {
    let parsed = text.rsplit_once(':').and_then(|(lock, token)| Some((lock, token.parse().ok()?)));
    let Some((lock, token)) = parsed else {
        let message = format!("'{text}' is no lock with a token");
        return Err(
            Error::new(ErrorCode::InvalidArgument, message).with_hint("write it like deploy/web:1234")
        );
    };
    Ok((ResourceName::parse(lock)?, token))
}
