//! Every hard bound in one place, with its unit in its name. What an operator may want to move is a
//! setting instead and has its default here.

/// A day in milliseconds: no wait that an operator sets is longer, a few are a multiple of it.
pub const DAY_MS: u64 = 86_400_000;
/// Bytes of one request as submitted. The largest body seen accepted for reading by GLM was 3.9 MB.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lists and objects of one request that stand in each other: many times what any tool's schema needs.
pub const LEVELS_MAX: usize = 512;
/// Messages of one chat: far more than any context has room for.
pub const MESSAGES_MAX: usize = 10_000;
/// Tools of one chat; GLM takes 128.
pub const TOOLS_MAX: usize = 1_024;
/// Fields of one chat body; GLM knows some thirty.
pub const CHAT_FIELDS_MAX: usize = 1_024;
/// Bytes of one response of GLM. 131072 output tokens are far below this.
pub const RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a streamed answer that may lie unread before its call waits for the reader.
pub const RELAY_AHEAD_BYTES: usize = 256 * 1024;
/// Seconds that a call whose client is gone may go on, where it is told how long.
pub const DRAIN_S_MAX: u32 = 86_400;
/// Bytes of ended streams that are kept for readers who come back.
pub const RELAYS_KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Ended streams that are kept for readers who come back.
pub const RELAYS_KEPT_MAX: usize = 1_024;
/// Bytes of a header of a client that GLM gets, or of GLM's that a client gets.
pub const PASSED_HEADER_BYTES_MAX: usize = 1_024;
/// Bytes of a `tracestate` that a job keeps: as many as everybody has to pass on.
pub const TRACESTATE_BYTES_MAX: usize = 512;
/// Members of a `tracestate`, as the specification has it.
pub const TRACESTATE_MEMBERS_MAX: usize = 32;
/// Bytes of a stream that are held back until it is known to be an answer.
pub const RELAY_HELD_BYTES: usize = 64 * 1024;
/// Answers of the responses face of which it is remembered of which sessions they were.
pub const CONVERSATIONS_KEPT: usize = 4_096;
/// Bytes of the id of such an answer.
pub const RESPONSE_ID_BYTES_MAX: usize = 256;
/// How many of the `request_id`s that submitters chose are remembered.
pub const CHOSEN_IDS_KEPT: usize = 4_096;
/// Bytes of what came instead of an answer that the attempt keeps.
pub const KEPT_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A call that found no connection within this time says that the way is at fault, however little more time it would
/// have had; one that had less says nothing of the way.
pub const CONNECT_TELLS_MS: u64 = 3_000;
/// Bytes of the `Content-Type` of what came instead of an answer.
pub const CONTENT_TYPE_BYTES_MAX: usize = 200;
/// Characters of a model name.
pub const MODEL_CHARS_MAX: usize = 128;
/// Characters of a user id; GLM's own bound for `user_id`.
pub const USER_ID_CHARS_MAX: usize = 128;
/// Characters of a content id.
pub const CONTENT_ID_CHARS_MAX: usize = 256;
/// Characters of the id of a session.
pub const SESSION_CHARS_MAX: usize = 256;
/// Calls of a session that a lane may take in a row before others of their priority.
pub const AFFINITY_MAX: u32 = 1_000;
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 256;
/// Bytes of a part of an uploaded file.
pub const FILE_PART_BYTES: usize = 256 * 1024;
/// Characters of the name of an uploaded file.
pub const FILE_NAME_CHARS_MAX: usize = 512;
/// Characters of a batch's name.
pub const BATCH_NAME_CHARS_MAX: usize = 4_096;
/// Priorities of which the lane tells how many jobs wait.
pub const PRIORITIES_TOLD_MAX: usize = 16;
/// Orders of operators that are on record; the oldest go.
pub const AUDIT_ROWS_MAX: usize = 10_000;
/// Bytes of what an order said that are kept.
pub const AUDIT_DETAIL_BYTES_MAX: usize = 4_096;
/// Client keys, dead ones included: all of them are in memory.
pub const CLIENT_KEYS_MAX: usize = 4_096;
/// Characters of a client key's name.
pub const KEY_NAME_CHARS_MAX: usize = 128;
/// Models that a client key may name.
pub const KEY_MODELS_MAX: usize = 64;
/// Jobs a minute that a client key may be bound to: each of a minute is remembered.
pub const KEY_REQUESTS_PER_MINUTE_MAX: u32 = 100_000;
/// The weight of a client key among those who take turns.
pub const KEY_SHARE_MAX: u32 = 1_000;
/// How long a secret that was replaced may still open, in milliseconds: thirty days.
pub const KEY_OVERLAP_MS_MAX: u64 = 30 * DAY_MS;
/// Jobs that a filter may name one by one.
pub const NAMED_JOBS_MAX: usize = 10_000;
/// Characters of a failure's code in a filter.
pub const ERROR_CODE_CHARS_MAX: usize = 64;
/// Characters of the name of a webhook endpoint in a filter.
pub const ENDPOINT_CHARS_MAX: usize = 64;
/// Bytes of a job's metadata.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Characters of the id of a task of GLM's asynchronous API; GLM's own have 30.
pub const TASK_ID_CHARS_MAX: usize = 128;
/// Characters of a failure's message that are kept.
pub const FAILURE_MESSAGE_CHARS_MAX: usize = 2_000;
/// Tokens of one attempt that are believed, whoever states them: many times the longest context, and
/// few enough that sums of them never overflow.
pub const TOKENS_MAX: u64 = 1_000_000_000;
/// Models that metrics tell one by one; the others are told together.
pub const METERED_MODELS_MAX: usize = 50;
/// Windows of a quota that metrics tell one by one.
pub const QUOTA_WINDOWS_METERED_MAX: usize = 8;
/// Prompts that wait to be counted again, to measure the error of estimates.
pub const SAMPLES_WAITING_MAX: usize = 16;
/// Bytes of a request that is counted again: longer ones would hold memory and the processor for long.
pub const SAMPLE_BYTES_MAX: usize = 1024 * 1024;
/// Models that the error of estimates is told of one by one.
pub const SAMPLED_MODELS_MAX: usize = 100;
/// Jobs that one `submit_many` may carry.
pub const SUBMIT_MANY_MAX: usize = 10_000;
/// How long a task of GLM's asynchronous API is waited for, in milliseconds, unless the job bounds it
/// itself: a day.
pub const TASK_MS_MAX: u64 = 86_400_000;
/// Jobs that one job may run after.
pub const AFTER_JOBS_MAX: usize = 100;
/// Budgets.
pub const BUDGETS_MAX: usize = 64;
/// Jobs that wait for room in a budget and are looked at in one step when there may be some.
pub const BUDGET_LOOKS_AT_ONCE: usize = 1_000;
/// Lanes beside the default one.
pub const LANES_MAX: usize = 64;
/// Other models that are remembered to have answered in one model's place.
pub const SUBSTITUTES_MAX: usize = 8;
/// Models in one fallback chain.
pub const FALLBACKS_MAX: usize = 8;
/// Slots of all lanes together.
pub const CONCURRENCY_MAX: u16 = 256;
/// Retries a job may ask for.
pub const MAX_RETRIES_MAX: u32 = 100;
/// Rows of one page of a list.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Bytes of requests and responses after which a page of a list ends, whatever its rows; the last of its
/// jobs may reach beyond.
pub const PAGE_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Rows of a page when nobody says how many.
pub const PAGE_ROWS_DEFAULT: usize = 50;
/// Outcomes that wait for their commit; at this bound the lane waits for the disk.
pub const UNSETTLED_MAX: usize = 256;
/// Attempts staged ahead of the slots when calls are shorter than commits. With calls of the usual
/// length it is one per slot.
pub const STAGED_AHEAD_MAX: usize = 128;
/// Transitions in one transaction.
pub const BATCH_TRANSITIONS_MAX: usize = 1_024;
/// Live events that a slow subscriber may lag behind before it is told how many it missed.
pub const EVENTS_BUFFERED_MAX: usize = 4_096;
/// Jobs that one bulk change takes through the queue at once.
pub const BULK_JOBS_MAX: usize = 256;
/// Rows that one step of a pruning looks at.
pub const PRUNE_ROWS_MAX: usize = 128;
/// Bytes of requests and responses with which one step of a pruning ends.
pub const PRUNE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// From one pruning to the next, in milliseconds.
pub const PRUNE_EVERY_MS: u64 = 60_000;
/// What ended less than so many milliseconds ago is not pruned for being too many: somebody may be about
/// to read it, and the pace of a lane goes on from the latest calls after a restart.
pub const PRUNE_SPARES_MS: u64 = PACE_MEMORY_MS;
/// Rows of the call log that one page of a list looks at.
pub const CALLS_LOOKED_AT_MAX: usize = 10_000;
/// Jobs that may wait, unless configured otherwise.
pub const QUEUE_JOBS_DEFAULT: u64 = 1_000_000;
/// Restarts of actors within [`RESTART_WINDOW_MS`] before the process gives up.
pub const RESTARTS_MAX: usize = 5;
/// The window of the restart budget, in milliseconds.
pub const RESTART_WINDOW_MS: u64 = 60_000;
/// How long an actor may take to answer a call of another, in milliseconds. Commits have no bound
/// of their own: a disk that hangs is seen by the submitters' own deadlines.
pub const ACTOR_REPLY_MS: u64 = 5_000;
/// How long a closed connection is given to be seen as closed by the server before the next call
/// begins, in milliseconds: after an abort, a timeout, or the death of a caller. Nothing tells the client when the
/// server has seen it; a busy machine was more than 100 late.
pub const CLOSE_GRACE_MS: u64 = 250;
/// How long a call whose time is over is still looked at, in milliseconds: what has arrived may not have been read.
pub const LAST_LOOK_MS: u64 = 50;
/// The same in a process that was frozen meanwhile.
pub const THAW_MS: u64 = 2_000;
/// A connection on which nothing has come for so long is asked whether it still stands, in milliseconds: GLM thinks in
/// silence, and a peer that is gone says nothing either.
pub const TCP_KEEP_ALIVE_MS: u64 = 30_000;
/// Between two such questions, in milliseconds.
pub const TCP_KEEP_ALIVE_EVERY_MS: u64 = 10_000;
/// Such questions without an answer until the connection is taken for dead.
pub const TCP_KEEP_ALIVE_TRIES: u32 = 6;
/// The longest `Retry-After` that is obeyed of a throttle or overload answer, in milliseconds: such limits pass within
/// minutes.
pub const ASKED_OF_BUSY_MS_MAX: u64 = 600_000;
/// The longest that is obeyed of any other failure that passes, in milliseconds; a quota states days.
pub const ASKED_OF_BROKEN_MS_MAX: u64 = 3_600_000;
/// The longest the lane sleeps before it looks at the wall clock again, in milliseconds: clocks jump.
pub const TICK_MS_MAX: u64 = 1_000;
/// The furthest ahead a stated quota reset is believed, in milliseconds (35 days: the longest GLM
/// window is a month).
pub const RESET_AHEAD_MS_MAX: u64 = 35 * 24 * 60 * 60 * 1_000;
/// Starts of calls that the pace of a lane with a token bound remembers at most. Such a lane starts
/// no more calls than these in a minute.
pub const PACE_LOG_STARTS_MAX: usize = 15_000;
/// How long the pace of a lane with a token bound remembers a start, in milliseconds: as long as a
/// call usually may take, so that what it really used still counts.
pub const PACE_MEMORY_MS: u64 = 600_000;
/// Alerts that are over, of which the store still knows.
pub const ALERTS_KEPT: usize = 200;
/// Bytes of a job's callback URL.
pub const CALLBACK_URL_BYTES_MAX: usize = 2_048;
/// Characters of the error of a delivery that are kept.
pub const DELIVERY_ERROR_CHARS_MAX: usize = 300;
/// Deliveries that are looked at in one step to find what may be forgotten, and forgotten in one
/// transaction at most.
pub const DELIVERIES_LOOKED_AT_MAX: usize = 500;
/// Lines of deliveries that are looked at to find what is due; the others have their turn...
pub const OUTLETS_LOOKED_AT_MAX: usize = 1_024;
/// ...after so many milliseconds.
pub const OUTLETS_AGAIN_MS: u64 = 500;
/// Calls that the rules about calls look at, the latest ones.
pub const ALERT_CALLS_MAX: usize = 500;

/// The same refusal without a code of GLM's holds the account when so many distinct requests met it without an answer
/// between.
pub const REFUSALS_HELD_AT: usize = 3;

/// Jobs that step aside at most while others find out whose fault their refusal is.
pub const REFUSED_JOBS_MAX: usize = 32;

/// Codes of such refusals that are told apart at most.
pub const REFUSAL_CODES_MAX: usize = 16;

/// A clock that was a day or more ahead at a start is believed once it has kept step with so much uptime.
pub const CLOCK_TRUSTED_AFTER_MS: u64 = 10 * 60 * 1_000;

/// Clock and uptime may differ by so much and are in step all the same.
pub const CLOCK_STEP_MS_MAX: u64 = 60 * 1_000;

/// A wall clock that was set by less changes nothing that a restart would notice, in milliseconds.
pub const CLOCK_STEP_NOTED_MS: u64 = 1_000;
/// How many of the times that the wall clock was set are remembered.
pub const CLOCK_STEPS_KEPT: usize = 16;

/// How often a store is told that the clock is believed.
pub const CLOCK_STORED_EVERY_MS: u64 = 60 * 60 * 1_000;
/// How often a clock that is not believed yet is looked at.
pub const CLOCK_LOOK_MS: u64 = 30 * 1_000;
