//! Who asks a NATS server, and how the server proves to be the right one: the same for components and for the queue of
//! workflows' steps.

use crate::tls::Tls;
use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use std::fmt;

/// Who asks, and whom to trust. Of several ways to say who asks, the first one of this list counts; none: nobody says
/// so, or the address does. Its `Debug` shows no secret.
#[derive(Clone, Default)]
pub struct Login {
    /// A user's JWT and seed, as `nsc` writes them into a file.
    pub credentials: Option<String>,
    /// The seed of a user's nkey (`SU…`).
    pub nkey: Option<String>,
    /// A user's name and password.
    pub user: Option<(String, String)>,
    /// A token.
    pub token: Option<String>,
    /// Whom to trust, and the client's own certificate.
    pub tls: Tls,
}

/// What a login cannot be used for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The credentials hold no JWT or no seed.
    #[error("expected a user's JWT and seed, as nsc writes them into a file of credentials")]
    Credentials,
    /// It is no seed of a user.
    #[error("expected the seed of a user's nkey, such as SUA…")]
    Nkey,
    /// A certificate or key is none.
    #[error("{0}")]
    Tls(String),
}

// === impl Login ===

impl Login {
    /// The same, or else what the first of the addresses says that says so, as NATS' own clients read it:
    /// `nats://USER:PASSWORD@HOST` or `nats://TOKEN@HOST`, with `%XX` for what an address cannot hold. An address that is
    /// none says nothing; whoever connects finds out.
    pub fn or_as_in(mut self, addresses: &str) -> Login {
        if self.credentials.is_some() || self.nkey.is_some() || self.user.is_some() || self.token.is_some() {
            return self;
        }
        let addresses = addresses.split(',').filter_map(|one| one.trim().parse::<ServerAddr>().ok());
        let mut users =
            addresses.filter_map(|one| Some((one.username().map(plain)?, one.password().map(plain))));
        match users.next() {
            Some((name, Some(password))) => self.user = Some((name, password)),
            Some((token, None)) => self.token = Some(token),
            None => {}
        }
        self
    }

    /// A client's options with this login in them.
    pub fn apply(self, options: ConnectOptions) -> Result<ConnectOptions, LoginError> {
        let options = match self.tls.authorities.is_some() || self.tls.identity.is_some() {
            true => options.tls_client_config(self.tls.client_config().map_err(LoginError::Tls)?),
            false => options,
        };
        if let Some(credentials) = &self.credentials {
            return options.credentials(credentials).map_err(|_| LoginError::Credentials);
        }
        if let Some(seed) = self.nkey {
            // The first two letters say that it is a seed, and a user's; the rest is checked when it signs.
            let is_seed = seed.len() == 58 && seed.starts_with("SU") && seed.is_ascii();
            return if is_seed { Ok(options.nkey(seed)) } else { Err(LoginError::Nkey) };
        }
        Ok(match (self.user, self.token) {
            (Some((name, password)), _) => options.user_and_password(name, password),
            (None, Some(token)) => options.token(token),
            (None, None) => options,
        })
    }
}

/// Without `%XX`.
fn plain(text: impl AsRef<str>) -> String {
    percent_decode_str(text.as_ref()).decode_utf8_lossy().into_owned()
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Login { credentials, nkey, user, token, tls } = self;
        f.debug_struct("Login")
            .field("credentials", &credentials.is_some())
            .field("nkey", &nkey.is_some())
            .field("user", &user.as_ref().map(|(name, _)| name))
            .field("token", &token.is_some())
            .field("tls", tls)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_say_who_asks() {
        let token = Login { token: Some("own".to_owned()), ..Login::default() };
        for (login, addresses, user, is_token) in [
            (Login::default(), "nats://a", None, None),
            (Login::default(), "nats://a, nats://u:p%40ss%2@b", Some(("u", "p@ss%2")), None),
            (Login::default(), "nats://to%2Fken@a:4222", None, Some("to/ken")),
            (token, "nats://u:p@a", None, Some("own")),
            (Login::default(), "nats://u:p@:x", None, None),
        ] {
            let read = login.or_as_in(addresses);
            let is_user = read.user.as_ref().map(|(name, password)| (name.as_str(), password.as_str()));
            assert_eq!((is_user, read.token.as_deref()), (user, is_token), "{addresses}");
        }
    }

    #[test]
    fn what_is_no_login_is_told_and_nothing_secret_is() {
        let some = |text: &str| Some(text.to_owned());
        let hush = || Some(b"hush".to_vec());
        let (authorities, identity) = (
            Tls { authorities: hush(), ..Tls::default() },
            Tls { identity: hush().zip(hush()), ..Tls::default() },
        );
        let login = |login: Login| login.apply(ConnectOptions::new()).err();
        for (wrong, expected) in [
            (Login { credentials: some("hush"), ..Login::default() }, "JWT and seed"),
            (Login { nkey: some("hush"), ..Login::default() }, "SUA…"),
            (Login { nkey: some(&format!("SA{}", "A".repeat(56))), ..Login::default() }, "SUA…"),
            (Login { tls: authorities, ..Login::default() }, "authority's certificate"),
            (Login { tls: identity, ..Login::default() }, "client's certificate"),
        ] {
            let shown = format!("{wrong:?}");
            let error = login(wrong).map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected) && !error.contains("hush"), "{expected}: {error}");
            assert!(!shown.contains("hush"), "{shown}");
        }
        let user = some("name").zip(some("hush"));
        let shown = format!("{:?}", Login { user, token: some("hush"), ..Login::default() });
        assert!(shown.contains("name") && !shown.contains("hush"), "{shown}");
    }
}
