//! A call without a runtime: `cargo run --example blocking_call -- demo.title title "hello world"`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use ipc_core::blocking::{CallOptions, Client, ConnectOptions, Reply};
use ipc_core::{Error, ErrorCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [service, method, text] = &arguments[..] else {
        eprintln!("usage: blocking_call SERVICE METHOD TEXT");
        return ExitCode::from(2);
    };
    match call(service, method, text).and_then(|reply| print(&reply)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error.code.exit_status())
        }
    }
}

fn call(service: &str, method: &str, text: &str) -> Result<Reply, Error> {
    let mut client = Client::connect(ConnectOptions::new().name("blocking_call"))?;
    // The service is told how long its answer is waited for, and so are the services it calls itself.
    let options = CallOptions::new().deadline(Duration::from_secs(2));
    let reply = client.call_with(service, method, text, options)?;
    client.close()?;
    Ok(reply)
}

fn print(reply: &Reply) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&reply.payload.body).and_then(|()| out.write_all(b"\n"));
    written.map_err(|error| Error::new(ErrorCode::Io, format!("cannot write the answer: {error}")))
}
