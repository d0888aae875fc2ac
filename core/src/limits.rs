//! Every limit of the system, in one place, bound to each other by assertions that hold at compile time.
//!
//! Nothing here is configuration; where the file may change a value, this is its default or its bound.

use std::time::Duration;

/// Bytes of a request or reply head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of a request or reply head.
pub const HEAD_FIELDS_MAX: usize = 100;
/// Bytes of a request body.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Announced bodies up to this size get their room at once; a larger one grows as it really arrives.
pub const BODY_AT_ONCE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a form: most of it is passed on as it arrives and never held.
pub const FORM_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// A form up to this size is held until it is complete, so that it fails over like any other body. Of a larger one as
/// much is held as stands before its model, at most `BODY_BYTES_MAX`.
pub const FORM_HELD_BYTES: usize = 256 * 1024;
/// Bytes of a file that a provider keeps: passed on as it arrives and never held (the API references: 500 MB).
pub const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of a batch: looked at as it arrives and never held (the API references: 256 MB).
pub const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Ids of files that one call may name.
pub const FILES_NAMED_MAX: usize = 256;
/// Objects whose owners are known unless the configuration says otherwise.
pub const OBJECTS_MAX: usize = 65_536;
/// Objects that the configuration may ask for, at 32 bytes each.
pub const OBJECTS_CEILING: usize = 16 * 1024 * 1024;
/// Stored responses whose owners are known unless the configuration says otherwise. Beyond it the oldest are forgotten.
pub const RESPONSES_MAX: usize = 65_536;
/// How long a stored response is remembered: providers keep one for 30 days.
pub const RESPONSE_REMEMBERED: Duration = Duration::from_secs(31 * 24 * 3600);
/// Bytes of one page of a list of objects, which is held to be filtered.
pub const OBJECT_LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Pages of a list that are looked through for one that holds something of the caller's.
pub const OBJECT_PAGES_MAX: usize = 32;
/// How long a batch is remembered: providers keep one and its results for 29 or 30 days.
pub const BATCH_REMEMBERED: Duration = Duration::from_secs(31 * 24 * 3600);
/// How often what changed of the owners is written down.
pub const OWNERS_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// A caller may send the rest of a form no slower than this, once `BODY_TIMEOUT` is used up.
pub const UPLOAD_BYTES_PER_S_MIN: u64 = 64 * 1024;
/// Step in which body memory is taken.
pub const BODY_STEP_BYTES: usize = 64 * 1024;
/// Body memory is the memory limit of the process divided by this.
pub const BODY_MEMORY_DIVISOR: u64 = 4;
/// Body memory where no memory limit of the process can be found.
pub const BODY_MEMORY_BYTES_FALLBACK: u64 = 1024 * 1024 * 1024;
/// How often a body that found no memory looks again.
pub const MEMORY_POLL: Duration = Duration::from_millis(5);
/// A whole reply up to this size is held until it is complete, so that a cut one fails over too.
pub const REPLY_HELD_BYTES_MAX: usize = 256 * 1024;

/// The usage in a whole reply that is larger than what is held.
pub const PASSING_USAGE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a stream's events held until the first content event.
pub const EVENTS_HELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one event of a stream that is looked at; a larger one passes unread.
pub const EVENT_BYTES_MAX: usize = EVENTS_HELD_BYTES_MAX;
/// Depth of JSON.
pub const JSON_DEPTH_MAX: usize = 128;
/// Bytes of a model name.
pub const MODEL_NAME_BYTES_MAX: usize = 256;
/// Bytes of a presented credential.
pub const CREDENTIAL_BYTES_MAX: usize = 1024;
/// A credential shorter than this is not looked for in what its provider says.
pub const SECRET_HIDDEN_BYTES_MIN: usize = 8;
/// Sources of calls whose wrong keys are counted at once; a power of two.
pub const GUESSERS_MAX: usize = 4_096;
/// Of the 64 marks that a source has for its wrong keys, those that may be set before it counts as guessing: about 90
/// different keys. The same wrong key sets the same mark, however often it comes.
pub const GUESSES_MAX: u32 = 48;
/// Span for which wrong keys are remembered; a source that guesses is let in again with the next one.
pub const GUESS_SPAN: Duration = Duration::from_secs(60);

