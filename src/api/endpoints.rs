//! The table of endpoints. A row says method, path, who may use it, what it is for and what can be wrong;
//! the types of its handler say what is read and answered. Router, OpenAPI document and reference page
//! come from these rows.

use onelane_core::model::Face;
use serde_json::{Value, json};
use warp::http::Method;

use super::endpoint::{Endpoint, Router};
use super::events::LAST_EVENT_ID;
use super::gateway::{CALLBACK, Chat, Embeddings, Faced, Messages, Responses};
use super::principal::Access::{Anybody, Follow, Look, Operate, Submit};
use super::problem::Kind;
use super::submission::IDEMPOTENCY_KEY;
use super::traced::tracing;
use super::upload::FORM;
use super::{
    account, admin, audit, batches, billing, bulk, control, estimate, events, files, follow,
    gateway, granted, input_items, jobs, keys, lane_batches, log, messages, models, notify,
    responses, scrape, service, store, tasks,
};

/// Refusals of a submission by the lane.
const SUBMISSION: [Kind; 10] = [
    Kind::BeyondRights,
    Kind::RateLimited,
    Kind::QueueFull,
    Kind::Draining,
    Kind::OverBudget,
    Kind::BeyondBudget,
    Kind::UnknownDependency,
    Kind::DependencyEnded,
    Kind::UnpricedModel,
    Kind::CallbackRefused,
];

/// What can forbid the change of a job.
const OF_A_JOB: [Kind; 2] = [Kind::UnknownJob, Kind::WrongStatus];

/// All endpoints.
pub(super) fn router() -> Router {
    let sections = [
        ("Jobs", jobs()),
        ("OpenAI and GLM SDKs", sdks()),
        ("GLM's asynchronous calls", tasks()),
        ("Files and batches", batches()),
        ("The queue", queue()),
        ("The lane", lane()),
        ("Client keys", client_keys()),
        ("Statistics and logs", figures()),
        ("Money", money()),
        ("Alerts and webhooks", webhooks()),
        ("The service", service()),
    ];
    let endpoints = sections
        .into_iter()
        .flat_map(|(section, rows)| rows.into_iter().map(move |row| row.under(section)));
    Router::new(endpoints.collect())
}

/// A row.
macro_rules! row {
    ($method:ident $path:literal, $access:expr, $summary:literal, $handler:path) => {
        Endpoint::new(Method::$method, $path, $access, $summary, $handler)
    };
}

fn jobs() -> Vec<Endpoint> {
    vec![
        tracing(passing(row!(POST "/api/glm/jobs", Submit, "Submit a job, or a list of jobs", jobs::submit)))
            .about(
                "Answers once the jobs are on disk. A list is taken job by job: what the lane refuses \
                 is told at its place, and the others are taken. If any job is malformed none is.",
            )
            .header(
                IDEMPOTENCY_KEY,
                "The same key of the same user (and client key) with the same request gives the same job. For one job.",
            )
            .header(granted::USER, "Whose jobs they are that name no user.")
            .header(granted::PRIORITY, "The priority of jobs that name none.")
            .header(granted::SESSION, "The session of jobs that name none.")
            .header(granted::GLMS_SESSION, "The same; GLM is told of it to the byte.")
            .header(granted::BATCH, "The id of the open batch that they come to; for operators.")
            .errors(&SUBMISSION)
            .errors(&[Kind::IdempotencyConflict, Kind::RequestPruned])
            .example(json!({"prompt": "Name one river.", "priority": 10, "userId": "alice"})),
        row!(GET "/api/glm/jobs", Submit, "Jobs, newest first", jobs::list).about(
            "For a client key those that it handed in; every other parameter narrows the list. Prompts and answers \
             are cut to their beginnings.",
        ),
        row!(GET "/api/glm/jobs/{id}", Submit, "One job, at once or when it has ended", jobs::read)
            .errors(&[Kind::UnknownJob]),
        row!(GET "/api/glm/jobs/{id}/result", Submit, "How a job ended, as the results of a batch tell it",
            jobs::result)
            .about("While it goes on there is neither response nor error.")
            .errors(&[Kind::UnknownJob]),
        row!(GET "/api/glm/jobs/{id}/events", Submit, "How a job stands, and its events up to its end",
            events::of_job)
            .about("With `Last-Event-ID` what is missed since, also after the end of the job, as long as that is kept.")
            .header(LAST_EVENT_ID, "The id of the event that a client which comes back had last.")
            .errors(&[Kind::UnknownJob]),
        row!(GET "/api/glm/jobs/{id}/stream", Submit, "The answer of a job that is streamed, event by event",
            follow::stream)
            .about(
                "From its first event, or behind that of `Last-Event-ID`: to the byte while the call is open, and made \
                 anew of the stored answer once the pieces are not kept any more. Of a job that waits, nothing is \
                 written until its answer begins.",
            )
            .header(LAST_EVENT_ID, "The id of the event that a client which comes back had last.")
            .errors(&[Kind::UnknownJob, Kind::NoStream, Kind::RequestPruned]),
        row!(GET "/api/glm/events", Follow, "Everything that happens from now on", events::all)
            .heavy()
            .about(
                "For a client key what happens to its own jobs, with ids of its own. With `Last-Event-ID` from there \
                 on, as far as it is kept: the last 4,096 events of all.",
            )
            .header(LAST_EVENT_ID, "The id of the event that a client which comes back had last."),
        row!(DELETE "/api/glm/jobs/{id}", Submit, "Give a job up", admin::cancel)
            .errors(&OF_A_JOB),
        row!(POST "/api/glm/jobs/{id}/cancel", Submit, "Give a job up", admin::cancel)
            .errors(&OF_A_JOB),
    ]
}

