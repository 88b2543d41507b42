//! `backup FILE`: a copy of what the daemon keeps on disk.

use crate::args::{BackupArgs, Globals};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;

use super::rows::text;

/// Has the daemon write the file.
pub(crate) async fn run(args: &BackupArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let path = std::path::absolute(&args.file).ok().and_then(|path| path.to_str().map(str::to_owned));
    let path = path.ok_or_else(|| {
        let message = format!("{} is no path of a file", args.file.display());
        ipc_core::Error::new(ipc_core::ErrorCode::InvalidArgument, message)
    })?;
    let made = bus::ask_daemon(globals, "backup", &path).await?;
    if output.is_json() {
        return output.object(&made);
    }
    output.say(&format!("{} records are in {}", text(&made, "records"), text(&made, "path")));
    Ok(())
}
