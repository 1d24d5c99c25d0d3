//! What a setting is. The struct that has it as a field says once what it means, takes and is by default
//! ([`section!`](crate::section)); its names in `config.toml` and in the admin API, the schema, the papers,
//! reading and writing are made from that.

mod kind;
mod path;
mod problem;
mod section;

pub use kind::{
    Kind, RowsCheck, Secrets, Setting, TextCheck, Unit, float_problem, mismatch, named, plain,
    quoted, words,
};
pub use path::{KeyPath, Step, spelled};
pub use problem::{Problem, SettingsError};
pub use section::{Bounds, Field, Group, Place};
