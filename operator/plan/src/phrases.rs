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

/// Whether what keeps a ReplicaSet from making a pod is a full quota.
pub(crate) fn exceeds_quota(words: &str) -> bool {
    words.contains("exceeded quota")
}
