//! PostgreSQL. What it answered survives a kill of the server, though not of the machine: nothing waits for the disk.

use crate::process::io_failed;
use crate::{Certificates, Process, StartError, TlsServer};
use std::fs;
use std::os::unix::fs::chown;

/// Programs of Debian's versions of the server, which are in no usual folder.
const PROGRAMS: [&str; 6] = [
    "postgres",
    "../lib/postgresql/18/bin/postgres",
    "../lib/postgresql/17/bin/postgres",
    "../lib/postgresql/16/bin/postgres",
    "../lib/postgresql/15/bin/postgres",
    "../lib/postgresql/14/bin/postgres",
];

/// Starts a PostgreSQL server: user and database `postgres`, password `secret`, also at a socket in its folder. It listens before it takes
/// statements: what comes at once may be told to come again (SQLSTATE 57P03).
pub fn postgres() -> Result<Process, StartError> {
    let mut server = create("host all all 127.0.0.1/32 scram-sha-256\nlocal all all scram-sha-256\n")?;
    start(&mut server, &[])?;
    Ok(server)
}

/// Starts a PostgreSQL server behind TLS; the login is the same.
pub fn postgres_with_tls() -> Result<TlsServer, StartError> {
    let mut process = create("hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n")?;
    let certificates = Certificates::make(process.folder())?;
    // The server takes no key that others can read.
    let user = process.user();
    chown(process.folder().join("key.pem"), user, user).map_err(|error| io_failed("PostgreSQL", &error))?;
    let files = ["ssl_ca_file=../ca.pem", "ssl_cert_file=../certificate.pem", "ssl_key_file=../key.pem"];
    start(&mut process, &["-c", "ssl=on", "-c", files[0], "-c", files[1], "-c", files[2]])?;
    Ok(TlsServer { process, certificates })
}

fn create(logins: &str) -> Result<Process, StartError> {
    let mut server = Process::prepare("PostgreSQL", &PROGRAMS, "postgresql")?;
    server.never_as_root()?;
    let folder = server.folder();
    let failed = |error| io_failed("PostgreSQL", &error);
    fs::write(folder.join("password"), "secret").map_err(failed)?;
    let create = ["--pgdata=data", "--username=postgres", "--pwfile=password", "--auth=scram-sha-256"];
    // A language whose order of letters is not that of bytes, as most servers have it.
    let text =
        ["--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8", "--no-sync"];
    server.prepare_folder("initdb", &[&create[..], &text].concat())?;
    fs::write(folder.join("data/pg_hba.conf"), logins).map_err(failed)?;
    Ok(server)
}

fn start(server: &mut Process, tls: &[&str]) -> Result<(), StartError> {
    let port = server.port().to_string();
    let own =
        ["-D", "data", "-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=."];
    // Deadlocks are found sooner than usual, because some tests want them.
    let limits = ["-c", "max_connections=200", "-c", "deadlock_timeout=100ms", "-c", "fsync=off"];
    server.args([&own[..], &limits, tls].concat().into_iter().map(str::to_owned).collect::<Vec<_>>());
    server.start()
}
