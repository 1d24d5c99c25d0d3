//! What a socket knows already and nobody has been told: asked of the system itself, and nothing is taken from it.

use std::io::ErrorKind;
use std::mem::MaybeUninit;

use socket2::SockRef;

/// What is known of the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It may say more.
    Open,
    /// It has said what is still to be read, and what comes behind that nobody knows.
    Says,
    /// It has closed its own direction, or all.
    Closed,
    /// The connection is broken. That is told once.
    Broken,
}

/// What is known of the other side, once all that it said was read.
pub(super) fn other_side(socket: SockRef<'_>) -> Side {
    match socket.peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Side::Closed,
        Ok(_) => Side::Says,
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Side::Open,
            _ => Side::Broken,
        },
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
        let look = |server: &TcpStream| other_side(SockRef::from(server));
        let (mut client, server) = pair();
        assert_eq!(look(&server), Side::Open);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(look(&server), Side::Closed);
        let (other, server) = pair();
        drop(other);
        assert_eq!(look(&server), Side::Closed);
        let (other, mut server) = pair();
        server.write_all(b"unread").unwrap();
        drop(other);
        assert_eq!(look(&server), Side::Broken);
        let (other, server) = pair();
        client = other;
        client.write_all(b"x").unwrap();
        drop(client);
        assert_eq!(look(&server), Side::Says, "what it said comes first");
    }
}
