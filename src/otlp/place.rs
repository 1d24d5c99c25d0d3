//! Where the spans of a job are in a trace. All of it follows from the job's id and the context that it came with, so that
//! whoever asks, before a restart or after it, finds the same.

use onelane_core::model::{AttemptNo, JobId, Timestamp, TraceContext, TraceOrigin};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};
use sha2::{Digest as _, Sha256};

use super::settings::{OtlpSection, Sampler as Chosen};

/// A span of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// It was put on disk.
    Submit,
    /// It waited for this attempt.
    Wait(AttemptNo),
    /// It waited, and ended at this moment without another attempt.
    LastWait(Timestamp),
    /// This attempt, from its sending to its end.
    Attempt(AttemptNo),
    /// The call that the attempt made.
    Call(AttemptNo),
}

impl Span {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Wait(_) | Self::LastWait(_) => "wait",
            Self::Attempt(_) => "attempt",
            Self::Call(_) => "call",
        }
    }

    /// What tells it from others of its name.
    fn number(self) -> i64 {
        match self {
            Self::Submit => 0,
            Self::Wait(no) | Self::Attempt(no) | Self::Call(no) => no.0.into(),
            Self::LastWait(at) => at.as_millis(),
        }
    }
}

/// The place of a job in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    job: JobId,
    /// The trace, with the submission as its span.
    own: TraceContext,
    /// The span above the submission.
    pub(super) parent: Option<TraceContext>,
    /// The span that began the trace without being a part of it.
    pub(super) link: Option<TraceContext>,
}

impl Place {
    /// The place of a job that came with this context. The sampler says whether it is recorded.
    pub(super) fn of(job: JobId, origin: Option<&TraceOrigin>, sampler: &Sampler) -> Self {
        let (parent, link) = match origin {
            Some(TraceOrigin::Parent(parent)) => (Some(parent.clone()), None),
            Some(TraceOrigin::Link(link)) => (None, Some(link.clone())),
            None => (None, None),
        };
        let trace_id = match &parent {
            Some(parent) => parent.trace_id(),
            None => digest(&[b"onelane trace", job.as_bytes()]),
        };
        let above = parent
            .as_ref()
            .map(|parent| Context::new().with_remote_span_context(span_context(parent, true)));
        let id = TraceId::from_bytes(trace_id);
        let asked =
            sampler.should_sample(above.as_ref(), id, "submit", &SpanKind::Producer, &[], &[]);
        let is_sampled = asked.decision == SamplingDecision::RecordAndSample;
        let span_id = span_id(job, Span::Submit);
        let own = match &parent {
            Some(parent) => parent.at(span_id, is_sampled),
            None => TraceContext::new(trace_id, span_id, is_sampled),
        };
        Self {
            job,
            own,
            parent,
            link,
        }
    }

    /// Whether the spans are exported.
    pub(super) fn is_sampled(&self) -> bool {
        self.own.is_sampled()
    }

    /// A span, as its children are told of it.
    pub(super) fn context(&self, span: Span) -> TraceContext {
        self.own.at(span_id(self.job, span), self.is_sampled())
    }
}

/// The same in the words of OpenTelemetry's library.
pub(super) fn span_context(context: &TraceContext, is_remote: bool) -> SpanContext {
    let flags = match context.is_sampled() {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    let state: Option<TraceState> = context.state().and_then(|state| state.parse().ok());
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        flags,
        is_remote,
        state.unwrap_or_default(),
    )
}

/// OpenTelemetry's sampler of the configured name.
pub(super) fn sampler_of(section: &OtlpSection) -> Sampler {
    let ratio = || Sampler::TraceIdRatioBased(section.sampling_ratio);
    let by_parent = |root: Sampler| Sampler::ParentBased(Box::new(root));
    match section.sampler {
        Chosen::AlwaysOn => Sampler::AlwaysOn,
        Chosen::AlwaysOff => Sampler::AlwaysOff,
        Chosen::Traceidratio => ratio(),
        Chosen::ParentbasedAlwaysOn => by_parent(Sampler::AlwaysOn),
        Chosen::ParentbasedAlwaysOff => by_parent(Sampler::AlwaysOff),
        Chosen::ParentbasedTraceidratio => by_parent(ratio()),
    }
}

