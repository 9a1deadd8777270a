//! MySQL and MariaDB: state, and a binding.
//!
//! | file | subject |
//! |---|---|
//! | `dsn` | data source names, as Go's driver reads them |
//! | `database` | statements and transactions on pooled connections, each with a deadline |
//! | `error` | what the server's errors mean to a caller |
//! | `schema` | the database and tables of the state store |
//! | `state` | the state store |
//! | `statements` | its SQL |
//! | `binding` | any statement |
//! | `row` | rows of any type as JSON |

pub(crate) mod binding;
mod database;
mod dsn;
mod error;
mod row;
mod schema;
pub(crate) mod state;
mod statements;