fn sdks() -> Vec<Endpoint> {
    let mut rows = Vec::new();
    rows.extend(calls::<Chat>(
        "A chat completion, as OpenAI's and GLM's SDKs ask for it",
        json!({"model": "glm-4.7", "messages": [{"role": "user", "content": "Name one river."}]}),
    ));
    rows.extend(calls::<Responses>(
        "A response, as OpenAI's newer SDKs ask for it; with background: true served by the queue",
        json!({"model": "glm-4.7", "input": "Name one river."}),
    ));
    rows.extend(vec![
        row!(GET "/v1/responses/{id}", Submit, "A response that was asked for in the background",
            responses::read)
        .about(
            "Queued, in progress, or GLM's answer under our id. A later response may go on from it. With \
             `stream=true` its events, as far as they are not had: to the byte but for our id and their numbers while \
             they are kept, then the last of them, which has the whole response.",
        )
        .errors(&[Kind::UnknownJob, Kind::InvalidQuery]),
        row!(DELETE "/v1/responses/{id}", Submit, "Delete what such a response was asked and answered",
            responses::delete)
            .about("One that goes on is given up first. What it cost stays on record.")
            .errors(&[Kind::UnknownJob, Kind::WrongStatus]),
        row!(GET "/v1/responses/{id}/input_items", Submit, "What such a response was asked",
            input_items::list)
            .about("The latest first, unless `order` says otherwise.")
            .errors(&[Kind::UnknownJob, Kind::InvalidQuery]),
        row!(POST "/v1/responses/{id}/cancel", Submit, "Give such a response up", responses::cancel)
            .about("One that has ended stays as it is.")
            .errors(&[Kind::UnknownJob]),
    ]);
    rows.extend(calls::<Messages>(
        "A message, as Anthropic's SDKs and coding agents ask for it",
        json!({"model": "glm-4.7", "max_tokens": 100,
            "messages": [{"role": "user", "content": "Name one river."}]}),
    ));
    for path in [
        "/v1/messages/count_tokens",
        "/api/anthropic/v1/messages/count_tokens",
    ] {
        let about = "How many tokens a message has, by GLM's tokenizer";
        let row = Endpoint::new(Method::POST, path, Submit, about, messages::count_tokens);
        let example = json!({"messages": [{"role": "user", "content": "Name one river."}]});
        rows.push(
            row.about("Nothing is submitted, and GLM is not asked.")
                .errors(&[Kind::MissingField])
                .example(example),
        );
    }
    rows.extend(calls::<Embeddings>(
        "Embeddings",
        json!({"model": "embedding-3", "input": ["Name one river."]}),
    ));
    rows.extend(vec![
        row!(GET "/v1/models", Submit, "The models that have a price, the default one, and those that answered lately",
            models::list_models)
        .about(
            "As OpenAI's SDKs list them or, for a client that sends `anthropic-version` or `x-api-key`, as Anthropic's do. One \
             that GLM does not serve this account with is left out, until its hold ends. Those without a price are listed for \
             7 days after they answered. A model that is not listed may be asked for all the same.",
        )
        .errors(&[Kind::InvalidQuery]),
        row!(GET "/v1/models/{model}", Submit, "One of these models", models::read_model)
            .errors(&[Kind::UnknownModel]),
        row!(GET "/api/paas/v4/models", Submit, "The same, as GLM's SDKs ask for it",
            models::list_models)
            .errors(&[Kind::InvalidQuery]),
        row!(GET "/api/paas/v4/models/{model}", Submit, "One of these models", models::read_model)
            .errors(&[Kind::UnknownModel]),
        row!(GET "/api/anthropic/v1/models", Submit, "The same, below GLM's path for Anthropic's SDKs",
            models::list_models)
            .errors(&[Kind::InvalidQuery]),
        row!(GET "/api/anthropic/v1/models/{model}", Submit, "One of these models", models::read_model)
            .errors(&[Kind::UnknownModel]),
    ]);
    rows
}

