//! Name resolution: where an app is that does not run in this host.
//!
//! | file | subject |
//! |---|---|
//! | [`sqlite`] | hosts of one machine, which share a file |
//! | [`dns`] | names made from a format, as in Kubernetes |

pub mod dns;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use dhow_blocks::error::BlockError;

/// DNS allows no longer names, and nothing needs them.
const MAX_APP_ID: usize = 253;

/// Refuses what could not be an app-id, before it becomes a part of a host name or a row.
fn check_app_id(app_id: &str) -> Result<(), BlockError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = app_id.as_bytes();
    if bytes.len() <= MAX_APP_ID
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().copied().all(is_plain)
        && !app_id.contains("..")
    {
        return Ok(());
    }
    Err(BlockError::invalid(
        "an app-id has letters, digits, hyphens, dots and underscores, and begins and ends with a letter or digit",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_ids() {
        for app_id in ["a", "order-processor", "a.b_c", "App1"] {
            assert_eq!(check_app_id(app_id), Ok(()), "{app_id}");
        }
        let long = "a".repeat(254);
        for app_id in
            ["", "-a", "a-", ".", "a..b", "a b", "a/b", "a:1", "a@b", "a\0", "a\r\n", "ü", "{appid}", &long]
        {
            assert!(check_app_id(app_id).is_err(), "{app_id:?}");
        }
    }
}
