//! What jobs may cost, told before they are submitted: their prompts counted by GLM's tokenizer, their
//! answers as long as they may get, at the prices in force. Nothing here needs a lane, a key or a store.

#[cfg(feature = "estimate")]
mod job;
#[cfg(feature = "estimate")]
mod tokenizer;
#[cfg(feature = "estimate")]
mod vocabulary;

#[cfg(feature = "estimate")]
pub use job::{CostRange, History, JobEstimate, Total, TotalForecast, of};
pub use onelane_core::money::estimate::{CountTokens, Estimate, Rough, completion_cap};
#[cfg(feature = "estimate")]
pub use tokenizer::GlmTokenizer;
