//! Which Prometheus series count: `queue_length{state="running"}`, as users write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A metric's name and the labels its series must have. Written and read as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricSelector {
    name: String,
    labels: Vec<(String, String)>,
}

impl MetricSelector {
    /// The metric's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a series counts: it has this name, and each of our labels with our value. Others don't matter.
    pub fn matches<'a>(&self, name: &str, labels: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.name == name && self.labels.iter().all(|(key, value)| labels(key) == Some(value))
    }
}

impl FromStr for MetricSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            format!("{text:?} is not a metric; write a name such as queue_length, or queue_length{{state=\"running\"}}")
        })
    }
}

impl fmt::Display for MetricSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        for (i, (key, value)) in self.labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{key}=\"{value}\"", if i == 0 { '{' } else { ',' })?;
        }
        f.write_str("}")
    }
}

impl TryFrom<String> for MetricSelector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MetricSelector> for String {
    fn from(selector: MetricSelector) -> Self {
        selector.to_string()
    }
}

fn parse(text: &str) -> Option<MetricSelector> {
    let (name, labels, rest) = series(text.trim())?;
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    rest.trim().is_empty().then(|| MetricSelector { name: name.to_owned(), labels })
}

/// A name, its labels with their values, and the text that follows.
pub type Series<'a> = (&'a str, Vec<(&'a str, String)>, &'a str);

/// Reads a series as Prometheus' text format writes it, `name{label="value",…}`, at the start of the text, and gives back
/// what follows it too. None when it is anything else.
pub fn series(text: &str) -> Option<Series<'_>> {
    let (name, rest) = identifier(text, |c| c == ':')?;
    let mut labels = Vec::new();
    let Some(inside) = rest.trim_start().strip_prefix('{') else { return Some((name, labels, rest)) };
    let mut rest = inside.trim_start();
    while !rest.starts_with('}') {
        let (label, after) = identifier(rest, |_| false)?;
        let (value, after) = quoted(after.trim_start().strip_prefix('=')?.trim_start())?;
        labels.push((label, value));
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None => after.starts_with('}').then_some(after)?,
        };
    }
    Some((name, labels, rest.strip_prefix('}')?))
}

/// A name at the start of the text, and what follows it.
fn identifier(text: &str, also: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    let end = text
        .char_indices()
        .find(|&(i, c)| !(c.is_ascii_alphabetic() || c == '_' || also(c) || (i > 0 && c.is_ascii_digit())))
        .map_or(text.len(), |(i, _)| i);
    (end > 0).then(|| text.split_at(end))
}

/// A quoted value at the start of the text, with its escapes undone, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inside[i + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_users_write() {
        for (text, canonical) in [
            ("queue_length", "queue_length"),
            (" jobs:active ", "jobs:active"),
            ("q{}", "q"),
            (r#"q{state="running"}"#, r#"q{state="running"}"#),
            (r#"q { state = "a,b}" , kind="x\"y\\\n", }"#, r#"q{state="a,b}",kind="x\"y\\\n"}"#),
        ] {
            assert_eq!(text.parse::<MetricSelector>().unwrap().to_string(), canonical);
            assert_eq!(canonical.parse::<MetricSelector>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn it_refuses_what_it_would_misread() {
        for text in [
            "",
            "9q",
            "q{",
            "q}",
            "q{a}",
            "q{a=b}",
            r#"q{a=~"b"}"#,
            r#"q{a!="b"}"#,
            r#"q{a="b"} 1"#,
            r#"q{a="b" c="d"}"#,
        ] {
            assert!(text.parse::<MetricSelector>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_series_needs_the_name_and_each_label() {
        let selector: MetricSelector = r#"q{state="running"}"#.parse().unwrap();
        let labels = |key: &str| match key {
            "state" => Some("running"),
            "queue" => Some("mail"),
            _ => None,
        };
        assert!(selector.matches("q", labels));
        assert!(!selector.matches("q2", labels));
        assert!(!selector.matches("q", |_| None));
        assert!(!selector.matches("q", |key| (key == "state").then_some("queued")));
    }
}