/// The row of what makes jobs of any face, with the headers that belong to one.
fn passing(row: Endpoint) -> Endpoint {
    let names = Face::ALL.into_iter().flat_map(Face::passes);
    let about = "GLM gets it as it is with each job of the face that has it.";
    names.fold(row, |row, name| row.header(name, about))
}

/// The rows of a face: one for each of its paths.
fn calls<F: Faced>(summary: &'static str, example: Value) -> impl Iterator<Item = Endpoint> {
    F::FACE.paths().iter().map(move |path| {
        let row = tracing(Endpoint::new(Method::POST, path, Submit, summary, gateway::call::<F>));
        let passes = F::FACE.passes().iter();
        passes
            .fold(row, |row, name| row.header(name, "GLM gets it as it is."))
            .about(
                "A program only changes its base URL. The body becomes a job; the answer is GLM's, \
                 verbatim, in pieces where `stream` asks for them. A client that goes away gives its job up after \
                 gateway.reattach_ms, unless it sent an Idempotency-Key. \
                 The query is not looked at.",
            )
            .header(
                IDEMPOTENCY_KEY,
                "The job goes on when the client goes away; asked again with the key it is found.",
            )
            .header(CALLBACK, "Where the job's end is told, too.")
            .header(granted::USER, "Whose job it is, whichever user the body names.")
            .header(granted::PRIORITY, "Its priority; higher is more urgent.")
            .header(granted::GLMS_SESSION, "The session that it is a call of; GLM is told of it to the byte.")
            .header(granted::SESSION, "The same; GLM is told of it so that no two client keys meet.")
            .errors(&SUBMISSION)
            .errors(&[
                Kind::MissingField,
                Kind::WaitsInVain,
                Kind::WaitsForQuota,
                Kind::IdempotencyConflict,
                Kind::RequestPruned,
            ])
            .example(example.clone())
    })
}

