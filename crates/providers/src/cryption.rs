//! Encryption with keys that stay here: keys of a file.

pub mod local;
