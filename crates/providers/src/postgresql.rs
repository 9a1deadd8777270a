//! PostgreSQL: state in both of Dapr's forms, configuration, and a binding.
//!
//! | file | subject |
//! |---|---|
//! | `connection_string` | libpq's connection strings |
//! | `tls` | what a connection's `sslmode` asks for |
//! | `connection` | one connection, and when it is over |
//! | `database` | statements and transactions on pooled connections, each with a deadline |
//! | `error` | what the server's errors mean to a caller |
//! | `options` | Dapr's metadata fields |
//! | `table` | names of tables, keys as the server can hold them, ranges of keys |
//! | `migration` | creating tables while others do the same |
//! | `state` | the state store |
//! | `version1`, `version2` | the two forms of its table |
//! | `query` | Dapr's query language as SQL |
//! | `configuration` | values, and notifications of their changes |
//! | `binding` | any statement |
//! | `row` | rows of any type as JSON |

pub(crate) mod binding;
pub(crate) mod configuration;
mod connection;
mod connection_string;
mod database;
mod error;
mod migration;
mod options;
mod query;
mod row;
pub(crate) mod state;
mod table;
mod tls;
mod version1;
mod version2;
