//! How fast bodies are taken in. What a machine can read off a socket takes its processors from the lane, so that all
//! large bodies together have a pace: a burst as fast as it comes, then so many bytes a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits;

/// Up to when the bytes that were taken in are paid for, at so many a second. A moment is what has passed since some
/// beginning.
#[derive(Debug, Default)]
struct Account {
    paid_at: Duration,
}

impl Account {
    /// Takes these bytes in. Answers how long whoever brought them waits before bringing more. Everybody waits for what
    /// was taken before their own, so that all who bring as much as they may get the same, and whoever brings little
    /// keeps nobody waiting.
    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        self.paid_at = self.paid_at.max(now) + time_of(bytes);
        let burst = time_of(limits::INTAKE_BURST_BYTES);
        self.paid_at.saturating_sub(now + burst)
    }
}

/// How long so many bytes take.
const fn time_of(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / limits::INTAKE_BYTES_PER_S)
}

/// What is taken in of all bodies.
#[derive(Debug)]
pub(super) struct Intake {
    began: Instant,
    account: Mutex<Account>,
}

impl Intake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            account: Mutex::default(),
        })
    }

    fn take(&self, bytes: u64) -> Duration {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.take(bytes, self.began.elapsed())
    }
}

/// What is taken in of one body.
#[derive(Debug)]
pub(super) struct Share {
    intake: Arc<Intake>,
    bytes: u64,
}

impl Share {
    pub(super) const fn of(intake: Arc<Intake>) -> Self {
        Self { intake, bytes: 0 }
    }

    /// Of what nobody wants: it counts from its first byte on.
    pub(super) const fn of_waste(intake: Arc<Intake>) -> Self {
        Self {
            intake,
            bytes: limits::INTAKE_FREE_BYTES + 1,
        }
    }

    /// These bytes have come. Answers how long no more are to be read: never while the body is small; one that is
    /// large counts whole.
    pub(super) fn take(&mut self, bytes: usize) -> Duration {
        let before = self.bytes;
        self.bytes += bytes as u64;
        if self.bytes <= limits::INTAKE_FREE_BYTES {
            return Duration::ZERO;
        }
        let counted = match before <= limits::INTAKE_FREE_BYTES {
            true => self.bytes,
            false => bytes as u64,
        };
        self.intake.take(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 64 * 1024;
    const SECOND: Duration = Duration::from_secs(1);

    /// Somebody who brings a chunk as soon as they may, after thinking for so long.
    struct Sender {
        next: Duration,
        thinks: Duration,
        sent: u64,
    }

    /// Lets them send for so long, and answers how much each got through.
    fn sent_in(time: Duration, thinks: &[Duration]) -> Vec<u64> {
        let mut account = Account::default();
        let sender = |thinks: &Duration| Sender {
            next: Duration::ZERO,
            thinks: *thinks,
            sent: 0,
        };
        let mut senders: Vec<Sender> = thinks.iter().map(sender).collect();
        loop {
            let next = senders.iter_mut().min_by_key(|sender| sender.next).unwrap();
            if next.next > time {
                return senders.iter().map(|sender| sender.sent).collect();
            }
            next.sent += CHUNK;
            next.next += account.take(CHUNK, next.next) + next.thinks;
        }
    }

    #[test]
    fn large_bodies_together_are_taken_in_at_a_pace_after_a_burst() {
        let most = |seconds: u64| limits::INTAKE_BURST_BYTES + seconds * limits::INTAKE_BYTES_PER_S;
        for senders in [1, 7, 100] {
            let tick = [Duration::from_micros(1)].repeat(senders);
            let sent: u64 = sent_in(3 * SECOND, &tick).iter().sum();
            // Each is let in with one chunk that is paid for afterwards.
            let above = senders as u64 * CHUNK;
            assert!(
                (most(3) - CHUNK..=most(3) + above).contains(&sent),
                "{sent} of {senders}"
            );
        }
    }

    #[test]
    fn what_was_not_used_is_there_later_and_no_more_than_a_burst_of_it() {
        let mut account = Account::default();
        let burst = limits::INTAKE_BURST_BYTES;
        assert_eq!(account.take(burst, Duration::ZERO), Duration::ZERO);
        let one_second = limits::INTAKE_BYTES_PER_S;
        assert_eq!(account.take(one_second, Duration::ZERO), SECOND);
        let later = 100 * SECOND;
        assert_eq!(account.take(burst, later), Duration::ZERO);
        assert_eq!(account.take(one_second / 2, later), SECOND / 2);
    }

    #[test]
    fn one_that_drips_holds_up_nobody_and_those_that_send_all_they_may_get_the_same() {
        let fast = Duration::from_micros(1);
        let mut thinks = vec![fast; 4];
        thinks.push(SECOND / 2);
        let sent = sent_in(10 * SECOND, &thinks);
        let (drips, fast) = sent.split_last().unwrap();
        let (least, most) = (fast.iter().min().unwrap(), fast.iter().max().unwrap());
        assert!(most - least <= 2 * CHUNK, "{sent:?}");
        let all = limits::INTAKE_BURST_BYTES + 10 * limits::INTAKE_BYTES_PER_S;
        assert!(fast.iter().sum::<u64>() + drips + CHUNK >= all, "{sent:?}");
        assert!((15..=21).contains(&(drips / CHUNK)), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_is_never_slowed_down_and_a_large_one_counts_whole() {
        let intake = Intake::new();
        let burst = usize::try_from(limits::INTAKE_BURST_BYTES).unwrap();
        let free = usize::try_from(limits::INTAKE_FREE_BYTES).unwrap();
        let mut large = Share::of(Arc::clone(&intake));
        assert_eq!(large.take(burst), Duration::ZERO);
        let mut small = Share::of(Arc::clone(&intake));
        assert_eq!(small.take(free), Duration::ZERO);
        assert_eq!(small.take(1), time_of(limits::INTAKE_FREE_BYTES + 1));
        let mut other = Share::of(Arc::clone(&intake));
        assert_eq!(other.take(free), Duration::ZERO);
        let mut waste = Share::of_waste(intake);
        assert!(waste.take(1) > time_of(limits::INTAKE_FREE_BYTES));
    }
}