fn tasks() -> Vec<Endpoint> {
    let submit = |endpoint: Endpoint| {
        tracing(endpoint)
            .about(
                "Answers once the chat is on disk as a job, which belongs to no connection. `stream` is ignored, \
                 as GLM does.",
            )
            .header(
                IDEMPOTENCY_KEY,
                "The same key of the same user with the same request gives the same task.",
            )
            .header(CALLBACK, "Where the task's end is told, too.")
            .header(granted::USER, "Whose job it is, whichever user the body names.")
            .header(granted::PRIORITY, "Its priority; higher is more urgent.")
            .header(granted::GLMS_SESSION, "The session that it is a call of; GLM is told of it to the byte.")
            .header(granted::SESSION, "The same; GLM is told of it so that no two client keys meet.")
            .errors(&SUBMISSION)
            .errors(&[
                Kind::MissingField,
                Kind::IdempotencyConflict,
                Kind::RequestPruned,
                Kind::UnknownJob,
            ])
            .example(json!({"model": "glm-4.7",
                "messages": [{"role": "user", "content": "Name one river."}]}))
    };
    vec![
        submit(row!(POST "/api/paas/v4/async/chat/completions", Submit,
            "Hand a chat over, and fetch its answer later", tasks::submit)),
        submit(
            row!(POST "/api/coding/paas/v4/async/chat/completions", Submit,
            "The same, below the base URL of coding plans", tasks::submit),
        ),
        submit(
            row!(POST "/v1/async/chat/completions", Submit, "The same, below OpenAI's base path",
            tasks::submit),
        ),
        row!(GET "/api/paas/v4/async-result/{id}", Submit, "How such a chat stands, with its answer",
            tasks::read),
        row!(GET "/api/coding/paas/v4/async-result/{id}", Submit,
            "The same, below the base URL of coding plans", tasks::read),
        row!(GET "/v1/async-result/{id}", Submit, "The same, below OpenAI's base path", tasks::read),
    ]
}

