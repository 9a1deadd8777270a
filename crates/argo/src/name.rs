//! Names: what Kubernetes and Argo take for one. What passes here may become a file or a folder.
//!
//! Objects: DNS-1123 subdomains (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>). Templates,
//! steps, tasks, parameters and artifacts: what Argo's own validation takes.

use dhow_resources::error::quote;

/// Longest name of an object, in bytes.
const MAX_OBJECT: usize = 253;

/// Longest name of a file without its ending, in bytes: file systems take 255 with it.
const MAX_FILE: usize = 240;

/// Longest name of a template, a step or a task, in bytes.
const MAX_TEMPLATE: usize = 128;

/// What a name is wrong by: a sentence that goes on behind the name's field.
type Wrong = Result<(), String>;

/// The name of an object: a DNS-1123 subdomain.
pub fn object(name: &str) -> Wrong {
    let part = |part: &str| {
        let is_end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.iter().all(|byte| is_end(byte) || *byte == b'-')
            && bytes.first().is_some_and(is_end)
            && bytes.last().is_some_and(is_end)
    };
    check(name, MAX_OBJECT, name.split('.').all(part), || {
        "small letters, digits, `-` and `.`, at both ends a letter or digit".to_owned()
    })
}

/// What the name of an object begins with: `-` may be its end.
pub fn object_prefix(prefix: &str) -> Wrong {
    object(&format!("{prefix}x")).map_err(|wrong| wrong.replacen(&format!("{prefix}x"), prefix, 1))
}

/// The name of a template, a step or a task.
pub fn template(name: &str) -> Wrong {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_right = name.bytes().all(is_inner) && !name.starts_with('-');
    check(name, MAX_TEMPLATE, is_right, || "letters, digits and `-`, at the begin no `-`".to_owned())
}

/// The name of a parameter or an artifact.
pub fn parameter(name: &str) -> Wrong {
    let is_right = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    check(name, MAX_OBJECT, is_right, || "letters, digits, `-` and `_`".to_owned())
}

/// A part of the name of a file, such as that of a pod: made of other names, which templates may have in capitals.
pub fn file(name: &str) -> Wrong {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    check(name, 2 * MAX_OBJECT, name.bytes().all(is_inner) && !name.starts_with('.'), || {
        "letters, digits, `-`, `_` and `.`, at the begin no `.`".to_owned()
    })
}

/// The file that a pod's log is kept in. Of a long name the end is what tells it from others.
pub fn log(pod: &str) -> Result<String, String> {
    file(pod)?;
    let end = pod.get(pod.len().saturating_sub(MAX_FILE)..).unwrap_or(pod);
    Ok(format!("{end}.log"))
}

fn check(name: &str, longest: usize, is_right: bool, expected: impl Fn() -> String) -> Wrong {
    if name.len() > longest {
        return Err(format!("the name {} has {} bytes; expected at most {longest}", quote(name), name.len()));
    }
    if name.is_empty() || !is_right {
        return Err(format!("{} is no name; expected {}", quote(name), expected()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_and_argo_take() {
        let long = "a".repeat(253);
        let too_long = "a".repeat(254);
        for name in ["a", "report-x7k2p", "1", "a.b-c.d", long.as_str()] {
            assert_eq!(object(name), Ok(()), "{name}");
            assert_eq!(file(name), Ok(()), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/a",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "A",
            "x y",
            "ü",
            "a_b",
            "a\0",
            too_long.as_str(),
        ] {
            assert!(object(name).is_err(), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", ".a", "a b", "a\0", "a\\b"] {
            assert!(file(name).is_err() && log(name).is_err(), "{name}");
        }
        assert_eq!(log("wf-Main-17"), Ok("wf-Main-17.log".to_owned()));
        assert_eq!(log(&format!("{long}-17")).unwrap(), format!("{}-17.log", "a".repeat(237)));
        for (prefix, is_right) in [("a-", true), ("a", true), ("a.", true), ("../", false), ("A-", false)] {
            assert_eq!(object_prefix(prefix).is_ok(), is_right, "{prefix}");
        }
        for (name, is_right) in [("a", true), ("Ab-1", true), ("1x", true), ("x.y", false), ("a_b", false)] {
            assert_eq!(template(name).is_ok(), is_right, "{name}");
        }
        for (name, is_right) in [("a_B-1", true), ("-a", true), ("a.b", false), ("a b", false)] {
            assert_eq!(parameter(name).is_ok(), is_right, "{name}");
        }
        assert!(object("../x").unwrap_err().starts_with("`../x` is no name"));
        assert!(object_prefix("A-").unwrap_err().starts_with("`A-` is no name"));
    }
}