fn span_id(job: JobId, span: Span) -> [u8; 8] {
    let (name, no) = (span.name().as_bytes(), span.number().to_be_bytes());
    digest(&[b"onelane span", job.as_bytes(), name, &no])
}

/// The beginning of a digest: as good as random, which samplers count on, and never all zeros, which is no id.
fn digest<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut id = [0; N];
    for (to, from) in id.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    if id.iter().all(|byte| *byte == 0)
        && let Some(last) = id.last_mut()
    {
        *last = 1;
    }
    id
}

#[cfg(test)]
mod tests {
    use onelane_core::testing::sample;

    use super::*;

    fn parent(is_sampled: bool) -> TraceOrigin {
        TraceOrigin::Parent(TraceContext::new([7; 16], [8; 8], is_sampled))
    }

    fn section(sampler: Chosen, sampling_ratio: f64) -> OtlpSection {
        OtlpSection {
            sampler,
            sampling_ratio,
            ..OtlpSection::default()
        }
    }

    #[test]
    fn a_job_finds_its_place_again_and_no_other_job_has_it() {
        let sampler = sampler_of(&OtlpSection::default());
        let of = |n| Place::of(sample::job_id(n), None, &sampler);
        assert_eq!(of(1), of(1));
        let mut all: Vec<_> = [
            Span::Submit,
            Span::Wait(AttemptNo(1)),
            Span::Attempt(AttemptNo(1)),
            Span::Call(AttemptNo(1)),
            Span::Call(AttemptNo(2)),
        ]
        .into_iter()
        .flat_map(|span| [of(1).context(span), of(2).context(span)])
        .map(|context| context.span_id())
        .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
        assert_ne!(of(1).own.trace_id(), of(2).own.trace_id());
    }

    #[test]
    fn a_submitters_span_is_gone_on_from_and_one_that_is_linked_is_not() {
        let sampler = sampler_of(&OtlpSection::default());
        let origin = parent(true);
        let place = Place::of(sample::job_id(1), Some(&origin), &sampler);
        assert_eq!(place.own.trace_id(), [7; 16]);
        assert_eq!(place.parent.unwrap().span_id(), [8; 8]);
        let link = TraceOrigin::Link(TraceContext::new([7; 16], [8; 8], true));
        let place = Place::of(sample::job_id(1), Some(&link), &sampler);
        assert_ne!(place.own.trace_id(), [7; 16]);
        assert_eq!(
            (place.parent, place.link.unwrap().span_id()),
            (None, [8; 8])
        );
    }

    #[test]
    fn the_sampler_and_the_submitter_say_what_is_exported() {
        let check = |chosen, ratio, origin: Option<TraceOrigin>, want| {
            let sampler = sampler_of(&section(chosen, ratio));
            let place = Place::of(sample::job_id(1), origin.as_ref(), &sampler);
            assert_eq!(place.is_sampled(), want, "{chosen:?} {ratio} {origin:?}");
            assert_eq!(place.context(Span::Call(AttemptNo(1))).is_sampled(), want);
        };
        check(Chosen::AlwaysOn, 0.0, Some(parent(false)), true);
        check(Chosen::AlwaysOff, 1.0, Some(parent(true)), false);
        check(Chosen::ParentbasedAlwaysOn, 0.0, None, true);
        check(Chosen::ParentbasedAlwaysOn, 0.0, Some(parent(false)), false);
        check(Chosen::ParentbasedAlwaysOff, 1.0, None, false);
        check(Chosen::ParentbasedAlwaysOff, 0.0, Some(parent(true)), true);
        check(Chosen::ParentbasedTraceidratio, 0.0, None, false);
        check(
            Chosen::ParentbasedTraceidratio,
            0.0,
            Some(parent(true)),
            true,
        );
        check(Chosen::Traceidratio, 1.0, Some(parent(false)), true);
    }

    #[test]
    fn a_share_of_the_jobs_is_sampled() {
        let sampler = sampler_of(&section(Chosen::ParentbasedTraceidratio, 0.25));
        let jobs = 1_000;
        let is_sampled = |n: &u64| Place::of(sample::job_id(*n), None, &sampler).is_sampled();
        let sampled = (0..jobs).filter(is_sampled).count();
        assert!((150..350).contains(&sampled), "{sampled}");
    }
}
