//! Folders that dhow writes to, and ports that it listens on.

use super::Check;
use crate::{hosts, process, serve, text};
use dhow_engine::Cache;
use dhow_resources::manifest::HostConfig;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Less than this on the disk of a state store is soon nothing.
const LITTLE_SPACE: u64 = 256 << 20;

pub(super) fn checks(config: &HostConfig) -> Vec<Check> {
    let mut checks = vec![cache(), data_folder(&config.data_dir), host_list()];
    let ports = [
        ("port for apps", Some(config.addr)),
        ("port for the Dapr API", config.api_addr),
        ("port for metrics", config.management_addr),
    ];
    for (name, addr) in ports {
        checks.extend(addr.map(|addr| port(name, addr)));
    }
    checks
}

fn cache() -> Check {
    let name = "compile cache";
    let folder = serve::cache_dir();
    match Cache::open(&folder, Cache::DEFAULT_MAX_BYTES) {
        Ok(_) => Check::ok(name, folder.display().to_string()),
        Err(error) => Check::note(name, error.to_string(), "without it every start compiles anew"),
    }
}

fn data_folder(folder: &Path) -> Check {
    let name = "data folder";
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    // The folder itself is made by the first host.
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if let Err(error) = try_to_write(existing) {
        let found = format!("{} cannot be written to: {error}", existing.display());
        return Check::missing(name, found, "set `data_dir` under [host], or pass --data-dir");
    }
    match process::free_space(existing) {
        Ok(free) if free < LITTLE_SPACE => Check::note(
            name,
            format!("{}, only {} free", absolute.display(), text::size(free)),
            "state is lost for nobody, and writing fails when the disk is full: make room",
        ),
        Ok(free) => Check::ok(name, format!("{}, {} free", absolute.display(), text::size(free))),
        Err(error) => Check::note(name, format!("{}: {error}", absolute.display()), ""),
    }
}

fn try_to_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".dhow-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)
}

fn host_list() -> Check {
    let name = "list of running hosts";
    match hosts::control_socket_path(std::process::id()) {
        Ok(path) => Check::ok(name, path.parent().unwrap_or(&path).display().to_string()),
        Err(error) => Check::note(name, error.to_string(), "`dhow ps`, `logs`, `invoke` and `stop` need it"),
    }
}

fn port(name: &'static str, addr: SocketAddr) -> Check {
    match TcpListener::bind(addr) {
        Ok(_) => Check::ok(name, format!("{addr} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let owner = owner(addr).map(|owner| format!(" by {owner}")).unwrap_or_default();
            Check::note(
                name,
                format!("{addr} is taken{owner}"),
                "stop it, or choose another one under [host]",
            )
        }
        Err(error) => Check::note(name, format!("{addr}: {error}"), "choose another address under [host]"),
    }
}

/// Who listens there: a dhow host, or any process that this user may look at.
fn owner(addr: SocketAddr) -> Option<String> {
    let hosts = hosts::list().unwrap_or_default();
    let is_it = |host: &&hosts::HostInfo| {
        [host.addr, host.api_addr, host.management_addr]
            .iter()
            .flatten()
            .any(|taken| taken.port() == addr.port())
    };
    if let Some(host) = hosts.iter().find(is_it) {
        return Some(format!("host {} ({})", host.name, host.pid));
    }
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, addr.port()))?;
    let pid = process_with(&format!("socket:[{inode}]"))?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} ({pid})", text::printable(program.trim())))
}

/// The socket that listens on a port (`man 5 proc_pid_net`): address in field 2, state in 4, inode in 10.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(hex, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
        if is_it { fields.get(9)?.parse().ok() } else { None }
    })
}

fn process_with(open_file: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let has = open.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == open_file));
        has.then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::{listening_inode, process_with};
    use std::net::TcpListener;

    #[test]
    fn who_has_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = listening_inode(&table, port).unwrap();
        assert_eq!(process_with(&format!("socket:[{inode}]")), Some(std::process::id()));
        drop(listener);
        assert_eq!(process_with("socket:[0]"), None);
        assert_eq!(listening_inode("header\nnonsense\n", port), None);
    }
}
