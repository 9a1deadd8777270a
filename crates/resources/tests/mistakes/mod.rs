//! One way to break a good file, and the whole text of what is said about it.

/// What to replace in a good file (its first occurrence), by what, and all errors, one a line.
pub(crate) type Mistake = (&'static str, &'static str, &'static str);

/// Makes each mistake in the good file and compares the errors of the reader.
pub(crate) fn check<T>(good: &str, mistakes: &[Mistake], read: impl Fn(&str) -> Result<T, String>) {
    assert!(read(good).is_ok(), "{:?}", read(good).err());
    let mut wrong = Vec::new();
    for (old, new, expected) in mistakes {
        assert!(good.contains(old), "{old:?} is not in the good file");
        let told = read(&good.replacen(old, new, 1)).err().unwrap_or_else(|| "nothing is wrong".to_owned());
        if told != *expected {
            wrong.push(format!("{old:?} to {new:?}\n  told:     {told:?}\n  expected: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
