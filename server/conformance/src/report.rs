//! What was found, as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

/// How it went with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Held, and kept.
    Passed,
    /// Seen to be broken.
    Failed,
    /// Not held; the reason says what that needs.
    Skipped,
}

impl Verdict {
    /// The word in the table and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A rule that was held.
#[derive(Debug, Clone)]
pub struct Held {
    /// The rule's name.
    pub rule: &'static str,
    /// What it demands.
    pub says: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen, or what is missing; empty where it passed.
    pub reason: String,
    /// How long it took.
    pub took: Duration,
}

/// All rules, in their order.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One for each rule that was asked for.
    pub rules: Vec<Held>,
}

impl Report {
    fn count(&self, verdict: Verdict) -> usize {
        self.rules.iter().filter(|held| held.verdict == verdict).count()
    }

    /// How many rules were broken.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(Verdict::Failed)
    }

    /// How many rules could not be held.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.count(Verdict::Skipped)
    }

    /// A line a rule; of one that failed also what it demands.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.rules.iter().map(|held| held.rule.len()).max().unwrap_or_default();
        let mut text = String::new();
        for Held { rule, says, verdict, reason, took: _ } in &self.rules {
            let word = if *verdict == Verdict::Failed { "FAILED" } else { verdict.as_str() };
            let _infallible = writeln!(text, "{}", format!("{rule:<width$}  {word:<7}  {reason}").trim_end());
            if *verdict == Verdict::Failed {
                let _infallible = writeln!(text, "{:<width$}           the rule: {says}", "");
            }
        }
        let (passed, all) = (self.count(Verdict::Passed), self.rules.len());
        let (failed, skipped) = (self.failed(), self.skipped());
        let _infallible =
            writeln!(text, "\n{all} rules: {passed} passed, {failed} failed, {skipped} skipped");
        text
    }

    /// `{"passed": 40, "failed": 0, "skipped": 8, "rules": [{"rule", "says", "verdict", "reason", "seconds"}]}`, in one line.
    #[must_use]
    pub fn json(&self) -> String {
        let rules = self.rules.iter().map(|Held { rule, says, verdict, reason, took }| {
            let seconds = took.as_secs_f64();
            json!({"rule": rule, "says": says, "verdict": verdict.as_str(), "reason": reason, "seconds": seconds})
        });
        let rules: Vec<_> = rules.collect();
        let (passed, failed, skipped) = (self.count(Verdict::Passed), self.failed(), self.skipped());
        format!("{}\n", json!({"passed": passed, "failed": failed, "skipped": skipped, "rules": rules}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let held = |rule, verdict, reason: &str| {
            let reason = reason.to_owned();
            Held { rule, says: "It is so.", verdict, reason, took: Duration::ZERO }
        };
        let report = Report {
            rules: vec![
                held("one", Verdict::Passed, ""),
                held("another", Verdict::Failed, "it was not"),
                held("third", Verdict::Skipped, "needs --app"),
            ],
        };
        assert_eq!(
            report.table(),
            "one      passed\nanother  FAILED   it was not\n                  the rule: It is so.\nthird    skipped  needs --app\n\n3 rules: 1 passed, 1 failed, 1 skipped\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["failed"], &json["rules"][1]["reason"]), (&json!(1), &json!("it was not")));
    }
}
