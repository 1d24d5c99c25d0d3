//! An exhaustive checker of the shipped decision machine: [`onelane_core::scheduler::Scheduler`], the breaker, the
//! judge and the rows of a store are driven as the actors drive them, through every order of what may happen.

mod bugs;
mod disk;
mod explore;
mod plan;
mod seen;
mod step;
mod world;

pub(crate) use bugs::Bug;
pub(crate) use explore::{Order, explore};
pub(crate) use plan::{Fault, Plan};
