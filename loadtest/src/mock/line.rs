//! Puts replies on the line, with the silences, cuts and in-band errors that the script asks for. Decides when bytes
//! leave; what they say was decided before.

use tidegate_ring::{Conn, Either, now_ns, race, sleep_until};
use tidegate_wire::body::{CHUNK_END, LAST_CHUNK, chunk_prefix};

use super::ask::Events;
use super::journal::Ending;
use super::script::Fault;

/// Bytes gathered before they are sent, where nothing asks for pauses.
const GATHER_BYTES: usize = 16 * 1024;

/// Where on the line something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    BeforeHead,
    Event(u64),
    Byte(u64),
}

/// Something that happens to a reply once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Incident {
    pub(crate) place: Place,
    pub(crate) kind: IncidentKind,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum IncidentKind {
    Stall {
        for_ms: u64,
    },
    Cut {
        reset: bool,
    },
    /// This error event, and then the end.
    Error {
        event: Vec<u8>,
    },
}

impl Incident {
    /// What a fault does on the line, if it does anything there. `error` writes the error event.
    pub(crate) fn of(fault: &Fault, error: impl FnOnce(&str) -> Vec<u8>) -> Option<Incident> {
        let place = |at_event: &Option<u64>, at_byte: &Option<u64>| match (at_event, at_byte) {
            (Some(event), _) => Place::Event(*event),
            (None, Some(byte)) => Place::Byte(*byte),
            (None, None) => Place::BeforeHead,
        };
        match fault {
            Fault::Stall { at_event, at_byte, for_ms } => Some(Incident {
                place: place(at_event, at_byte),
                kind: IncidentKind::Stall { for_ms: *for_ms },
            }),
            Fault::Cut { at_event, at_byte, reset } => {
                Some(Incident { place: place(at_event, at_byte), kind: IncidentKind::Cut { reset: *reset } })
            }
            Fault::ErrorEvent { at_event, error_type } => {
                let event = error(error_type.as_deref().unwrap_or("overloaded_error"));
                Some(Incident { place: Place::Event(*at_event), kind: IncidentKind::Error { event } })
            }
            _ => None,
        }
    }
}

/// Waits; false if the caller left meanwhile.
pub(crate) async fn pause(conn: &Conn, ms: f64) -> bool {
    if ms <= 0.0 {
        return true;
    }
    let until_ns = now_ns().saturating_add((ms * 1e6) as u64);
    matches!(race(sleep_until(until_ns), conn.closed()).await, Either::Left(()))
}

/// One reply on its way.
pub(crate) struct Line<'a> {
    conn: &'a Conn,
    /// What has not been sent, the head first.
    out: Vec<u8>,
    /// Tokens in what has not been sent.
    tokens: u64,
    incident: Option<Incident>,
    /// Told of the tokens that were sent.
    sent: &'a mut dyn FnMut(u64),
}

/// The reply goes no further.
type Ended = Ending;

