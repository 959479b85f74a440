//! Which Prometheus series count: `queue_length{state="running"}`, as users write it.

use std::borrow::Cow;
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
    pub fn matches(&self, series: &Series<'_>) -> bool {
        self.name == series.name
            && self.labels.iter().all(|(key, value)| series.labels().any(|(k, v)| k == key && v == *value))
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
    let series = Series::read(text.trim())?;
    let labels = series.labels().map(|(key, value)| (key.to_owned(), value.into_owned())).collect();
    series.rest.trim().is_empty().then(|| MetricSelector { name: series.name.to_owned(), labels })
}

/// A series as Prometheus' text format writes it, `name{label="value",…}`, read where it stands: nothing is copied, so that
/// one of the thousands that do not count costs next to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// What stands between the braces; valid to its end.
    labels: &'a str,
    /// The text that follows.
    pub rest: &'a str,
}

impl<'a> Series<'a> {
    /// Reads the series at the start of the text. None when it is anything else.
    pub fn read(text: &'a str) -> Option<Self> {
        let (name, rest) = identifier(text, |b| b == b':')?;
        let Some(inside) = rest.trim_ascii_start().strip_prefix('{') else {
            return Some(Self { name, labels: "", rest });
        };
        let mut left = inside.trim_ascii_start();
        while !left.starts_with('}') {
            left = label(left)?.1;
        }
        let labels = &inside[..inside.len() - left.len()];
        Some(Self { name, labels, rest: &left[1..] })
    }

    /// Its labels with their values, escapes undone.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> + use<'a> {
        let mut left = self.labels.trim_ascii_start();
        std::iter::from_fn(move || {
            let ((name, value), after) = label(left)?;
            left = after;
            Some((name, unescaped(value)))
        })
    }
}

/// A name with its value, as it is quoted.
type Label<'a> = (&'a str, &'a str);

/// The label at the start of the text, and what follows it and its comma.
fn label(text: &str) -> Option<(Label<'_>, &str)> {
    let (name, after) = identifier(text, |_| false)?;
    let (value, after) = quoted(after.trim_ascii_start().strip_prefix('=')?.trim_ascii_start())?;
    let after = after.trim_ascii_start();
    match after.strip_prefix(',') {
        Some(next) => Some(((name, value), next.trim_ascii_start())),
        None => (after.is_empty() || after.starts_with('}')).then_some(((name, value), after)),
    }
}

/// A name at the start of the text, and what follows it.
fn identifier(text: &str, also: impl Fn(u8) -> bool) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let end = bytes
        .iter()
        .position(|&b| !(b.is_ascii_alphanumeric() || b == b'_' || also(b)))
        .unwrap_or(bytes.len());
    (end > 0 && !bytes[0].is_ascii_digit()).then(|| text.split_at(end))
}

/// The inside of a quoted value at the start of the text, escapes and all, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let bytes = inside.as_bytes();
    let mut i = 0;
    loop {
        match bytes.get(i)? {
            b'"' => return Some((&inside[..i], &inside[i + 1..])),
            b'\\' => {
                matches!(bytes.get(i + 1)?, b'n' | b'\\' | b'"').then_some(())?;
                i += 2;
            }
            _ => i += 1,
        }
    }
}

/// The escapes were found to be valid when the value was read.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(escaped) => escaped,
                None => '\\',
            },
            _ => c,
        });
    }
    Cow::Owned(plain)
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
        let matches = |text: &str| selector.matches(&Series::read(text).unwrap());
        assert!(matches(r#"q{queue="mail",state="running"} 1"#));
        assert!(!matches(r#"q2{state="running"} 1"#));
        assert!(!matches("q 1"));
        assert!(!matches(r#"q{state="queued"} 1"#));
    }

    /// Which of the two is meant nobody knows: it is not left out of what may be busy.
    #[test]
    fn a_label_that_is_there_twice_matches_by_either() {
        let selector: MetricSelector = r#"q{state="running"}"#.parse().unwrap();
        assert!(selector.matches(&Series::read(r#"q{state="queued",state="running"} 1"#).unwrap()));
    }
}
