//! How registries are spoken with: what a user says with flags and variables.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::{env, fs};

/// How registries are spoken with. The default trusts the system's authorities, speaks HTTPS only, and keeps what it
/// downloads where [`Places::of_user`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// Registries (host and port, as in references) that are spoken with over plain HTTP.
    pub insecure: Vec<String>,
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Use only what was downloaded before.
    pub offline: bool,
    /// A PEM file with the public key of whoever must have signed what is pulled.
    pub cosign_key: Option<PathBuf>,
    /// Where downloads and credentials are, unless in the user's usual places.
    pub places: Option<Places>,
}

/// Where downloads and credentials are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Places {
    /// Folder of what was downloaded.
    pub downloads: PathBuf,
    /// Files with credentials, as Docker and Podman write them; the first that knows a registry wins. They need not be
    /// there.
    pub credentials: Vec<PathBuf>,
    /// The one of them that new credentials are written to.
    pub login: Option<PathBuf>,
}

// === impl Access ===

impl Access {
    /// Where downloads and credentials are.
    pub fn places(&self) -> Places {
        self.places.clone().unwrap_or_else(Places::of_user)
    }

    /// Whether this registry is spoken with over plain HTTP.
    pub(crate) fn is_insecure(&self, registry: &str) -> bool {
        self.insecure.iter().any(|insecure| insecure.eq_ignore_ascii_case(registry))
    }
}

// === impl Places ===

impl Places {
    /// The usual places of this user. Downloads: `DHOW_ARTIFACTS_DIR`, else `dhow/artifacts` in the cache folder
    /// (`XDG_CACHE_HOME`, `~/.cache`). Credentials, in this order: the file `REGISTRY_AUTH_FILE`, `config.json` in
    /// `DOCKER_CONFIG`, and where neither is set `~/.docker/config.json` and those of Podman (containers-auth.json(5)).
    pub fn of_user() -> Places {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let below_home = |name: &str| Some(home.as_deref()?.join(name));
        let cache = || absolute("XDG_CACHE_HOME").or_else(|| below_home(".cache"));
        let downloads = path("DHOW_ARTIFACTS_DIR").or_else(|| Some(cache()?.join("dhow/artifacts")));
        let named: Vec<PathBuf> =
            [path("REGISTRY_AUTH_FILE"), path("DOCKER_CONFIG").map(|dir| dir.join("config.json"))]
                .into_iter()
                .flatten()
                .collect();
        let usual = || {
            let podman = |dir: Option<PathBuf>| dir.map(|dir| dir.join("containers/auth.json"));
            let config = absolute("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
            [below_home(".docker/config.json"), podman(absolute("XDG_RUNTIME_DIR")), podman(config)]
                .into_iter()
                .flatten()
                .collect()
        };
        let credentials = if named.is_empty() { usual() } else { named };
        Places {
            // Without a home: one for each user, since nobody else may write to it.
            downloads: downloads.unwrap_or_else(|| {
                // A process in /proc belongs to its user.
                let user =
                    fs::metadata("/proc/self").map_or_else(|_| String::new(), |me| me.uid().to_string());
                env::temp_dir().join(format!("dhow-artifacts-{user}"))
            }),
            login: credentials.first().cloned(),
            credentials,
        }
    }
}
