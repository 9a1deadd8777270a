//! Series of a metric by labels that are known only when they are seen.

use arc_swap::ArcSwap;
use std::collections::HashMap;

/// Texts that have a series of their own; what else comes shares one. Labels can come from outside, and memory is
/// not theirs to take.
pub(super) const MAX_TEXTS: usize = 1000;

/// Bytes of a text that has a series of its own.
const MAX_LENGTH: usize = 256;

/// The series of one metric by a text and a key that takes few values. A series is made when it is first asked for;
/// from then on it is found without a lock.
pub(super) struct Series<K, T> {
    known: ArcSwap<Known<K, T>>,
}

/// The keys of each text, in a list: there are few.
type Known<K, T> = HashMap<Box<str>, Vec<(K, T)>>;

// === impl Series ===

impl<K: Clone + PartialEq, T: Clone> Series<K, T> {
    pub(super) fn new() -> Series<K, T> {
        Series { known: ArcSwap::default() }
    }

    /// Uses the series of these labels. `make` gets the text that the series is to have: the given one, or none when
    /// there are too many.
    pub(super) fn with(&self, text: &str, key: &K, make: impl FnOnce(&str) -> T, count: impl FnOnce(&T)) {
        let known = self.known.load();
        let has_room = known.len() < MAX_TEXTS && text.len() <= MAX_LENGTH;
        let text = if has_room || known.contains_key(text) { text } else { "" };
        let series = known.get(text).and_then(|all| all.iter().find(|(found, _)| found == key));
        if let Some((_, series)) = series {
            return count(series);
        }
        let series = make(text);
        count(&series);
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            let all = known.entry(text.into()).or_default();
            if !all.iter().any(|(found, _)| found == key) {
                all.push((key.clone(), series.clone()));
            }
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_TEXTS, Series};
    use prometheus::IntCounter;
    use std::cell::RefCell;

    #[test]
    fn series_are_made_once_and_bounded() {
        let series = Series::<u16, IntCounter>::new();
        let made = RefCell::new(Vec::new());
        let make = |text: &str| {
            made.borrow_mut().push(text.to_owned());
            IntCounter::new("name", "help").unwrap()
        };
        let count = |text: &str, key: u16| {
            let mut total = 0;
            series.with(text, &key, make, |counter| {
                counter.inc();
                total = counter.get();
            });
            total
        };
        assert_eq!((count("a", 1), count("a", 1), count("a", 2), count("b", 1)), (1, 2, 1, 1));
        assert_eq!(*made.borrow(), ["a", "a", "b"]);
        for number in 0..MAX_TEXTS + 50 {
            count(&number.to_string(), 1);
        }
        assert_eq!(made.borrow().iter().filter(|text| text.is_empty()).count(), 1);
        assert!(made.borrow().len() <= MAX_TEXTS + 2);
        assert_eq!(count("a", 1), 3);
        count(&"long".repeat(100), 1);
        assert_eq!(made.borrow().iter().filter(|text| text.is_empty()).count(), 1);
    }
}