/// Files and batches stand below the base paths of OpenAI's and of GLM's SDKs. A client key sees its own.
fn batches() -> Vec<Endpoint> {
    let form = || {
        let schema = json!({"type": "object", "required": ["file", "purpose"], "properties": {
            "file": {"type": "string", "format": "binary",
                "description": "Lines of JSON, each with `custom_id`, `method`, `url` and `body`; its name ends in .jsonl."},
            "purpose": {"type": "string", "enum": ["batch"], "description": "What it is for."},
        }});
        (FORM, schema)
    };
    let upload = |path, summary| {
        Endpoint::taking(path, Submit, summary, form(), files::upload)
            .about("On disk when it is answered. Its lines are looked through when a batch is made of them.")
            .errors(&[Kind::MissingField, Kind::FilesFull])
            .example(json!({"purpose": "batch", "file": "{\"custom_id\": \"line-1\", ...}\n"}))
    };
    let read = |row: Endpoint| row.errors(&[Kind::UnknownFile]);
    let delete = |row: Endpoint| row.errors(&[Kind::UnknownFile, Kind::FileInUse]);
    let create = |row: Endpoint| {
        tracing(passing(row)).about(
            "Its lines become jobs in the background, which stand below others (`server.batches.jobs_below`): all of \
             them, or none if one is wrong. It is a batch of the lane like that of `onelane run`.",
        )
        .header(IDEMPOTENCY_KEY, "The same key (of the same client key) for the same file gives the same batch.")
        .header(granted::USER, "Whose jobs its jobs are, whichever user a line names.")
        .header(granted::PRIORITY, "The priority of its jobs, instead of one below others.")
        .header(granted::SESSION, "The session of lines that name none.")
        .header(granted::GLMS_SESSION, "The same; GLM is told of it to the byte.")
        .errors(&[
            Kind::UnknownFile,
            Kind::IdempotencyConflict,
            Kind::BeyondRights,
            Kind::QueueFull,
        ])
        .example(json!({"input_file_id": "file-0192f0c0ffee7000800000c0ffee0000",
            "endpoint": "/v1/chat/completions", "completion_window": "24h"}))
    };
    let one = |row: Endpoint| row.errors(&[Kind::UnknownBatch]);
    let cancel = |row: Endpoint| one(row).errors(&[Kind::WrongStatus]);
    let list = |row: Endpoint| row.errors(&[Kind::InvalidQuery]);
    vec![
        upload("/v1/files", "Upload a file of lines"),
        list(row!(GET "/v1/files", Submit, "The uploaded files, newest first", files::list)),
        read(row!(GET "/v1/files/{id}", Submit, "One file", files::read))
            .about("Of results, too: their size is known once they are written, so that takes as long as to read them."),
        delete(row!(DELETE "/v1/files/{id}", Submit, "Delete an uploaded file", files::delete))
            .about("Jobs that were made of it stay."),
        read(row!(GET "/v1/files/{id}/content", Submit, "The content of a file", files::content))
            .about("Results are written from the stored answers as they are read, in the order of the lines."),
        create(row!(POST "/v1/batches", Submit, "Make a batch of an uploaded file", batches::create)),
        list(row!(GET "/v1/batches", Submit, "The batches, newest first", batches::list)),
        one(row!(GET "/v1/batches/{id}", Submit, "One batch", batches::read)),
        cancel(row!(POST "/v1/batches/{id}/cancel", Submit, "Give a batch up", batches::cancel)),
        upload("/api/paas/v4/files", "The same, as GLM's SDKs ask for it"),
        list(row!(GET "/api/paas/v4/files", Submit, "The uploaded files, newest first", files::list)),
        read(row!(GET "/api/paas/v4/files/{id}", Submit, "One file", files::read)),
        delete(row!(DELETE "/api/paas/v4/files/{id}", Submit, "Delete an uploaded file", files::delete)),
        read(row!(GET "/api/paas/v4/files/{id}/content", Submit, "The content of a file", files::content)),
        create(row!(POST "/api/paas/v4/batches", Submit, "Make a batch of an uploaded file",
            batches::create)),
        list(row!(GET "/api/paas/v4/batches", Submit, "The batches, newest first", batches::list)),
        one(row!(GET "/api/paas/v4/batches/{id}", Submit, "One batch", batches::read)),
        cancel(row!(POST "/api/paas/v4/batches/{id}/cancel", Submit, "Give a batch up", batches::cancel)),
        row!(GET "/api/admin/glm/batches", Look, "Every batch of the lane", lane_batches::list)
            .about("Those of `onelane run` and of uploaded files, the ones that are not done first, then the newest."),
        one(row!(GET "/api/admin/glm/batches/{id}", Look, "One batch of the lane", lane_batches::read)),
        one(row!(POST "/api/admin/glm/batches/{id}/cancel", Operate, "Give a batch of the lane up",
            lane_batches::cancel))
            .about("No more jobs come to it; those that wait or run are cancelled."),
        row!(POST "/api/admin/glm/batches", Operate, "Begin a batch of the lane, or open it for more jobs",
            lane_batches::open)
            .about(
                "A batch is its name. Jobs come to it by the header `x-onelane-batch` of `POST /api/glm/jobs`, until \
                 it is closed.",
            )
            .example(json!({"name": "nightly"})),
        one(row!(POST "/api/admin/glm/batches/{id}/close", Operate, "Say that no more jobs come to a batch",
            lane_batches::close))
            .about("With its last job it is completed."),
        one(row!(POST "/api/admin/glm/batches/{id}/adopt", Operate, "Move jobs to a batch, each under a new key",
            lane_batches::adopt))
            .about(
                "What was submitted under another key is found under this one from then on. A job that is gone, that \
                 has no key, or whose key another job has, stays where it is.",
            )
            .example(json!({"jobs": [{"id": "0199a000-0000-7000-8000-000000000001", "idempotencyKey": "k"}]})),
        row!(GET "/api/admin/glm/batch-jobs", Look, "The jobs of a batch, or of all batches, with their keys",
            lane_batches::jobs)
            .about("Newest first, without what they ask and answer; a viewer sees no keys."),
    ]
}

