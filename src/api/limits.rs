//! Every hard bound of the API in one place, with its unit in its name. Those of the lane itself are
//! in `onelane_core::model::limits`.

pub use onelane_core::model::limits::TOKENS_MAX;

/// Connections beyond `server.connections_max`, for operators alone.
pub const CONNECTIONS_RESERVED: usize = 64;
/// Connections that the system keeps until there is a place for them.
pub const UNACCEPTED_MAX: u32 = 4_096;
/// How long a connection is left in peace, in milliseconds, before it makes way for others.
pub const MAKES_WAY_AFTER_MS: u64 = 1_000;
/// Once a connection has had its last answer, what its client still sends is thrown away, or the system would take that
/// answer from it. For so long nothing may come of it, in milliseconds.
pub const LINGER_MS_MAX: u64 = 1_000;
/// How long it may take in all, in milliseconds: many such clients wait for one another.
pub const LINGER_WHOLE_MS_MAX: u64 = 30_000;
/// Bytes of it: what whoever sends a request of the largest size is about to send.
pub const LINGER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of it that are read at once.
pub const LINGER_READ_BYTES: usize = 64 * 1024;
/// Files that the process needs beside its connections.
pub const OTHER_FILES: usize = 96;
/// Bytes of an answer that a client has to take in `server.write_timeout_ms`, if there are more.
pub const ANSWER_BYTES_MIN: usize = 256 * 1024;
/// Bytes of an answer with which packing it begins to gain something.
pub const PACKED_BYTES_MIN: usize = 1024;
/// Answers that are read from the store part by part, at once.
pub const EXPORTS_MAX: usize = 4;
/// Bytes of the body of a request that orders the lane or its settings about.
pub const ORDER_BYTES_MAX: usize = 1024 * 1024;
/// Bodies up to so many bytes are read where they come in, and counted nowhere: there are as many of them as
/// requests at most, and what operators ask.
pub const SMALL_BODY_BYTES: usize = 16 * 1024;
/// Larger ones are read into types off the async workers.
pub const LARGE_BODY_BYTES: usize = 128 * 1024;
/// Larger bodies that are read into types at once, and no more than half of the processors: each takes one.
pub const LARGE_BODY_READERS_MAX: usize = 2;
/// The memory of bodies is counted in pieces of so many bytes.
pub const BODY_MEMORY_UNIT_BYTES: usize = 4 * 1024;
/// What `Retry-After` says when there are too many requests at once, in seconds.
pub const BUSY_RETRY_AFTER_S: u64 = 1;
/// Bytes of a refused body that are read all the same, so that its connection goes on; what is longer is left to the
/// end of the connection.
pub const DISCARD_BYTES_MAX: usize = 128 * 1024;
/// How long they may take to come, in milliseconds.
pub const DISCARD_MS_MAX: u64 = 1_000;
/// Bytes a second at which large bodies are taken in, all of them together. As many took less than a tenth of two
/// processors, all that comes of it included; without a bound a hundred clients took half of its pace from the lane.
pub const INTAKE_BYTES_PER_S: u64 = 128 * 1024 * 1024;
/// Bytes that come in as fast as they can before that pace is kept: the two largest requests.
pub const INTAKE_BURST_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of a body that are never delayed: more than usual requests have.
pub const INTAKE_FREE_BYTES: u64 = 1024 * 1024;
/// Characters of a token that other machines may be let in with.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Different characters in it.
pub const TOKEN_KINDS_MIN: usize = 8;
/// Bytes of a request's line and headers together, over HTTP/1; no more are read ahead of a connection.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Headers of one request.
pub const HEADERS_MAX: usize = 100;
/// Bytes of the headers of one request over HTTP/2, as that counts them: 32 more for each.
pub const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Requests at once on one connection of HTTP/2. All of them count as requests, and the connection as one.
pub const STREAMS_MAX: u32 = 128;
/// Requests that a client took back before they were looked at; with more of them its connection is closed.
pub const RESET_STREAMS_MAX: usize = 20;
/// Requests of one connection that were refused for breaking HTTP/2's rules, before it is closed.
pub const FAULTY_STREAMS_MAX: usize = 1_024;
/// Bytes of a request over HTTP/2 that a client may send before they are read.
pub const STREAM_AHEAD_BYTES: u32 = 128 * 1024;
/// Bytes of all requests of one connection.
pub const CONNECTION_AHEAD_BYTES: u32 = 256 * 1024;
/// Bytes of an answer over HTTP/2 that wait to be sent.
pub const STREAM_SEND_BYTES: usize = 64 * 1024;
/// How often a silent client that speaks HTTP/2 is asked whether it is there, in milliseconds.
pub const PING_EVERY_MS: u64 = 20_000;
/// How long it may take to say so, in milliseconds, before its connection is closed.
pub const PONG_WITHIN_MS: u64 = 10_000;
/// How often a client that has closed its own direction is asked, by its system and without a word, whether it has the
/// connection still, in milliseconds.
pub const HALF_CLOSED_PROBE_MS: u64 = 15_000;
/// The longest `?wait=`, in milliseconds.
pub const WAIT_MS_MAX: u64 = 5 * 60 * 1_000;
/// Days of one statistics answer.
pub const STATISTICS_DAYS_MAX: i32 = 3_660;
/// Calls that the metrics show.
pub const RECENT_CALLS_SHOWN: usize = 20;
/// Errors of one request that its answer lists.
pub const ERRORS_SHOWN_MAX: usize = 20;
/// Characters of an operator's reason.
pub const REASON_CHARS_MAX: usize = 500;
/// The longest time for which the breaker is opened, in milliseconds: a year.
pub const BREAKER_OPEN_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;
/// What `Retry-After` says when the lane stops, or can't store: as long as a restart takes.
pub const STOPPED_RETRY_AFTER_S: u64 = 2;

