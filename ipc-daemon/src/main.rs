//! The ipc message bus daemon.

fn main() -> std::process::ExitCode {
    ipc_daemon::run()
}
