//! The promises of onelane, a module each, on the real thing: redb files, HTTP, processes. What
//! only concerns the lane itself runs on virtual time with a scripted GLM.

mod acceptance;
mod chaos;
mod control;
mod failures;
mod jobs;
mod order;
mod restarts;
mod supervision;
mod support;
