//! A job and the client who waits for it on his connection: from the submission to its end, to the first piece of its
//! answer, or to the moment when he waits in vain; through his going away and coming back.
#![cfg_attr(
    not(feature = "api"),
    allow(
        dead_code,
        reason = "only the API has clients that stream, go and come back"
    )
)]

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::relay::{RelayHead, RelayReader};
use onelane_core::model::{Ending, JobId, WaitReason};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::clients::{Client, Return, Taken};
use super::{Orchestrator, Submission, Submitted};
use crate::error::Error;

/// What became of a submission.
pub(crate) enum Attended {
    /// The pieces of its answer come.
    Begun(Begun),
    /// The job ended, if there is one, before a piece came, or the client waits in vain.
    Ended(Option<JobId>, Box<Result<Ending, Error>>),
}

/// A streamed answer whose first piece is there. Whoever drops it before all is [`Begun::taken`] goes away.
pub(crate) struct Begun {
    pub(crate) job_id: JobId,
    pub(crate) head: Arc<RelayHead>,
    pub(crate) reader: RelayReader,
    reading: Option<oneshot::Sender<()>>,
}

impl Begun {
    /// All that matters of the answer was read.
    pub(crate) fn taken(&mut self) {
        if let Some(reading) = self.reading.take() {
            let _ = reading.send(());
        }
    }
}

/// How a client's waiting ended.
enum Waited {
    /// This is the end of it, and all that is owed to him.
    Ended(oneshot::Sender<Attended>, Attended),
    /// He has read what he was owed.
    Told,
    /// He is gone.
    Gone {
        /// His answer had begun to come in pieces.
        has_begun: bool,
    },
    /// He waits in vain.
    InVain(oneshot::Sender<Attended>, Attended),
}

impl Orchestrator {
    /// Submits and waits for somebody who may stop waiting: this future may be dropped at any moment, even before the
    /// job has an id. A task of its own looks after the job then, for a dropped future can't wait for the lane. `on_disk` is
    /// called once the submission is there as a job, and dropped where it never will be: the client takes up a job of
    /// his own, or the lane refuses it. What is lent for the submission is given back with that.
    pub(crate) async fn attend(
        &self,
        submission: Submission,
        client: Client,
        on_disk: impl FnOnce(Submitted) + Send + 'static,
    ) -> Attended {
        if client.reattach.is_zero() && submission.idempotency_key.is_none() {
            client.presence.hurry();
        }
        let (waiter, attended) = oneshot::channel();
        let returned = Return { client, waiter };
        match self.inner.clients.come_back(returned).await {
            Ok(()) => drop((submission, on_disk)),
            Err(Return { client, waiter }) => {
                let job = Attendance {
                    lane: self.clone(),
                    keeps_going: submission.idempotency_key.is_some(),
                    seat: self.inner.clients.seat(&client),
                };
                tokio::spawn(job.run(submission, client, waiter, on_disk));
            }
        }
        let lost = || Error::Stopped("the question was lost; ask again".to_owned());
        attended
            .await
            .unwrap_or_else(|_| Attended::Ended(None, Box::new(Err(lost()))))
    }
}

/// Looks after one job for its client.
struct Attendance {
    lane: Orchestrator,
    /// It has a key: it goes on without its client.
    keeps_going: bool,
    seat: Option<Taken>,
}

impl Attendance {
    async fn run(
        mut self,
        mut submission: Submission,
        mut client: Client,
        mut waiter: oneshot::Sender<Attended>,
        on_disk: impl FnOnce(Submitted) + Send + 'static,
    ) {
        if !self.keeps_going {
            submission.bound_to = Some(self.lane.inner.ports.instance);
        }
        let job_id = match self.lane.submit(submission).await {
            Ok(submitted) => {
                let job_id = submitted.job_id;
                on_disk(submitted);
                job_id
            }
            Err(error) => {
                drop(on_disk);
                // Nobody left to tell, and no job to give up.
                drop(self);
                let _ = waiter.send(Attended::Ended(None, Box::new(Err(error))));
                return;
            }
        };
        loop {
            let has_begun = match self.wait(job_id, &client, waiter).await {
                Waited::Told => return,
                Waited::Ended(told, attended) => {
                    // Whoever is told may end the lane, and takes it for his alone.
                    let Self {
                        lane,
                        keeps_going,
                        seat,
                    } = self;
                    let inner = Arc::downgrade(&lane.inner);
                    drop(lane);
                    let Some(seat) = seat.filter(|_| !keeps_going) else {
                        let _ = told.send(attended);
                        return;
                    };
                    // He may be gone, now or before he has read it, and come back for it.
                    let Some((seat, back)) = seat.told(&client, told, attended).await else {
                        return;
                    };
                    let Some(inner) = inner.upgrade() else { return };
                    self = Self {
                        lane: Orchestrator { inner },
                        keeps_going,
                        seat: Some(seat),
                    };
                    (client, waiter) = (back.client, back.waiter);
                    continue;
                }
                Waited::InVain(waiter, attended) => {
                    self.give_up(job_id).await;
                    drop(self);
                    let _ = waiter.send(attended);
                    return;
                }
                Waited::Gone { .. } if self.keeps_going => return,
                Waited::Gone { has_begun } => has_begun,
            };
            match self.expect(job_id, client.stays_away(has_begun)).await {
                Some(back) => (client, waiter) = (back.client, back.waiter),
                None => return,
            }
        }
    }

