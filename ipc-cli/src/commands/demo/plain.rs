//! The network as it is without the bus: clients and servers that know a port, and nothing else.

use std::net::{Ipv4Addr, SocketAddr};

use ipc_core::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::stage::{PATIENCE, broken};

/// What a client or server here makes room for in one read.
const READ_MAX_BYTES: usize = 1024;

/// Connects, and for each of `texts` sends it and reads the answer.
pub(crate) async fn tcp_client(port: u16, texts: &[&str]) -> Result<Vec<String>, Error> {
    patiently("the plain TCP client", async {
        let mut stream = TcpStream::connect(here(port)).await?;
        let mut answers = Vec::new();
        for text in texts {
            stream.write_all(text.as_bytes()).await?;
            let mut answer = vec![0; READ_MAX_BYTES];
            let length = stream.read(&mut answer).await?;
            answers.push(as_text(answer.get(..length)));
        }
        Ok(answers)
    })
    .await
}

/// Sends a datagram and waits for the one that comes back.
pub(crate) async fn udp_client(port: u16, text: &str) -> Result<String, Error> {
    patiently("the plain UDP client", async {
        let socket = UdpSocket::bind(here(0)).await?;
        socket.send_to(text.as_bytes(), here(port)).await?;
        let mut answer = vec![0; READ_MAX_BYTES];
        let (length, _) = socket.recv_from(&mut answer).await?;
        Ok(as_text(answer.get(..length)))
    })
    .await
}

/// Servers that answer in capitals what they are sent, until they are dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) tcp_port: u16,
    pub(crate) udp_port: u16,
    /// Dropped, they are ended.
    _tasks: JoinSet<()>,
}

impl Servers {
    /// Starts them.
    pub(crate) async fn start() -> Result<Self, Error> {
        let cannot = |error: std::io::Error| broken("a plain server", &error);
        let listener = TcpListener::bind(here(0)).await.map_err(cannot)?;
        let socket = UdpSocket::bind(here(0)).await.map_err(cannot)?;
        let tcp_port = listener.local_addr().map_err(cannot)?.port();
        let udp_port = socket.local_addr().map_err(cannot)?.port();
        let mut tasks = JoinSet::new();
        // They end with what their sockets say last; the demo sees it by what is not answered.
        tasks.spawn(async move { while serve_connection(&listener).await.is_ok() {} });
        tasks.spawn(async move { while serve_datagram(&socket).await.is_ok() {} });
        Ok(Self { tcp_port, udp_port, _tasks: tasks })
    }
}

/// One connection after the other, as the first server of every tutorial.
async fn serve_connection(listener: &TcpListener) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    let mut data = vec![0; READ_MAX_BYTES];
    loop {
        let length = stream.read(&mut data).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(as_text(data.get(..length)).to_uppercase().as_bytes()).await?;
    }
}

async fn serve_datagram(socket: &UdpSocket) -> std::io::Result<()> {
    let mut data = vec![0; READ_MAX_BYTES];
    let (length, sender) = socket.recv_from(&mut data).await?;
    socket.send_to(as_text(data.get(..length)).to_uppercase().as_bytes(), sender).await?;
    Ok(())
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn as_text(data: Option<&[u8]>) -> String {
    String::from_utf8_lossy(data.unwrap_or_default()).into_owned()
}

async fn patiently<T>(who: &str, talk: impl Future<Output = std::io::Result<T>>) -> Result<T, Error> {
    timeout(PATIENCE, talk).await.map_err(|_| broken(who, &"no answer"))?.map_err(|error| broken(who, &error))
}