/// Client connections of a process, before descriptors bound it.
pub const SLOTS_MAX: usize = 10_000;
/// Descriptors kept for listeners, admin, logs and files.
pub const DESCRIPTORS_RESERVED: usize = 128;
/// Descriptors a slot may need: its client's and its upstream's.
pub const DESCRIPTORS_PER_SLOT: usize = 2;
/// Bytes a slot holds beside its body and held reply: two heads, two buffers.
pub const SLOT_BYTES: usize = 2 * HEAD_BYTES_MAX + 2 * EVENTS_HELD_BYTES_MAX;
/// Bytes that TLS adds to a slot: a handshake message or the rest of a record on the way in, a record on the way out.
pub const SLOT_TLS_BYTES: usize = 96 * 1024;
/// Unfinished TLS handshakes of clients, of a worker; who comes then waits. Near the slots of a worker, so that those
/// who never finish hold others up no more easily than those who never speak.
pub const HANDSHAKES_MAX: usize = 1_024;
/// Steps of handshakes that a worker computes in one turn of its loop, half a millisecond each: what running streams
/// may have to wait for.
pub const HANDSHAKE_STEPS_MAX: usize = 8;
/// Bytes of a PROXY header, with all that its sender adds to the addresses.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;
/// Networks of trusted proxies.
pub const TRUSTED_PROXIES_MAX: usize = 256;
/// Connections that wait in the kernel for a worker.
pub const BACKLOG: i32 = 4_096;
/// Pause after the process ran out of descriptors, so that accepting does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Addresses tried for one connection to an upstream.
pub const ADDRESSES_TRIED_MAX: usize = 3;
/// Interim replies of an upstream before the real one.
pub const INTERIM_MAX: u32 = 8;
/// Idle upstream connections of a worker and origin.
pub const POOL_IDLE_MAX: usize = 1_024;
/// Bytes of one receive buffer of a worker.
pub const RECV_BUFFER_BYTES: usize = 16 * 1024;
/// Receive buffers of a worker; a power of two.
pub const RECV_BUFFERS: u16 = 1_024;
/// Entries of a worker's submission ring.
pub const RING_ENTRIES: u32 = 1_024;
/// Received chunks one connection may hold before its receive is paused.
pub const LENT_CHUNKS_MAX: u8 = 4;
/// Surplus bytes read from a caller after an early refusal before the connection is closed.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Connections that may wait to be taken over from other workers, each worker.
pub const HANDED_OVER_MAX: usize = 64;
/// A worker with fewer connections than this, and a free slot, keeps what it accepts.
pub const HANDED_OVER_FROM: u64 = 8;
/// How often a full worker looks whether another has room.
pub const ROOM_POLL: Duration = Duration::from_millis(10);
/// How often a worker says that its loop turns.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A worker that has not said so for this long makes no progress.
pub const STALL_AFTER: Duration = Duration::from_secs(5);
/// Times that one worker's failed loop is built anew within [`WORKER_REBUILDS_SPAN`]; one more ends the process.
pub const WORKER_REBUILDS_MAX: usize = 10;
/// See [`WORKER_REBUILDS_MAX`].
pub const WORKER_REBUILDS_SPAN: Duration = Duration::from_secs(60);

/// Targets of a plan.
pub const PLAN_TARGETS_MAX: usize = 16;
/// Accounts tried for one target.
pub const PLAN_ACCOUNTS_MAX: usize = 8;
/// Providers of a configuration.
pub const PROVIDERS_MAX: usize = 256;
/// Keys of a configuration.
pub const KEYS_MAX: usize = 4_096;
/// Virtual keys of a configuration.
pub const VIRTUAL_KEYS_MAX: usize = 100_000;
/// Public models of a configuration.
pub const MODELS_MAX: usize = 4_096;
/// Model classes of a provider.
pub const CLASSES_MAX: usize = 64;

