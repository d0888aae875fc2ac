//! One TLS session as a state machine: bytes of the wire in, plaintext out, and back. No socket, no waiting.
//!
//! It decides what a received byte means and what a sent one becomes. It never sends anything by itself: whatever
//! rustls wants on the wire (handshake, tickets, alerts) leaves through [`Session::drain`]. Memory: rustls holds at
//! most
//! one partial record (a handshake message: 64 KiB) on the way in; plaintext is taken from it after each step, so it
//! never piles up there.

use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConfig, ServerConnection};

/// Plaintext sealed in one step: exactly one full record, so that a waiting send holds little.
pub(super) const STEP_BYTES: usize = 16 * 1024;
/// What a record adds to its plaintext (header, content type, tag or padding), and a queued key update before it.
pub(super) const STEP_OVERHEAD_BYTES: usize = 256;
/// Slices gathered into one record.
const SLICES_MAX: usize = 8;

/// One side of a TLS session.
pub(super) struct Session {
    connection: Connection,
    peer_closed: bool,
}

impl Session {
    pub(super) fn client(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Session, rustls::Error> {
        Ok(Session::new(ClientConnection::new(Arc::clone(config), name)?.into()))
    }

    pub(super) fn server(config: &Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        Ok(Session::new(ServerConnection::new(Arc::clone(config))?.into()))
    }

    fn new(mut connection: Connection) -> Session {
        connection.set_buffer_limit(Some(STEP_BYTES));
        Session { connection, peer_closed: false }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the handshake took up an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the peer has said that nothing more will come (close_notify).
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes in all of `received` and appends the plaintext it completes to `plaintext`.
    ///
    /// What was decrypted before an error is appended all the same: the caller hands it on first. Bytes after the
    /// peer's close_notify are ignored. At most `received` and one record more come out.
    pub(super) fn absorb(&mut self, received: &[u8], plaintext: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let mut rest = received;
        while !rest.is_empty() && !self.peer_closed {
            // `read_tls` fails only when a bound of rustls is hit: an oversized record or handshake message, since
            // plaintext is always taken below. Zero bytes taken is the same thing said differently.
            match self.connection.read_tls(&mut rest) {
                Ok(0) => return Err(rustls::Error::PeerSentOversizedRecord),
                Ok(_) => {}
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
            let processed = self.connection.process_new_packets();
            self.take_plaintext(plaintext);
            self.peer_closed |= processed?.peer_has_closed();
        }
        Ok(())
    }

    fn take_plaintext(&mut self, plaintext: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // An error says only that there is no more for now (or that the peer closed, which `absorb` reads elsewhere).
        while let Ok(chunk) = reader.fill_buf() {
            if chunk.is_empty() {
                break;
            }
            plaintext.extend_from_slice(chunk);
            let taken = chunk.len();
            reader.consume(taken);
        }
    }

    /// Seals the next step of `rest` and appends its records, with all that was queued before, to `records`.
    ///
    /// # Errors
    /// The session failed earlier, or it accepts nothing (not before the handshake is complete).
    pub(super) fn seal(&mut self, rest: &mut Rest<'_>, records: &mut Vec<u8>) -> io::Result<()> {
        let mut gathered = [IoSlice::new(&[]); SLICES_MAX];
        let count = rest.gather(&mut gathered);
        let sealed = self.connection.writer().write_vectored(&gathered[..count])?;
        let drained = self.drain(records)?;
        rest.advance(sealed);
        if sealed == 0 && drained == 0 && !rest.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Appends everything that waits for the wire to `records`; how many bytes.
    pub(super) fn drain(&mut self, records: &mut Vec<u8>) -> io::Result<usize> {
        let before = records.len();
        while self.connection.wants_write() {
            if self.connection.write_tls(records)? == 0 {
                break;
            }
        }
        Ok(records.len() - before)
    }

    /// Queues our close_notify; nothing can be sealed afterwards.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

/// What is left to send of the caller's slices.
pub(super) struct Rest<'a> {
    slices: &'a [&'a [u8]],
    /// Bytes of the first slice already sealed; less than its length unless it is empty.
    sealed: usize,
}

impl<'a> Rest<'a> {
    pub(super) fn new(slices: &'a [&'a [u8]]) -> Rest<'a> {
        let mut rest = Rest { slices, sealed: 0 };
        rest.advance(0);
        rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum::<usize>() - self.sealed
    }

    /// Fills `gathered` with the next slices, at most one step of bytes; how many.
    fn gather(&self, gathered: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut room = STEP_BYTES;
        let mut count = 0;
        for (place, slice) in gathered.iter_mut().zip(self.slices) {
            let skip = if count == 0 { self.sealed } else { 0 };
            let taken = (slice.len() - skip).min(room);
            *place = IoSlice::new(&slice[skip..skip + taken]);
            count += 1;
            room -= taken;
            if room == 0 {
                break;
            }
        }
        count
    }

    fn advance(&mut self, sealed: usize) {
        self.sealed += sealed;
        while let Some(first) = self.slices.first()
            && self.sealed >= first.len()
        {
            self.sealed -= first.len();
            self.slices = &self.slices[1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{ClientTls, Roots, ServerTls, TlsCheck};

    fn pair() -> (Session, Session) {
        let (client, server) = settings();
        pair_of(&client, &server)
    }

    fn pair_of(client: &ClientTls, server: &ServerTls) -> (Session, Session) {
        let name = ServerName::try_from("peer.test").expect("a name");
        (
            Session::client(client.config(), name).expect("a client"),
            Session::server(server.config()).expect("a server"),
        )
    }

    fn settings() -> (ClientTls, ServerTls) {
        let issued = rcgen::generate_simple_self_signed(["peer.test".to_owned()]).expect("a certificate");
        let certificate = issued.cert.pem();
        let client = ClientTls::new(&Roots::Only { ca_pem: certificate.as_bytes() }).expect("roots");
        let server = ServerTls::new(certificate.as_bytes(), issued.signing_key.serialize_pem().as_bytes())
            .expect("an identity");
        (client, server)
    }

    /// Moves what `from` wants to say to `to` in pieces of `piece` bytes; the plaintext that came out.
    fn carry(from: &mut Session, to: &mut Session, piece: usize) -> Result<Vec<u8>, rustls::Error> {
        let (mut records, mut plaintext) = (Vec::new(), Vec::new());
        from.drain(&mut records).expect("draining into memory");
        for part in records.chunks(piece) {
            to.absorb(part, &mut plaintext)?;
        }
        Ok(plaintext)
    }

    fn shake_hands(client: &mut Session, server: &mut Session, piece: usize) {
        for _ in 0..4 {
            assert!(carry(client, server, piece).expect("client's flight").is_empty());
            assert!(carry(server, client, piece).expect("server's flight").is_empty());
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }

    fn say(from: &mut Session, to: &mut Session, words: &[u8]) {
        let (mut records, mut plaintext) = (Vec::new(), Vec::new());
        from.seal(&mut Rest::new(&[words]), &mut records).expect("sealing");
        to.absorb(&records, &mut plaintext).expect("opening");
        assert_eq!(plaintext, words);
    }

    #[test]
    fn every_way_to_cut_the_wire_gives_the_same_plaintext() {
        for piece in [1, 2, 5, 23, 1000, 4096, 16 * 1024, 70_000] {
            let (mut client, mut server) = pair();
            shake_hands(&mut client, &mut server, piece);
            let body: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
            let slices: [&[u8]; 5] = [b"", b"head", &body, b"", b"tail"];
            let mut rest = Rest::new(&slices);
            let mut records = Vec::new();
            assert_eq!(rest.len(), 100_008);
            while !rest.is_empty() {
                client.seal(&mut rest, &mut records).expect("sealing");
            }
            let mut plaintext = Vec::new();
            for part in records.chunks(piece) {
                server.absorb(part, &mut plaintext).expect("opening");
            }
            assert_eq!(plaintext, slices.concat(), "pieces of {piece}");
        }
    }

    #[test]
    fn the_second_session_with_a_server_resumes_the_first() {
        let (client_tls, server_tls) = settings();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (mut client, mut server) = pair_of(&client_tls, &server_tls);
            shake_hands(&mut client, &mut server, 4096);
            assert_eq!(client.connection.handshake_kind(), Some(expected));
            assert_eq!(client.connection.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }

    #[test]
    fn a_ticket_needs_nothing_that_the_server_remembers() {
        let (client_tls, server_tls) = settings();
        let mut forgetful = ServerConfig::clone(server_tls.config());
        forgetful.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let forgetful = Arc::new(forgetful);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let name = ServerName::try_from("peer.test").expect("a name");
            let mut client = Session::client(client_tls.config(), name).expect("a client");
            let mut server = Session::server(&forgetful).expect("a server");
            shake_hands(&mut client, &mut server, 4096);
            assert_eq!(client.connection.handshake_kind(), Some(expected));
        }
    }

    #[test]
    fn a_server_of_another_protocol_is_refused() {
        let (client_tls, server_tls) = settings();
        let mut config = ServerConfig::clone(server_tls.config());
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("peer.test").expect("a name");
        let mut client = Session::client(client_tls.config(), name).expect("a client");
        let mut server = Session::server(&Arc::new(config)).expect("a server");
        let refused = carry(&mut client, &mut server, 4096).expect_err("no protocol in common");
        assert_eq!(TlsCheck::of(&refused), TlsCheck::Protocol);
    }

    #[test]
    fn a_key_update_is_answered_with_the_next_send() {
        let (mut client, mut server) = pair();
        shake_hands(&mut client, &mut server, 4096);
        for _ in 0..5 {
            client.connection.refresh_traffic_keys().expect("TLS 1.3");
            assert!(carry(&mut client, &mut server, 7).expect("a key update").is_empty());
            say(&mut server, &mut client, b"under new keys");
            say(&mut client, &mut server, b"and back");
        }
    }

    #[test]
    fn small_slices_share_a_record() {
        let (mut client, mut server) = pair();
        shake_hands(&mut client, &mut server, 4096);
        let slices: [&[u8]; 3] = [b"head", b"body", b"tail"];
        let mut records = Vec::new();
        client.seal(&mut Rest::new(&slices), &mut records).expect("sealing");
        assert!(records.len() < 12 + STEP_OVERHEAD_BYTES);
        let record_bytes = usize::from(records[3]) * 256 + usize::from(records[4]);
        assert_eq!(records.len(), 5 + record_bytes, "one record holds all");
    }

    #[test]
    fn a_step_fits_what_is_set_aside_for_it() {
        let (mut client, mut server) = pair();
        shake_hands(&mut client, &mut server, 4096);
        let body = vec![7; 3 * STEP_BYTES];
        let slices: [&[u8]; 1] = [&body];
        let mut rest = Rest::new(&slices);
        while !rest.is_empty() {
            let mut records = Vec::new();
            client.seal(&mut rest, &mut records).expect("sealing");
            assert!(records.len() <= STEP_BYTES + STEP_OVERHEAD_BYTES, "{}", records.len());
        }
    }

    #[test]
    fn data_before_the_close_and_before_an_error_still_comes_out() {
        for spoil in [false, true] {
            let (mut client, mut server) = pair();
            shake_hands(&mut client, &mut server, 4096);
            let slices: [&[u8]; 1] = [b"last words"];
            let mut records = Vec::new();
            client.seal(&mut Rest::new(&slices), &mut records).expect("sealing");
            client.close();
            client.drain(&mut records).expect("draining");
            if spoil {
                let last = records.len() - 1;
                records[last] ^= 1;
            }
            let mut plaintext = Vec::new();
            let outcome = server.absorb(&records, &mut plaintext);
            assert_eq!(plaintext, b"last words");
            assert_eq!(outcome.is_err(), spoil);
            assert_eq!(server.peer_closed(), !spoil);
        }
    }

    #[test]
    fn noise_is_an_error_and_not_a_panic() {
        let (mut client, mut server) = pair();
        let mut plaintext = Vec::new();
        assert!(server.absorb(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", &mut plaintext).is_err());
        assert!(client.absorb(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut plaintext).is_err());
        assert!(client.absorb(&[0x16, 3, 3, 0xff, 0xff, 1, 2, 3], &mut plaintext).is_err());
        assert!(plaintext.is_empty());
    }
}
