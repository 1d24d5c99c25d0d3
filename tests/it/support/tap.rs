//! A tap on the line between lane and simulator: what was sent, to the byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes everything on and writes down what the client said. It ends when it is dropped.
pub(crate) struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Tap {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server, Arc::clone(&memory)));
            }
        });
        Self {
            address,
            heard,
            task,
        }
    }

    /// The base URL to configure in place of the simulator's.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/api/paas/v4", self.address)
    }

    /// The bodies of the requests so far.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap().clone();
        let mut rest = String::from_utf8(heard).expect("requests in UTF-8");
        let mut bodies = Vec::new();
        while let Some(head) = rest.find("\r\n\r\n").map(|end| end + 4) {
            let length = rest[..head]
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.parse::<usize>().ok())
                .expect("a length");
            bodies.push(rest[head..head + length].to_owned());
            rest.drain(..head + length);
        }
        bodies
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(client: TcpStream, server: SocketAddr, heard: Arc<Mutex<Vec<u8>>>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
        heard.lock().unwrap().extend_from_slice(&buffer[..n]);
        if to_server.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    drop(to_server);
    let _ = back.await;
}
