//! What the tests of views, and of the API, look at.

pub(crate) mod sample;
