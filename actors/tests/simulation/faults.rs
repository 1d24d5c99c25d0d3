//! What goes wrong in a world, and where.

/// Where a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before a transaction is on disk.
    BeforeCommit,
    /// After it is, before anybody hears of it.
    AfterCommit,
    /// When a call has just begun.
    CallBegun,
    /// When a call has just ended, before anybody hears of it.
    CallEnded,
    /// When an actor takes a message.
    Message,
}

pub(crate) const PLACES: [Place; 5] = [
    Place::BeforeCommit,
    Place::AfterCommit,
    Place::CallBegun,
    Place::CallEnded,
    Place::Message,
];

/// What is on disk after a commit that reports an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Kept,
}

/// What will go wrong, each after so many chances.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    pub(crate) kill: Option<(Place, u64)>,
    pub(crate) panic: Option<(&'static str, u64)>,
    pub(crate) disk: Option<(Fate, u64)>,
}

/// A fault of the world's own, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Planted {
    #[default]
    Nothing,
    /// Of two jobs that come in with one transaction the disk loses the second.
    LosesTheSecond,
    /// A stream tells its second piece twice.
    TellsTwice,
}
