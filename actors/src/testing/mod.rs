//! What tests of the lane, and of programs that embed it, put in place of the world: a store in
//! memory with crash points, the contract that every store keeps, and sample jobs.

pub mod contract;
pub mod sample;

mod memory_store;

pub use memory_store::{CommitFate, MemoryStore};