fn queue() -> Vec<Endpoint> {
    vec![
        row!(GET "/api/admin/glm/queue", Look, "Jobs, newest first", admin::read_queue).about(
            "Every parameter narrows the list. Prompts and answers are cut to their beginnings.",
        ),
        row!(GET "/api/admin/glm/queue/{id}", Look, "One job with its attempts", admin::read_job)
            .about("Whole for an admin; for a viewer with the beginnings of prompt and answer.")
            .errors(&[Kind::UnknownJob]),
        row!(GET "/api/admin/glm/dead-letters", Look, "Failed jobs with their attempts, newest first",
            admin::dead_letters),
        row!(POST "/api/admin/glm/retry/{id}", Operate, "Put a job back in line", admin::retry)
            .about(
                "A failed, cancelled or parked job; its retries are counted afresh, its history stays. A delayed one tries now.",
            )
            .errors(&OF_A_JOB)
            .errors(&[Kind::RequestPruned, Kind::DependencyEnded, Kind::UnknownDependency]),
        row!(POST "/api/admin/glm/cancel/{id}", Operate, "Give a job up", admin::cancel)
            .errors(&OF_A_JOB),
        row!(POST "/api/admin/glm/run-again/{id}", Operate, "Run what a job asked for once more, for another model",
            jobs::run_again)
            .about("A job of its own, for the same user, as urgent; it belongs to no batch and to no client key.")
            .errors(&SUBMISSION)
            .errors(&[Kind::UnknownJob, Kind::RequestPruned])
            .example(json!({"model": "glm-5"})),
        row!(POST "/api/admin/glm/erase/{id}", Operate, "Erase what a job was asked and answered", admin::erase)
            .about("One that goes on is given up first. Its row, its attempts and what they cost stay.")
            .errors(&OF_A_JOB),
        row!(POST "/api/admin/glm/reprioritise/{id}", Operate, "Change the priority of a pending job",
            bulk::reprioritise_one)
            .errors(&OF_A_JOB)
            .example(json!({"priority": 100})),
        row!(POST "/api/admin/glm/retry", Operate, "Put many jobs back in line", bulk::retry)
            .example(json!({"filter": {"status": "failed", "errorCode": "1234"}, "dryRun": true})),
        row!(POST "/api/admin/glm/cancel", Operate, "Give many jobs up", bulk::cancel)
            .about("Jobs that run after one of them are cancelled with it, and not counted.")
            .example(json!({"filter": {"userId": "alice"}, "dryRun": true})),
        row!(POST "/api/admin/glm/reprioritise", Operate, "Change the priority of many pending jobs",
            bulk::reprioritise)
            .example(json!({"filter": {"userId": "alice"}, "priority": -10, "dryRun": true})),
    ]
}

fn lane() -> Vec<Endpoint> {
    vec![
        row!(GET "/api/admin/glm/config", Look, "The settings in force", admin::read_config),
        row!(PUT "/api/admin/glm/config", Operate, "Change settings of the running lane",
            admin::change_config)
            .of_settings()
            .about("Checked, stored and live at once, without a restart. What is not named stays.")
            .example(json!({"maxRetries": 5})),
        row!(GET "/api/admin/glm/policy", Look, "What each error code means to job, lane and breaker",
            admin::read_policy),
        row!(POST "/api/admin/glm/pause", Operate, "Stop the lane before its next call", control::pause)
            .about("Jobs wait until it is resumed; an open call ends by itself. It outlives a restart.")
            .example(json!({"reason": "prices change at noon"})),
        row!(POST "/api/admin/glm/drain", Operate, "Close the intake and work off what waits",
            control::drain)
            .about("Nothing new is taken until the lane is resumed. It outlives a restart.")
            .example(json!({"reason": "moving to another machine"})),
        row!(POST "/api/admin/glm/resume", Operate, "End a pause, every hold and a closed intake",
            control::resume),
        row!(GET "/api/admin/glm/breaker", Look, "The circuit breaker", control::breaker),
        row!(POST "/api/admin/glm/breaker/reset", Operate, "Close the breaker", control::reset_breaker),
        row!(POST "/api/admin/glm/breaker/open", Operate, "Open the breaker", control::open_breaker)
            .example(json!({"reason": "incident 7", "forMs": 60_000})),
        row!(GET "/api/admin/glm/holds", Look, "What is held, why and until when", control::holds),
        row!(DELETE "/api/admin/glm/holds/account", Operate, "End the hold on the account",
            control::release_account)
            .errors(&[Kind::UnknownHold]),
        row!(DELETE "/api/admin/glm/holds/lane/{name}", Operate, "End the hold on a lane",
            control::release_lane)
            .errors(&[Kind::UnknownHold]),
        row!(DELETE "/api/admin/glm/holds/model/{name}", Operate, "End the hold on a model",
            control::release_model)
            .errors(&[Kind::UnknownHold]),
        row!(GET "/api/admin/glm/audit", Look, "What operators did, newest first", audit::list)
            .about(
                "Every order that changes something or shows what is somebody's own, by page and by API: on record before it is \
                 carried out. The latest 10,000.",
            ),
        row!(GET "/api/admin/glm/metrics", Look, "The lane at this moment and its latest calls",
            admin::metrics),
    ]
}

