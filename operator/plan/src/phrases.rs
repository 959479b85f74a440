//! Phrases that the sentences to people share. They stand on nothing, so that whoever has a sentence may use them.

use jiff::Timestamp;

/// The first of these pods, with how many others there are behind its name, and what is wrong with it.
pub(crate) fn first_of<T>(mut found: impl Iterator<Item = (String, T)>) -> Option<(String, T)> {
    let (pod, wrong) = found.next()?;
    Some((format!("{pod}{}", and_more(found.count())), wrong))
}

/// Behind the name of the one pod that is told of.
pub(crate) fn and_more(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (and 1 more pod)".to_owned(),
        n => format!(" (and {n} more pods)"),
    }
}

/// A moment as people read it.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Whether the scheduler turned a pod away for cordons and taints alone, so that capacity would not help it. Its first sentence counts the nodes by cause;
/// where that was cut short, a cause may be missing.
pub(crate) fn nodes_are_closed(words: &str) -> bool {
    let said = words.split_once("nodes are available: ").map_or("", |(_, said)| said);
    let causes = said.split_once(". ").map(|(causes, _)| causes).or_else(|| said.strip_suffix('.'));
    let closed = |cause: &str| ["unschedulable", "untolerated taint"].iter().any(|word| cause.contains(word));
    causes.is_some_and(|causes| causes.split(", ").all(closed))
}

/// Whether what keeps a ReplicaSet from making a pod is a full quota.
pub(crate) fn exceeds_quota(words: &str) -> bool {
    words.contains("exceeded quota")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_closed_where_each_cause_is_a_cordon_or_a_taint() {
        let of = |causes: &str| {
            nodes_are_closed(&format!(
                "not scheduled: 0/2 nodes are available: {causes}. no new claims to deallocate, preemption: 0/2 nodes are available: 2 \
                 Preemption is not helpful for scheduling."
            ))
        };
        assert!(of("2 node(s) were unschedulable"));
        assert!(of("1 node(s) had untolerated taint {aws/spot: soon}, 1 node(s) were unschedulable"));
        assert!(!of("1 Insufficient cpu, 1 node(s) were unschedulable"));
        assert!(nodes_are_closed("0/1 nodes are available: 1 node(s) were unschedulable."));
        for other in ["0/1 nodes are available: 1 node(s) were unsched…", "no node takes it", ""] {
            assert!(!nodes_are_closed(other), "{other}");
        }
    }
}