/// A cached prefix shorter than this is in no provider's cache and ties a call to nobody.
pub const PREFIX_BYTES_MIN: usize = 4_096;

/// Reports a worker may have waiting for the control plane.
pub const REPORTS_MAX: usize = 16_384;
/// Entries of the access log a worker may have waiting for the control plane.
pub const ACCESS_ENTRIES_MAX: usize = 2_048;
/// Tries of a call that an entry names one by one.
pub const ACCESS_TRIES_MAX: usize = 8;
/// Bytes that an entry keeps of a path or a model name.
pub const ACCESS_TEXT_BYTES_MAX: usize = 128;
/// Bytes that an entry keeps of a method.
pub const ACCESS_METHOD_BYTES_MAX: usize = 16;
/// How often the control plane drains them.
pub const REPORT_DRAIN_INTERVAL: Duration = Duration::from_millis(5);

/// A rest that a provider's time asks for is capped here, unless its limit is per day.
pub const REST_MAX: Duration = Duration::from_secs(3600);
/// First rest after a 429 without a time.
pub const REST_STEP: Duration = Duration::from_secs(1);
/// Longest rest after 429s without a time.
pub const REST_STEP_MAX: Duration = Duration::from_secs(60);
/// A wait up to this long is told to the caller rather than a quota's unproven level trusted.
pub const COLD_WAIT: Duration = Duration::from_millis(500);
/// Rest after a ramp 429 without a time.
pub const RAMP_REST: Duration = Duration::from_secs(10);
/// Share of a token limit that stays unused, in percent, so that the error of an estimate does not draw a 429.
pub const KEPT_TOKENS_PERCENT: u64 = 2;
/// Request limits from here on keep one request back.
pub const KEPT_REQUEST_FROM: u64 = 50;
/// The estimate is reserved with one part in this many more: the error it may well have.
pub const SPREAD_DIVISOR: u64 = 10;
/// A reply this old is no news of the moment it was asked for: what refilled beyond this counts.
pub const PROMPT_REPLY: Duration = Duration::from_secs(5);
/// How often a level is lowered again for what others reserve meanwhile; the next reply does the rest.
pub const LOWER_ROUNDS: usize = 8;
/// How long a quota whose level no reply confirmed is trusted only for what refilled since it was made. A minute
/// refills any bucket.
pub const COLD_SPAN: Duration = Duration::from_secs(60);
/// Calls in flight that are let through to a quota nobody knows the level of, where no account has room.
pub const COLD_CALLS: u32 = 8;
/// After a ramp refusal the cap on calls in flight grows by one with so many successes.
pub const SUCCESSES_PER_STEP: u64 = 8;
/// A cap on calls in flight that grew to this is forgotten.
pub const CAP_FORGOTTEN: u64 = 4_096;
/// When to look again at a gate whose end nobody knows: a probe is out, or a ramp is full.
pub const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
/// First back-off of an overloaded route.
pub const OVERLOAD_STEP: Duration = Duration::from_millis(500);
/// Longest back-off of an overloaded route.
pub const OVERLOAD_STEP_MAX: Duration = Duration::from_secs(30);
/// How long a key and model that do not go together rest.
pub const PAIR_REST: Duration = Duration::from_secs(300);
/// Breaker: failures in the window that may open it.
pub const BREAKER_FAILURES: u32 = 5;
/// Breaker: share of failures in the window that opens it, in percent.
pub const BREAKER_FAILURE_PERCENT: u32 = 50;
/// Breaker: the window.
pub const BREAKER_WINDOW: Duration = Duration::from_secs(10);
/// Breaker: first time open.
pub const BREAKER_OPEN: Duration = Duration::from_secs(5);
/// Breaker: longest time open.
pub const BREAKER_OPEN_MAX: Duration = Duration::from_secs(60);
/// A probe that neither succeeded nor failed is given up after this long, and another may go.
pub const PROBE_LEASE: Duration = Duration::from_secs(600);
/// Ramp allowance at which a quota counts as recovered.
pub const RAMP_DONE: u32 = 64;
/// Retry budget: moves as a share of calls, in percent.
pub const RETRY_PERCENT: u32 = 20;
/// Retry budget: counts are halved once per period, so what counts is the calls of the last ten seconds or so.
pub const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// Retry budget: moves per second that are always there.
pub const RETRY_FLOOR_PER_S: u32 = 10;

