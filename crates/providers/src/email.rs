//! E-mail: a mail server.

mod session;
pub mod smtp;