impl<'a> Line<'a> {
    /// A reply that begins with this head.
    pub(crate) fn new(
        conn: &'a Conn,
        head: Vec<u8>,
        incident: Option<Incident>,
        sent: &'a mut dyn FnMut(u64),
    ) -> Line<'a> {
        Line { conn, out: head, tokens: 0, incident, sent }
    }

    /// Sends a whole body of so many output tokens. An event of a reply that has none is its middle.
    pub(crate) async fn whole(mut self, body: &[u8], tokens: u64) -> Ending {
        match self.try_whole(body, tokens).await {
            Ok(()) => Ending::Complete,
            Err(ending) => ending,
        }
    }

    async fn try_whole(&mut self, body: &[u8], tokens: u64) -> Result<(), Ended> {
        let length = body.len() as u64;
        let at = match self.incident.as_ref().map(|incident| incident.place) {
            Some(Place::Byte(byte)) => byte.min(length),
            Some(Place::Event(_)) => length / 2,
            Some(Place::BeforeHead) | None => length,
        };
        let (before, behind) = body.split_at(usize::try_from(at).unwrap_or(body.len()));
        self.tokens = tokens;
        if let Some(incident) = self.incident.take_if(|incident| incident.place != Place::BeforeHead) {
            self.out.extend_from_slice(before);
            self.flush().await?;
            self.happen(incident.kind).await?;
            return self.send(behind).await;
        }
        self.send(body).await
    }

    /// Sends events in chunks, with these pauses between them.
    pub(crate) async fn events(mut self, events: &Events, mut pause_ms: impl FnMut() -> f64) -> Ending {
        match self.try_events(events, &mut pause_ms).await {
            Ok(()) => Ending::Complete,
            Err(ending) => ending,
        }
    }

    async fn try_events(&mut self, events: &Events, pause_ms: &mut impl FnMut() -> f64) -> Result<(), Ended> {
        let mut start = 0;
        for (index, mark) in events.marks.iter().enumerate() {
            let ms = if index == 0 { 0.0 } else { pause_ms() };
            if ms > 0.0 {
                self.flush().await?;
                if !pause(self.conn, ms).await {
                    return Err(Ending::Left);
                }
            }
            self.meet(Place::Event(index as u64)).await?;
            let event = events.bytes.get(start..mark.end).unwrap_or_default();
            self.event(start, event).await?;
            self.tokens += mark.tokens;
            start = mark.end;
            if self.out.len() >= GATHER_BYTES {
                self.flush().await?;
            }
        }
        self.meet(Place::Event(events.marks.len() as u64)).await?;
        self.out.extend_from_slice(LAST_CHUNK);
        self.flush().await
    }

    /// Writes one event, which begins `start` bytes into the body; in two parts if something happens within it.
    async fn event(&mut self, start: usize, event: &[u8]) -> Result<(), Ended> {
        let within = match self.incident.as_ref().map(|incident| incident.place) {
            Some(Place::Byte(byte)) => usize::try_from(byte).ok().and_then(|byte| byte.checked_sub(start)),
            _ => None,
        };
        let Some(within) = within.filter(|&within| within < event.len()) else {
            write_chunk(&mut self.out, event);
            return Ok(());
        };
        let (before, behind) = event.split_at(within);
        write_chunk(&mut self.out, before);
        self.flush().await?;
        if let Some(incident) = self.incident.take() {
            self.happen(incident.kind).await?;
        }
        write_chunk(&mut self.out, behind);
        Ok(())
    }

    /// Lets happen what belongs here.
    async fn meet(&mut self, place: Place) -> Result<(), Ended> {
        let Some(incident) = self.incident.take_if(|incident| incident.place == place) else { return Ok(()) };
        self.flush().await?;
        self.happen(incident.kind).await
    }

    async fn happen(&mut self, kind: IncidentKind) -> Result<(), Ended> {
        match kind {
            IncidentKind::Stall { for_ms } => match pause(self.conn, for_ms as f64).await {
                true => Ok(()),
                false => Err(Ending::Left),
            },
            IncidentKind::Cut { reset } => {
                cut(self.conn, reset);
                Err(Ending::Failed)
            }
            IncidentKind::Error { event } => {
                write_chunk(&mut self.out, &event);
                self.out.extend_from_slice(LAST_CHUNK);
                self.flush().await?;
                Err(Ending::Failed)
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        self.send(&[]).await
    }

    /// Sends what was gathered and this behind it.
    async fn send(&mut self, behind: &[u8]) -> Result<(), Ended> {
        if self.out.is_empty() && behind.is_empty() {
            return Ok(());
        }
        let sent = self.conn.send(&[&self.out, behind]).await;
        self.out.clear();
        (self.sent)(std::mem::take(&mut self.tokens));
        sent.map_err(|_| Ending::Left)
    }
}

/// Ends a connection in the middle of something. It is closed when it is dropped.
pub(crate) fn cut(conn: &Conn, reset: bool) {
    if reset {
        conn.abort();
    } else {
        conn.shutdown_write();
    }
}

fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.extend_from_slice(chunk_prefix(data.len(), &mut [0; 18]));
    out.extend_from_slice(data);
    out.extend_from_slice(CHUNK_END);
}
