//! What an app may be called, so that its name is an app-id, a Cargo package, an npm package and a Go module.

/// App-ids are no longer than a DNS label.
const LONGEST: usize = 63;

/// Names with a meaning of their own: folders of Cargo's target folder, Rust's and Go's own libraries.
const TAKEN: &[&str] = &["alloc", "build", "cmd", "core", "deps", "examples", "incremental", "std", "test"];

/// The reason if the name cannot be used.
pub(super) fn check(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} characters"));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("it must begin with a lower-case letter{}", suggest(name)));
    }
    if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "it may have lower-case letters, digits and hyphens, not {wrong:?}{}",
            suggest(name)
        ));
    }
    if name.ends_with('-') {
        return Err(format!("it must end with a letter or digit{}", suggest(name)));
    }
    if TAKEN.contains(&name) {
        return Err(format!("compilers use it for something else; try \"{name}-app\""));
    }
    Ok(())
}

/// The name as it could be.
fn suggest(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let mapped: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let better = mapped.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-');
    if better.is_empty() { String::new() } else { format!("; try {better:?}") }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_fit_every_toolchain() {
        for name in ["a", "shop", "my-shop-2"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
        let long = "x".repeat(64);
        let cases = [
            ("", "empty"),
            ("Shop", "try \"shop\""),
            ("2shop", "try \"shop\""),
            ("my_shop", "try \"my-shop\""),
            ("../shop", "try \"shop\""),
            ("my shop", "try \"my-shop\""),
            ("shop-", "try \"shop\""),
            ("école", "lower-case letter"),
            ("std", "try \"std-app\""),
            (&long, "63"),
        ];
        for (name, text) in cases {
            let reason = check(name).unwrap_err();
            assert!(reason.contains(text), "{name:?}: {reason}");
        }
    }
}
