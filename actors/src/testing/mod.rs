//! What tests of the lane, and of programs that embed it, put in place of the world: a store in
//! memory with crash points, the contract that every store keeps, a scripted GLM, a clock that
//! follows tokio's (virtual) time, seeded ids and chance, and sample jobs.

pub mod contract;
pub use onelane_core::testing::{sample, waits};

mod clock;
mod dice;
mod glm;
mod memory_store;

pub use clock::{SeededIds, SimClock};
pub use dice::Dice;
pub use glm::{CallKind, CallTrace, Line, ScriptedGlm, SubmissionLine, answer, failed, glm_call};
pub use memory_store::{CommitFate, MemoryStore, Written};