/// Time to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time to the first byte of a streamed reply.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(120);
/// Time to the first byte of a whole reply.
pub const FIRST_BYTE_WHOLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Silence between bytes of a reply.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Silence within an upstream's error reply: what came until then is enough to judge it.
pub const ERROR_REPLY_IDLE: Duration = Duration::from_secs(2);
/// Idle time of a client connection.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time for a PROXY header and a client's TLS handshake, from the connection on.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request head, from its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request body, from the end of its head.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time a client may take to accept bytes before its stream is ended.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the rest of a refused request to be drained.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle time of a pooled upstream connection.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often idle upstream connections are looked through for those to be closed.
pub const POOL_SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Without content for this long the status of a stream is committed and comments keep the line alive.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Grace for whole replies at shutdown.
pub const DRAIN_GRACE: Duration = Duration::from_secs(30);
/// Grace for streams at shutdown.
pub const DRAIN_GRACE_STREAMS: Duration = Duration::from_secs(600);
/// How often names are resolved.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long an answer of the resolver is served when newer ones fail.
pub const RESOLVE_STALE_MAX: Duration = Duration::from_secs(3600);
/// Length under which `check` warns of a virtual key.
pub const VIRTUAL_KEY_CHARS_MIN: usize = 32;

const _: () = assert!(RECV_BUFFERS.is_power_of_two());
const _: () = assert!(GUESSERS_MAX.is_power_of_two() && GUESSES_MAX < u64::BITS);
const _: () = assert!(BEAT_INTERVAL.as_millis() * 2 < STALL_AFTER.as_millis(), "one late beat is no stall");
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize, "fields are u16 ranges into their head");
const _: () = assert!(HEAD_BYTES_MAX + RECV_BUFFER_BYTES <= EVENTS_HELD_BYTES_MAX * 2);
const _: () =
    assert!(HANDSHAKE_STEPS_MAX > 0 && HANDSHAKE_STEPS_MAX <= HANDSHAKES_MAX && HANDSHAKES_MAX < SLOTS_MAX);
const _: () = assert!(PROXY_HEADER_BYTES_MAX <= RECV_BUFFER_BYTES);
const _: () = assert!(BODY_BYTES_MAX.is_multiple_of(BODY_STEP_BYTES));
const _: () = assert!(MODEL_NAME_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(ACCESS_TRIES_MAX >= 2, "the first try and the last");
const _: () = assert!(FORM_HELD_BYTES < BODY_BYTES_MAX && FORM_BYTES_MAX > BODY_BYTES_MAX as u64);
const _: () = assert!(OBJECTS_MAX <= OBJECTS_CEILING && RESPONSES_MAX <= OBJECTS_CEILING);
const _: () = assert!(OBJECT_LIST_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(PROVIDERS_MAX <= u16::MAX as usize);
const _: () = assert!(KEYS_MAX <= u16::MAX as usize);
const _: () = assert!(KEEP_ALIVE_INTERVAL.as_secs() < IDLE_TIMEOUT.as_secs());
const _: () = assert!(POOL_IDLE_TIMEOUT.as_secs() < CLIENT_IDLE_TIMEOUT.as_secs());
const _: () = assert!(POOL_SWEEP_INTERVAL.as_secs() < POOL_IDLE_TIMEOUT.as_secs());
const _: () = assert!(PREFIX_BYTES_MIN < BODY_BYTES_MAX);
const _: () = assert!(KEPT_TOKENS_PERCENT < 100 && SPREAD_DIVISOR > 0);
const _: () = assert!(COLD_SPAN.as_secs() >= 60, "a minute refills any bucket");
const _: () = assert!(BREAKER_OPEN.as_secs() <= BREAKER_OPEN_MAX.as_secs());
const _: () =
    assert!(RECV_BUFFERS as usize > LENT_CHUNKS_MAX as usize * 8, "one slow reader must not empty the ring");
