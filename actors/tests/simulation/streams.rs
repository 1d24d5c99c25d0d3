//! Answers that are told in pieces: what GLM says, who reads it, and what must hold.

use std::time::Duration;

use bytes::Bytes;
use onelane_actors::protocol::QueueMsg;
use onelane_actors::relay::{RelayEnd, RelayHead};
use onelane_actors::testing::Dice;
use onelane_core::model::{CallOutcome, JobId, Next, Transition};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE};
use crate::server::End;
use crate::sim::{State, short};

/// A piece of such an answer that is longer than anybody reads at once.
static LONG: [u8; 96 * 1024] = [b'.'; 96 * 1024];

/// The pieces of the answer to a call.
pub(crate) fn pieces(number: usize, dice: &mut Dice) -> Vec<Bytes> {
    let is_long = dice.one_in(5);
    let said = |n| {
        let words = Bytes::from(format!(
            "data: piece {n} of the answer to call {number}\n\n"
        ));
        let filler = is_long.then_some(Bytes::from_static(&LONG));
        std::iter::once(words).chain(filler)
    };
    (0..dice.between(1, 12)).flat_map(said).collect()
}

impl State {
    /// The first piece of an answer is there to be read.
    pub(crate) fn is_told(&mut self, number: usize) {
        self.server.calls[number].is_told = true;
        self.tally.streams += 1;
    }
}

/// An attempt ended, and that is on disk: a completed job has the answer to its own call, and of what somebody may have
/// read nothing else is told.
pub(crate) fn settled(
    change: &Transition,
    is_stored: bool,
    state: &mut State,
) -> Result<(), String> {
    let Transition::Settle(settlement) = change else {
        return Ok(());
    };
    let who = format!(
        "attempt {} of job {}",
        settlement.attempt,
        short(settlement.job_id)
    );
    let (job, attempt) = (settlement.job_id, settlement.attempt);
    let Some(number) = state
        .server
        .number_of_call(job, attempt)
        .filter(|_| is_stored)
    else {
        return Ok(());
    };
    if let Next::Completed { response } = &settlement.next
        && !response.text().contains(&format!("\"a{number}\""))
    {
        return Err(format!(
            "{who}: it is completed with the answer to another call"
        ));
    }
    let call = &state.server.calls[number];
    if !call.is_told {
        return Ok(());
    }
    let row = &settlement.call;
    if call.is_cut && row.outcome == CallOutcome::Completed {
        return Err(format!(
            "{who}: a reader heard that it broke off, and it is completed"
        ));
    }
    state.tally.streams_cut += u64::from(row.outcome != CallOutcome::Completed);
    if row.outcome == CallOutcome::Failed
        && matches!(settlement.next, Next::Retry { .. } | Next::Parked { .. })
    {
        return Err(format!(
            "{who}: it is tried again after somebody may have read of it"
        ));
    }
    let is_booked = row.maybe_billed || row.usage.total_tokens > 0;
    if row.outcome != CallOutcome::Completed && !is_booked {
        return Err(format!(
            "{who}: somebody may have read of it, and nothing is booked"
        ));
    }
    Ok(())
}

/// How a reading went.
enum Reading {
    /// There was nothing to read.
    Nothing,
    /// He left in the middle.
    Left(usize),
    /// He read all that there was to it.
    Over,
}

impl Client {
    /// Somebody reads a job's answer, at his own pace; he may leave in the middle and come back.
    pub(crate) async fn read(self, job: JobId, mut dice: Dice) {
        // A relay wakes several readers in an order that nobody draws.
        if !self.sim.lock().read.insert(job) {
            return;
        }
        for visit in 0..4 {
            let leaves_after = dice.one_in(2).then(|| dice.between(1, 8) as usize);
            let pace_ms = *dice.pick(&[0, 0, 20, 300, 4_000]);
            match self.reads(job, leaves_after, pace_ms).await {
                Reading::Nothing => break,
                Reading::Left(pieces) => {
                    let mut state = self.sim.lock();
                    state.tally.readers_left += 1;
                    state.tally.readers_back += u64::from(visit > 0);
                    state.note(|| {
                        format!(
                            "a reader of job {} leaves after {pieces} pieces",
                            short(job)
                        )
                    });
                }
                Reading::Over => {
                    self.sim.lock().tally.readers_back += u64::from(visit > 0);
                    if !dice.one_in(3) {
                        break;
                    }
                }
            }
            sleep(Duration::from_millis(dice.between(0, 20_000))).await;
        }
        self.sim.lock().read.remove(&job);
    }

    async fn reads(&self, job: JobId, leaves_after: Option<usize>, pace_ms: u64) -> Reading {
        let mut reader = self.relays.to_read(job).reader();
        let head = tokio::select! {
            biased;
            head = reader.head() => head,
            () = self.ended(job) => None,
            () = sleep(Duration::from_secs(300)) => None,
        };
        let Some(head) = head else {
            return Reading::Nothing;
        };
        let mut told = 0;
        loop {
            if leaves_after == Some(told) {
                return Reading::Left(told);
            }
            let Ok(next) = timeout(PATIENCE, reader.next()).await else {
                let who = short(job);
                self.sim
                    .violated(format!("a reader of job {who} waits for ever"));
                return Reading::Over;
            };
            let is_over = next.is_err();
            if let Err(what) = self.hears(job, &head, told, next) {
                let who = format!("a reader of attempt {} of job {}", head.attempt, short(job));
                self.sim.violated(format!("{who}: {what}"));
            }
            if is_over {
                return Reading::Over;
            }
            told += 1;
            sleep(Duration::from_millis(pace_ms)).await;
        }
    }

    /// What a reader is told is what GLM has said, from the first piece on.
    fn hears(
        &self,
        job: JobId,
        head: &RelayHead,
        told: usize,
        next: Result<Bytes, RelayEnd>,
    ) -> Result<(), String> {
        let mut state = self.sim.lock();
        let Some(number) = state.server.number_of_call(job, head.attempt) else {
            return Err("it was never made".to_owned());
        };
        let call = &state.server.calls[number];
        let pieces = &call.plan.pieces;
        let is_answer = matches!(call.plan.end, End::Answer(_));
        match next {
            Ok(piece) if pieces.get(told) != Some(&piece) => {
                Err(format!("piece {told} is not what GLM said: {piece:.80?}"))
            }
            Ok(_) => Ok(()),
            Err(RelayEnd::Whole) if told < pieces.len() || !is_answer => Err(format!(
                "it is whole after {told} pieces of {}",
                pieces.len()
            )),
            Err(RelayEnd::Whole) => {
                state.tally.read_whole += 1;
                Ok(())
            }
            Err(RelayEnd::Cut(_)) => {
                state.tally.read_in_part += 1;
                state.server.calls[number].is_cut = true;
                let row = state.ledger.calls.get(&(job, head.attempt));
                let is_completed = |outcome| outcome == CallOutcome::Completed;
                match row.is_some_and(|row| is_completed(row.outcome)) {
                    true => Err("it was cut, and its job is completed with it".to_owned()),
                    false => Ok(()),
                }
            }
        }
    }

    /// Waits for the end of a job, as whoever follows its stream does.
    async fn ended(&self, job_id: JobId) {
        while let Some(refs) = self.refs().await {
            let (port, answer) = oneshot::channel();
            let _ = refs.queue.cast(QueueMsg::Wait {
                job_id,
                early: false,
                reply: port.into(),
            });
            if answer.await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}
