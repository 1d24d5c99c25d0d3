//! What a socket knows already and nobody has been told: asked of the system itself, and nothing is taken from it.

use std::io::ErrorKind;
use std::mem::MaybeUninit;

use socket2::SockRef;

/// Whether the other side has closed its direction of a connection, or all of it, and sent nothing that is still to be
/// read before that.
pub(super) fn has_closed(socket: SockRef<'_>) -> bool {
    match socket.peek(&mut [MaybeUninit::uninit()]) {
        Ok(bytes) => bytes == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_side_that_has_closed_is_known_at_once_and_one_that_said_more_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pair = || {
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            (client, server)
        };
        let (mut client, server) = pair();
        assert!(!has_closed(SockRef::from(&server)));
        client.shutdown(Shutdown::Write).unwrap();
        assert!(has_closed(SockRef::from(&server)));
        let (other, server) = pair();
        drop(other);
        assert!(has_closed(SockRef::from(&server)));
        let (other, server) = pair();
        client = other;
        client.write_all(b"x").unwrap();
        drop(client);
        assert!(
            !has_closed(SockRef::from(&server)),
            "what it said comes first"
        );
    }
}
