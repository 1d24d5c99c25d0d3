//! The `onelane` command.
fn main() {}
