//! Which hosts of this user run: one small file each in a private folder.
//!
//! A host announces itself with [`announce`]; the file and its socket go when the guard does. A host that
//! was killed leaves them behind, and whoever lists the hosts next clears them away.

use crate::error::{Context, Error};
use crate::{folders, process};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest path that fits into a Unix socket address (`man 7 unix`), without the NUL.
const MAX_SOCKET_PATH: usize = 107;

/// What is known of a running host without asking it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostInfo {
    /// Its process.
    pub(crate) pid: u32,
    /// Tells that process from a later one with the same pid.
    pub(crate) identity: String,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// `run` or `up`.
    pub(crate) command: String,
    /// The manifest's folder, or the module.
    pub(crate) name: String,
    /// Where its embedded providers keep their files.
    pub(crate) data_dir: PathBuf,
    /// Its control socket.
    pub(crate) control: PathBuf,
    /// Where apps are served; none for a command.
    pub(crate) addr: Option<SocketAddr>,
    /// Where the Dapr API is served.
    pub(crate) api_addr: Option<SocketAddr>,
    /// Where metrics and health are served.
    pub(crate) management_addr: Option<SocketAddr>,
    /// Where the Dapr API is served over gRPC.
    #[serde(default)]
    pub(crate) grpc_addr: Option<SocketAddr>,
    /// Where the program beside it listens.
    #[serde(default)]
    pub(crate) app_port: Option<u16>,
    /// The program beside it, with its arguments.
    #[serde(default)]
    pub(crate) program: Vec<String>,
}

/// Keeps the host in the list; dropped when the host ends.
#[derive(Debug)]
#[must_use = "the host leaves the list when this is dropped"]
pub(crate) struct Announced {
    file: PathBuf,
    control: PathBuf,
}

/// Where the control socket of the next host of this process is to be: in the list's folder if the path is short
/// enough, else in this user's folder below `/tmp`. The first host is named by the process alone.
pub(crate) fn control_socket_path(pid: u32) -> Result<PathBuf, Error> {
    let folder = list_folder()?;
    let mut name = format!("{pid}.sock");
    let mut next = 2;
    while folder.join(&name).with_extension("json").exists() {
        name = format!("{pid}-{next}.sock");
        next += 1;
    }
    let socket = folder.join(&name);
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(socket);
    }
    let folder = folders::temporary();
    folders::make_private(&folder)?;
    Ok(folder.join(name))
}

/// Puts a host into the list, under the name of its control socket.
pub(crate) fn announce(info: HostInfo) -> Result<Announced, Error> {
    let file = list_folder()?.join(info.entry());
    let json = serde_json::to_vec_pretty(&info)?;
    write_whole(&file, &json).context(|| format!("cannot write {}", file.display()))?;
    Ok(Announced { file, control: info.control })
}

/// All hosts that run, oldest first. What dead ones left behind is removed.
pub(crate) fn list() -> Result<Vec<HostInfo>, Error> {
    let mut hosts = Vec::new();
    for folder in candidates() {
        if !folder.exists() {
            continue;
        }
        // A file here says where to connect to: it must be our own. Anybody can make a folder below /tmp, and
        // that must not keep us from the other one.
        let parent = folder.parent().unwrap_or(&folder);
        if let Err(error) = folders::check_private(parent).and_then(|()| folders::check_private(&folder)) {
            tracing::warn!("hosts listed in {} are passed over: {error}", folder.display());
            continue;
        }
        let entries =
            fs::read_dir(&folder).context(|| format!("cannot read the folder {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                hosts.extend(read(&path));
            }
        }
    }
    hosts.sort_by_key(|host: &HostInfo| (host.started_at, host.pid));
    Ok(hosts)
}

/// The host of that name or pid; without one, the only host there is.
pub(crate) fn select(wanted: Option<&str>) -> Result<HostInfo, Error> {
    choose(list()?, wanted)
}

fn choose(mut hosts: Vec<HostInfo>, wanted: Option<&str>) -> Result<HostInfo, Error> {
    let choices = describe(&hosts);
    if let Some(wanted) = wanted {
        hosts.retain(|host| host.name == wanted || host.pid.to_string() == wanted);
    }
    match (hosts.len(), wanted) {
        (1, _) => Ok(hosts.swap_remove(0)),
        (0, _) if choices.is_empty() => Err(none_runs()),
        (0, wanted) => Err(Error::new(format!(
            "no host {} is running; there are:{choices}",
            wanted.map(|wanted| format!("{wanted:?}")).unwrap_or_default()
        ))),
        (_, None) => Err(Error::usage(format!(
            "several hosts are running; say which one with --host, by name or pid:{choices}"
        ))),
        (_, Some(wanted)) => Err(Error::usage(format!(
            "several hosts have the name {wanted:?}; say which one by its pid:{}",
            describe(&hosts)
        ))),
    }
}

/// No host to speak with.
pub(crate) fn none_runs() -> Error {
    Error::new("no host is running; start one with `dhow up` or `dhow run`")
}

/// One line a host, for errors that ask for a choice.
pub(crate) fn describe(hosts: &[HostInfo]) -> String {
    hosts.iter().map(|host| format!("\n  {:>7}  {} ({})", host.pid, host.name, host.command)).collect()
}

// === impl HostInfo ===

