//! `lock NAME --release` and the like: what was held before the daemon was started again, and nobody has taken up, is given back.

use ipc_core::client::Client;
use ipc_core::{Error, ErrorCode};
use serde_json::{Value, json};

use super::holding::What;
use super::rows::{self, number};
use crate::args::Globals;
use crate::bus;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;

/// Gives back all of it that the caller may. What nobody holds is free as it is.
pub(super) async fn give_back(
    what: What<'_>,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    bus::check_resource(what.name)?;
    let given = async {
        let client = bus::connect(globals).await?;
        let given = give_all_back(what, &client, output).await;
        client.close().await;
        given
    };
    unless_interrupted(&mut interrupts, given).await
}

/// A list shows some of them at a time, so it is asked for until nothing of it is left.
async fn give_all_back(what: What<'_>, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut has_any = false;
    loop {
        let rows = bus::ask(client, "list", "locks").await?;
        let is_it = |row: &&Value| row["kind"] == what.noun && row["name"] == what.name;
        let row = rows.as_array().and_then(|rows| rows.iter().find(is_it)).unwrap_or(&Value::Null);
        let (mut is_less, mut denied) = (false, None);
        for token in rows::items(row, "absent").iter().filter_map(|absent| number(absent, "token")) {
            match client.release_absent(token).await {
                Ok(()) => {
                    show(what, token, output)?;
                    has_any = true;
                }
                // It has ended meanwhile, or its session has come back.
                Err(error) if error.code == ErrorCode::LockLost => {}
                Err(error) if error.code == ErrorCode::PermissionDenied => {
                    denied = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            is_less = true;
        }
        if !is_less {
            return denied.map_or_else(|| finish(what, row, has_any, output), |error| Err(error.into()));
        }
    }
}

fn show(What { noun, name }: What<'_>, token: u64, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(&json!({ noun: name, "token": token, "released": true }));
    }
    output.say(&format!("gave back {noun} {name}, token {token}"));
    Ok(())
}

/// Nobody who is absent holds it any more; somebody who is there may. `has_any`: something was given back.
fn finish(What { noun, name }: What<'_>, row: &Value, has_any: bool, output: &Output) -> Result<(), Failure> {
    let holder = row.get("holder").filter(|holder| holder.is_object());
    match holder {
        Some(holder) => {
            let message = format!("{noun} {name} is held by {}, who is there", rows::peer(holder));
            Err(Error::new(ErrorCode::Busy, message).with_hint("it ends with its process").into())
        }
        None if has_any => Ok(()),
        None => {
            output.say(&format!("nobody holds {noun} {name}"));
            Ok(())
        }
    }
}
