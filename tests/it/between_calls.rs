//! Between two calls: what is done while the first is open, and what once the second is out.

use std::sync::{Arc, Mutex};

use onelane::model::{JobId, Submission};
use onelane::orchestrator::Orchestrator;
use onelane::ports::{CallEnd, CallFuture, Glm, GlmCall, UnreadAnswer};
use onelane::simulator::{SimulatorConfig, Span};
use tokio_util::sync::CancellationToken;

use crate::support::http::{HttpLane, completed, prompt};

/// What a transport was seen to do, and for which job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Written(JobId),
    Sent(JobId),
    Came(JobId),
    Read(JobId),
}

/// A transport that tells what it does.
struct Watched {
    http: Arc<dyn Glm>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Glm for Watched {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let id = call.job_id;
        let steps = Arc::clone(&self.steps);
        let note = move |step| steps.lock().unwrap().push(step);
        note(Step::Written(id));
        let calling = self.http.call(call, abort);
        Box::pin(async move {
            note(Step::Sent(id));
            let end = calling.await;
            note(Step::Came(id));
            match end {
                CallEnd::Answer(UnreadAnswer { model, read }) => {
                    let read = Box::new(move || {
                        note(Step::Read(id));
                        read()
                    });
                    CallEnd::Answer(UnreadAnswer { model, read })
                }
                other => other,
            }
        })
    }
}

fn watched(world: &mut HttpLane) -> Arc<Mutex<Vec<Step>>> {
    let steps = Arc::default();
    let told = Arc::clone(&steps);
    world.wrap = Some(Box::new(move |http| {
        Arc::new(Watched {
            http: Arc::new(http),
            steps: Arc::clone(&told),
        })
    }));
    steps
}

/// So many jobs, which the lane finds at the same moment.
async fn jobs_at_once(lane: &Orchestrator, jobs: usize) -> Vec<JobId> {
    lane.pause(None).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..jobs {
        let submitted = lane.submit(prompt(format!("number {n}"))).await;
        ids.push(submitted.unwrap().job_id);
    }
    lane.resume().await.unwrap();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_request_is_written_while_a_call_is_open_and_its_answer_read_when_that_is_out() {
    let mut world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Fixed(60),
        ..SimulatorConfig::default()
    });
    let steps = watched(&mut world);
    let lane = world.start().await;
    let jobs = jobs_at_once(&lane, 8).await;
    for job in &jobs {
        completed(&lane, *job).await;
    }
    let steps = steps.lock().unwrap().clone();
    let at = |step| steps.iter().position(|seen| *seen == step).unwrap();
    let goes_on = |pair: &[JobId]| {
        at(Step::Written(pair[1])) < at(Step::Came(pair[0]))
            && at(Step::Sent(pair[1])) < at(Step::Read(pair[0]))
    };
    let ahead = jobs.windows(2).filter(|pair| goes_on(pair)).count();
    assert!(ahead > 0, "{steps:?}");
    assert_eq!(world.sim.stats().peak_in_flight, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_written_makes_way_for_a_more_urgent_job() {
    let mut world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Fixed(300),
        ..SimulatorConfig::default()
    });
    let steps = watched(&mut world);
    let lane = world.start().await;
    let jobs = jobs_at_once(&lane, 3).await;
    completed(&lane, jobs[0]).await;
    let urgent = Submission::prompt("urgent").unwrap().priority(10);
    let urgent = lane.submit(urgent).await.unwrap().job_id;
    for job in [jobs[1], jobs[2], urgent] {
        completed(&lane, job).await;
    }
    let steps = steps.lock().unwrap().clone();
    let sent = steps.iter().filter_map(|step| match step {
        Step::Sent(id) => Some(*id),
        _ => None,
    });
    let sent: Vec<JobId> = sent.collect();
    assert_eq!(sent, [jobs[0], jobs[1], urgent, jobs[2]]);
    let at = |step| steps.iter().position(|seen| *seen == step).unwrap();
    assert!(
        at(Step::Written(jobs[2])) < at(Step::Sent(urgent)),
        "{steps:?}"
    );
}