impl HostInfo {
    /// This process as a host; the control socket and addresses are still to be filled in.
    pub(crate) fn new(command: &str, name: &str, data_dir: &Path) -> HostInfo {
        let pid = std::process::id();
        HostInfo {
            pid,
            identity: process::identity(pid).unwrap_or_default(),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            command: command.to_owned(),
            name: name.to_owned(),
            data_dir: std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()),
            control: PathBuf::new(),
            addr: None,
            api_addr: None,
            management_addr: None,
            grpc_addr: None,
            app_port: None,
            program: Vec::new(),
        }
    }

    /// With the address where apps are served.
    pub(crate) fn with_addr(self, addr: SocketAddr) -> HostInfo {
        HostInfo { addr: Some(addr), ..self }
    }

    /// With the address of the Dapr API, if it is served.
    pub(crate) fn with_api_addr(self, api_addr: Option<SocketAddr>) -> HostInfo {
        HostInfo { api_addr, ..self }
    }

    /// With the address of metrics and health, if they are served.
    pub(crate) fn with_management_addr(self, management_addr: Option<SocketAddr>) -> HostInfo {
        HostInfo { management_addr, ..self }
    }

    /// With what only a host beside a program has.
    pub(crate) fn with_program(
        self,
        grpc_addr: Option<SocketAddr>,
        app_port: Option<u16>,
        program: &[String],
    ) -> HostInfo {
        HostInfo { grpc_addr, app_port, program: program.to_vec(), ..self }
    }

    /// The name of its file in the list.
    fn entry(&self) -> PathBuf {
        let name = self.control.file_name().map(PathBuf::from);
        name.unwrap_or_else(|| self.pid.to_string().into()).with_extension("json")
    }

    /// Whether it is in the list: not any more when it has ended, while other hosts of its process may go on.
    pub(crate) fn is_listed(&self) -> bool {
        candidates().iter().any(|folder| folder.join(self.entry()).exists())
    }

    /// Whether its process still runs. Where `/proc` cannot be read, an entry is believed.
    pub(crate) fn is_running(&self) -> bool {
        self.identity.is_empty() || process::identity(self.pid).as_deref() == Some(&self.identity)
    }

    /// Clears away what a host left behind that could not do so itself.
    pub(crate) fn remove(&self) {
        for folder in candidates() {
            let _ = fs::remove_file(folder.join(self.entry()));
        }
        let _ = fs::remove_file(&self.control);
    }
}

// === impl Announced ===

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.control);
    }
}

/// Where a list may be, the usual place first. A container often has no home, or one that is read-only.
fn candidates() -> Vec<PathBuf> {
    folders::hosts().into_iter().chain([folders::temporary().join("hosts")]).collect()
}

/// The first folder that can be used for a new entry.
fn list_folder() -> Result<PathBuf, Error> {
    let mut result = Err(none_runs());
    for folder in candidates() {
        result = match folder.parent() {
            Some(parent) => folders::make_private(parent).and_then(|()| folders::make_private(&folder)),
            None => folders::make_private(&folder),
        }
        .map(|()| folder);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// One entry, if its host runs. An unreadable one is from another version or half of a full disk.
fn read(path: &Path) -> Option<HostInfo> {
    let text = fs::read(path).ok()?;
    let Ok(host) = serde_json::from_slice::<HostInfo>(&text) else {
        tracing::debug!("{} is not an entry of a host", path.display());
        return None;
    };
    if host.is_running() {
        return Some(host);
    }
    // Only beside the entry: a socket elsewhere may be anybody's.
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(path.with_extension("sock"));
    if let Some(name) = path.with_extension("sock").file_name() {
        let _ = fs::remove_file(folders::temporary().join(name));
    }
    None
}

/// Readers see the whole file or none.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::{HostInfo, choose, read, write_whole};
    use crate::process;

    fn host(pid: u32, name: &str) -> HostInfo {
        HostInfo {
            pid,
            identity: String::new(),
            started_at: 1,
            command: "up".into(),
            name: name.into(),
            data_dir: ".dhow".into(),
            control: format!("/tmp/{pid}.sock").into(),
            addr: Some(([127, 0, 0, 1], 8080).into()),
            api_addr: None,
            management_addr: None,
            grpc_addr: None,
            app_port: None,
            program: Vec::new(),
        }
    }

    #[test]
    fn a_host_is_chosen_by_name_or_pid_or_being_alone() {
        let hosts = || vec![host(10, "shop"), host(11, "shop"), host(12, "bank")];
        let cases = [
            (hosts(), Some("bank"), Ok(12)),
            (hosts(), Some("11"), Ok(11)),
            (hosts(), Some("shop"), Err("several hosts have the name \"shop\"")),
            (hosts(), Some("x"), Err("no host \"x\" is running; there are:")),
            (hosts(), None, Err("several hosts are running")),
            (vec![host(12, "bank")], None, Ok(12)),
            (vec![], None, Err("start one with `dhow up`")),
            (vec![], Some("bank"), Err("start one with `dhow up`")),
        ];
        for (hosts, wanted, expected) in cases {
            match (choose(hosts, wanted), expected) {
                (Ok(host), Ok(pid)) => assert_eq!(host.pid, pid, "{wanted:?}"),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{wanted:?}: {error}"),
                (found, _) => panic!("{wanted:?}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn entries_of_dead_hosts_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let cases = [(process::identity(pid).unwrap(), true), ("another boot:1".to_owned(), false)];
        for (identity, runs) in cases {
            let path = folder.path().join(format!("{pid}.json"));
            let info = HostInfo { identity, ..host(pid, "shop") };
            write_whole(&path, &serde_json::to_vec(&info).unwrap()).unwrap();
            assert_eq!(read(&path), runs.then_some(info));
            assert_eq!(path.exists(), runs);
        }
        let junk = folder.path().join("1.json");
        std::fs::write(&junk, "{").unwrap();
        assert_eq!(read(&junk), None);
    }
}