/// What `Retry-After` says when the queue is full, in seconds.
pub const QUEUE_FULL_RETRY_AFTER_S: u64 = 5;
/// The longest time one call of a job may ask for, in milliseconds: a day.
pub const CALL_TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Characters of what is said of a wrong line: it is kept with its batch, and quotes what the line says.
pub const LINE_FAULT_CHARS_MAX: usize = 2_000;
/// Bytes of a line of an uploaded file: a request and what stands beside it.
pub const BATCH_LINE_BYTES_MAX: usize = onelane_core::model::limits::REQUEST_BYTES_MAX + 64 * 1024;
/// Lines of a file that are handed in together.
pub const BATCH_CHUNK_LINES: usize = 256;
/// Bytes with which such lines end.
pub const BATCH_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Batches whose lines are read at once.
pub const BATCHES_READ_MAX: usize = 2;
/// Files that are uploaded at once.
pub const UPLOADS_MAX: usize = 8;
/// Those of one client key among them: others get to upload, too.
pub const UPLOADS_OF_KEY_MAX: usize = 4;
/// Files that are kept at once.
pub const FILES_MAX: usize = 10_000;
/// Those of one client key among them.
pub const FILES_OF_KEY_MAX: usize = 1_000;
/// Batches of one client key whose lines are still to become jobs.
pub const BATCHES_OPEN_OF_KEY_MAX: usize = 64;
/// Bytes of an upload beside the file.
pub const UPLOAD_FRAME_BYTES_MAX: u64 = 64 * 1024;
/// The longest time that a batch may be given, in milliseconds: 14 days.
pub const BATCH_WINDOW_MS_MAX: u64 = 14 * 24 * 60 * 60 * 1_000;
/// Pairs of a batch's metadata.
pub const BATCH_METADATA_MAX: usize = 16;
/// Characters of a name among them, and of a value.
pub const BATCH_METADATA_NAME_CHARS_MAX: usize = 64;
/// The same of a value.
pub const BATCH_METADATA_VALUE_CHARS_MAX: usize = 512;
/// Bytes of results that are written at once.
pub const RESULTS_PART_BYTES: usize = 256 * 1024;
