//! Topics and topic filters (MQTT 3.1.1, section 4.7), with shared subscriptions (`$share/<group>/<filter>`).

const SHARE: &str = "$share/";
const LONGEST: usize = 65_535;

/// Whether messages can be published to this topic.
pub(super) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= LONGEST && !topic.contains(['+', '#', '\0'])
}

/// Whether this is a filter that a broker understands.
pub(super) fn is_filter(filter: &str) -> bool {
    let Some(pattern) = pattern(filter) else { return false };
    let levels: Vec<_> = pattern.split('/').collect();
    let last = levels.len() - 1;
    let level = |(index, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => index == last,
        level => !level.contains(['+', '#', '\0']),
    };
    !pattern.is_empty() && filter.len() <= LONGEST && levels.iter().enumerate().all(level)
}

/// The filter without the group that shares it; `None` if the group is not well formed.
fn pattern(filter: &str) -> Option<&str> {
    let Some(shared) = filter.strip_prefix(SHARE) else { return Some(filter) };
    let (group, pattern) = shared.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#'])).then_some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_well_formed() {
        for filter in ["a", "a/b", "+", "#", "a/+/#", "/", "$share/g/a/#", "é"] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["", "a#", "a+", "#/a", "a/b#", "$share/g", "$share//a", "$share/g/", "a\0"] {
            assert!(!is_filter(filter), "{filter:?}");
        }
        for topic in ["", "a/+", "a/#", "a\0"] {
            assert!(!is_topic(topic), "{topic:?}");
        }
    }
}