fn client_keys() -> Vec<Endpoint> {
    vec![
        row!(GET "/api/admin/glm/keys", Look, "The client keys, newest first", keys::list)
            .about("Those that are dead, too. No secret is shown."),
        row!(POST "/api/admin/glm/keys", Operate, "Make a client key", keys::create)
            .about("It opens at once. The whole key is told in this answer and never again.")
            .example(json!({"name": "nightly agent", "userId": "ada", "maxPriority": 10,
                "callsInFlight": 2, "requestsPerMinute": 60,
                "budget": {"cost": 12.5, "currency": "CNY", "period": "day"}})),
        row!(GET "/api/admin/glm/keys/{id}", Look, "One client key", keys::read)
            .errors(&[Kind::UnknownKey]),
        row!(POST "/api/admin/glm/keys/{id}/revoke", Operate, "Take a client key back", keys::revoke)
            .about("It opens nothing any more. Jobs that it handed in go on.")
            .errors(&[Kind::UnknownKey]),
        row!(POST "/api/admin/glm/keys/{id}/rotate", Operate, "Give a client key another secret",
            keys::rotate)
            .about("Id and rights stay. The key before opens for `overlapMs` more; one that was replaced earlier \
                does not any more.")
            .errors(&[Kind::UnknownKey, Kind::DeadKey])
            .example(json!({"overlapMs": 86_400_000})),
    ]
}

fn figures() -> Vec<Endpoint> {
    vec![
        row!(GET "/api/admin/glm/statistics", Look, "Usage summed up", admin::read_statistics)
            .about("By day and model, unless `groupBy` says otherwise."),
        row!(GET "/api/admin/glm/calls", Look, "The call log, newest first", log::calls)
            .about("A page may be short and have others behind it."),
        row!(GET "/api/admin/glm/export", Operate, "Everything that the store has, as lines", log::export)
            .about(
                "Read part by part, so that a store of any size is exported. If the store fails on the \
                 way the answer is cut off.",
            )
            .heavy()
            .errors(&[Kind::Busy]),
    ]
}

fn money() -> Vec<Endpoint> {
    vec![
        row!(GET "/api/admin/glm/prices", Look, "The price list in force", admin::read_prices),
        row!(POST "/api/admin/glm/estimate", Look, "What jobs may cost; nothing is submitted",
            estimate::estimate)
        .heavy()
        .errors(&[Kind::UnpricedModel, Kind::CallbackRefused])
        .example(json!({"prompt": "Name one river.", "model": "glm-4.7"})),
        row!(GET "/api/admin/glm/budgets", Look, "How the budgets stand", control::budgets),
        row!(GET "/api/admin/glm/account", Look, "Quota and balance, as GLM told of them last", account::read)
            .about("Asked now and then where `account.enabled` says so. No call of the lane waits for it."),
        row!(GET "/api/admin/glm/account/reconciliation", Look,
            "Our books beside GLM's meter, by day and model, each difference with its cause", account::reconcile)
            .heavy()
            .about(
                "GLM is asked for each of the days that it has not told of; they are its own, of UTC+8. A call counts where \
                 GLM counts it: on the day on which it began or ended, for the model that was called or that answered.",
            )
            .errors(&[Kind::AccountNotAsked]),
        row!(GET "/api/admin/glm/maybe-billed", Look,
            "Attempts that GLM may have billed although no answer is stored", billing::list),
        row!(GET "/api/admin/glm/maybe-billed/{jobId}/{attempt}/received", Operate,
            "What came instead of an answer to an attempt, as far as it is kept", billing::received)
            .about(
                "Of answers that could not be read, and of those that belong to other calls: may hold what \
                 somebody else asked.",
            )
            .errors(&[Kind::UnknownJob, Kind::UnknownAttempt]),
        row!(POST "/api/admin/glm/maybe-billed/settle", Operate,
            "Say the same of many such attempts", billing::settle_all)
            .about("Of those that the filter leaves: that nothing was billed, or, with billed, all that budgets keep \
                reserved for each.")
            .example(json!({"filter": {"model": "glm-4.7", "to": "2026-11-29T00:00:00Z"}, "billed": false,
                "dryRun": true})),
        row!(POST "/api/admin/glm/maybe-billed/{jobId}/{attempt}", Operate,
            "Say what became of such an attempt", billing::settle)
        .errors(&[Kind::UnknownJob, Kind::UnknownAttempt, Kind::BillingSettled])
        .example(json!({"billed": true, "cost": 0.0125, "currency": "CNY",
                "usage": {"promptTokens": 600, "completionTokens": 400}})),
    ]
}

