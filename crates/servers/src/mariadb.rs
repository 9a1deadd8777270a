//! MariaDB. What it answered survives a kill of the server, though not of the machine: nothing waits for the disk.

use crate::process::io_failed;
use crate::{Process, StartError};
use std::fs;

/// Starts a MariaDB server: user `dhow`, password `secret`, may do everything.
pub fn mariadb() -> Result<Process, StartError> {
    let mut server = Process::prepare("MariaDB", &["mariadbd", "mysqld"], "mariadb-server")?;
    server.never_as_root()?;
    let folder = server.folder().to_string_lossy().into_owned();
    let data = format!("--datadir={folder}/data");
    let init = format!("{folder}/init.sql");
    let grant = "CREATE USER IF NOT EXISTS dhow@'%' IDENTIFIED BY 'secret';\n\
                 GRANT ALL ON *.* TO dhow@'%' WITH GRANT OPTION;\n";
    fs::write(&init, grant).map_err(|error| io_failed("MariaDB", &error))?;
    let create = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data];
    server.prepare_folder("mariadb-install-db", &create)?;
    let port = format!("--port={}", server.port());
    let files = [format!("--socket={folder}/socket"), format!("--pid-file={folder}/pid")];
    let files = [files[0].as_str(), &files[1], &data, "--tmpdir=."];
    let network = ["--bind-address=127.0.0.1", &port, "--skip-name-resolve"];
    let init = format!("--init-file={init}");
    let own = ["--no-defaults", &init, "--innodb-flush-log-at-trx-commit=2", "--max-connections=200"];
    // With --no-defaults first, as the server wants it.
    server.args([&own[..], &files, &network].concat().into_iter().map(str::to_owned).collect::<Vec<_>>());
    server.start()?;
    Ok(server)
}
