//! The command line of dhow.
fn main() {}