fn webhooks() -> Vec<Endpoint> {
    vec![
        row!(GET "/api/admin/glm/alerts", Look, "Alerts that are active and that are over", notify::alerts),
        row!(GET "/api/admin/glm/webhooks/endpoints", Look, "Where notices go", notify::endpoints),
        row!(GET "/api/admin/glm/webhooks/deliveries", Look, "What was told to whom, newest first",
            notify::deliveries),
        row!(POST "/api/admin/glm/webhooks/deliveries/{id}/redeliver", Operate, "Send a delivery again",
            notify::redeliver)
            .errors(&[Kind::UnknownDelivery]),
        row!(POST "/api/admin/glm/webhooks/redeliver", Operate, "Send many deliveries again",
            notify::redeliver_all)
            .about("Of those that the filter leaves, without a status in it, the ones that were given up.")
            .example(json!({"filter": {"endpoint": "ops"}, "dryRun": true})),
        row!(POST "/api/admin/glm/webhooks/test", Operate, "Send a notice to try whether it arrives",
            notify::test)
            .errors(&[Kind::UnknownEndpoint])
            .example(json!({"endpoint": "ops"})),
    ]
}

fn service() -> Vec<Endpoint> {
    vec![
        row!(GET "/healthz", Anybody, "Whether the daemon answers", service::health),
        row!(GET "/readyz", Anybody, "Whether work is taken", service::ready)
            .about(
                "By a round trip through queue and store. 503 while the disk is full, the intake is closed, the lane has \
                 stopped or one of them does not answer in 2 s. `degraded` is no 503: work is taken and kept, and nothing \
                 is sent, since the lane is held or paused.",
            )
            .errors(&[Kind::StoreFailed, Kind::Draining, Kind::Stopped]),
        row!(GET "/metrics", Look, "Metrics in Prometheus' text format", scrape::metrics)
            .about(
                "[metrics.md](metrics.md) says what each is. They tell of spending and of models, so that a token is asked \
                 for as elsewhere: that of a viewer is enough, which Prometheus sends as `authorization: {credentials: ...}`.",
            ),
        row!(GET "/api/admin/glm/about", Look, "Which onelane this is, and which store it has", service::about)
            .about("By the store's id a program on the same machine knows the daemon that has a store open."),
        row!(GET "/api/admin/glm/store", Look, "How large the store is, and what retention would remove from it",
            store::figures)
            .about("Reads every page of it.")
            .heavy()
            .errors(&[Kind::Busy, Kind::StoreFailed]),
        row!(GET "/api/admin/glm/store/check", Look, "Whether the tables of the store agree", store::check)
            .about(
                "Reads every row of it. The pages of the file can only be checked while no lane has it open: \
                 `onelane db check` does that.",
            )
            .heavy()
            .errors(&[Kind::Busy, Kind::StoreFailed]),
        row!(POST "/api/admin/glm/store/backup", Operate, "All of the store, as lines of which it can be made again",
            store::backup)
            .about(
                "Of one moment, while the lane goes on: its file grows by what is written meanwhile. `onelane db backup` makes \
                 a store of the lines, `onelane db export` keeps them. Prompts, answers, digests of client keys, and every \
                 secret that the store keeps are among them, a key of GLM's that was set by PUT as well.",
            )
            .heavy()
            .errors(&[Kind::Busy, Kind::StoreFailed]),
        row!(GET "/openapi.json", Look, "This API as an OpenAPI 3.1 document", service::openapi),
    ]
}