    /// Waits with a client until he is told or gone.
    async fn wait(
        &self,
        job_id: JobId,
        client: &Client,
        mut waiter: oneshot::Sender<Attended>,
    ) -> Waited {
        let lane = &self.lane;
        let ended = |result| Attended::Ended(Some(job_id), Box::new(result));
        let mut vain = lane.inner.clients.be_patient(job_id, client.max_wait);
        let mut reader = client
            .streams
            .then(|| lane.inner.ports.relays.to_read(job_id).reader());
        let head = async {
            match &mut reader {
                Some(reader) => reader.head().await,
                None => std::future::pending().await,
            }
        };
        let head = tokio::select! {
            biased;
            Some(head) = head => head,
            ending = lane.ending(job_id, client.early) => {
                let ending = ending.and_then(|ending| lane.given_up_at_the_end(self.keeps_going, ending));
                return match waiter.is_closed() {
                    false => Waited::Ended(waiter, ended(ending)),
                    true => Waited::Gone { has_begun: false },
                };
            }
            Ok(reason) = &mut vain => {
                let told = ended(Err(self.in_vain(job_id, client, reason)));
                return Waited::InVain(waiter, told);
            }
            () = waiter.closed() => return Waited::Gone { has_begun: false },
        };
        let Some(reader) = reader else {
            return Waited::Told;
        };
        let (reading, read) = oneshot::channel();
        let begun = Begun {
            job_id,
            head,
            reader,
            reading: Some(reading),
        };
        if !self.keeps_going && client.stays_away(true) == Some(Duration::ZERO) {
            client.presence.hurry();
        }
        let was_closing = client.presence.may_be_gone();
        if waiter.send(Attended::Begun(begun)).is_err() {
            return Waited::Gone { has_begun: false };
        }
        match read.await {
            // He was gone before it began, and what he was sent was lost.
            _ if was_closing && client.presence.lost_it().await => {
                Waited::Gone { has_begun: false }
            }
            Ok(()) => Waited::Told,
            Err(_) => Waited::Gone { has_begun: true },
        }
    }

    fn in_vain(&self, job_id: JobId, client: &Client, reason: WaitReason) -> Error {
        let now = self.lane.inner.ports.clock.now();
        let max_wait = client.max_wait.unwrap_or_default();
        let max_wait_ms = u64::try_from(max_wait.as_millis()).unwrap_or(u64::MAX);
        Error::WaitsInVain {
            job_id,
            waited_ms: (!reason.outlasts(max_wait_ms, now)).then_some(max_wait_ms),
            reason: Box::new(reason),
            goes_on: self.keeps_going,
            now,
        }
    }

    /// Waits for a client who went away, so long at most, or to the end of his job. `None`: he did not come back, and
    /// the job was given up.
    async fn expect(&self, job_id: JobId, within: Option<Duration>) -> Option<Return> {
        let within = within.map(|within| Instant::now() + within);
        let returned = async {
            match &self.seat {
                Some(seat) => seat.leave().await.ok(),
                None => std::future::pending().await,
            }
        };
        let over = async {
            match within {
                Some(until) => tokio::time::sleep_until(until).await,
                // Kept to its end.
                None => drop(self.lane.wait(job_id).await),
            }
        };
        let back = tokio::select! {
            biased;
            back = returned => back,
            () = over => None,
        };
        if let Some(seat) = &self.seat {
            match &back {
                Some(back) => seat.taken_by(&back.client),
                None => seat.close(),
            }
        }
        if back.is_none() && within.is_some() {
            self.give_up(job_id).await;
        }
        back
    }

    /// Nobody waits for the job any more.
    async fn give_up(&self, job_id: JobId) {
        if !self.keeps_going
            && let Err(error) = self.lane.cancel(job_id).await
        {
            tracing::debug!(%job_id, %error, "a job that nobody waits for has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use onelane_actors::relay::RelayEnd;
    use onelane_core::model::Secret;

    use super::*;
    use crate::config::Config;
    use crate::simulator::{Simulator, SimulatorConfig};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_client_whose_answer_is_whole_before_he_can_read_it_gets_it_in_its_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let sim = Simulator::start(SimulatorConfig::default()).unwrap();
        let mut config = Config::default();
        config.store.path = directory.path().join("lane.redb").display().to_string();
        config.glm.base_url = sim.base_url();
        config.glm.api_key = Some(Secret::new("k"));
        let lane = Orchestrator::start(&config).await.unwrap();
        let body = r#"{"model":"glm-4.7","stream":true,"messages":[{"role":"user","content":"one river"}]}"#;
        let submission = Submission::chat(body).unwrap();
        let client = Client {
            streams: true,
            ..Client::inside()
        };
        let (tell, told) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let waiting = {
            let lane = lane.clone();
            // His task is held up between the submission and the first look for pieces.
            let on_disk = move |submitted: Submitted| {
                tell.send(submitted.job_id).unwrap();
                wait.recv().unwrap();
            };
            tokio::spawn(async move { lane.attend(submission, client, on_disk).await })
        };
        let id = tokio::task::spawn_blocking(move || told.recv().unwrap());
        lane.wait(id.await.unwrap()).await.unwrap();
        go_on.send(()).unwrap();
        let Attended::Begun(mut begun) = waiting.await.unwrap() else {
            panic!("the pieces are gone");
        };
        let mut events = 0;
        let end = loop {
            match begun.reader.next().await {
                Ok(piece) => events += piece.windows(5).filter(|part| *part == b"data:").count(),
                Err(end) => break end,
            }
        };
        assert_eq!(end, RelayEnd::Whole);
        assert!(events > 3, "{events} events");
        lane.shutdown(Duration::from_secs(10)).await;
    }
}
