//! What the operator tells of itself on its health port.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use reqwest::Client;

/// An operator that is busy or starved of memory answers late.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads `/readyz` and `/metrics`.
#[derive(Clone, Debug)]
pub(super) struct Health {
    http: Client,
    place: SocketAddr,
}

/// Counters of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) plans: u64,
    pub(super) failed: u64,
    pub(super) actions: u64,
    /// Apps that it last reported as Serving.
    pub(super) serving: usize,
}

impl Health {
    pub(super) fn at(place: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { http: Client::builder().no_proxy().timeout(TIMEOUT).build()?, place })
    }

    /// Whether all is listed.
    pub(super) async fn ready(&self) -> bool {
        let answer = self.http.get(format!("http://{}/readyz", self.place)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Costs the operator some work, a millisecond for a hundred apps: not asked while that matters.
    pub(super) async fn counters(&self) -> anyhow::Result<Counters> {
        let answer = self.http.get(format!("http://{}/metrics", self.place)).send().await?;
        let text = answer.error_for_status()?.text().await.context("the operator's metrics")?;
        Ok(parse(&text))
    }
}

fn parse(text: &str) -> Counters {
    let sum = |name: &str| -> u64 {
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let serving = |line: &&str| {
        line.starts_with("graceful_app_phase{") && line.contains("phase=\"Serving\"") && line.ends_with(" 1")
    };
    Counters {
        plans: sum("graceful_operator_reconciles_total"),
        failed: sum("graceful_operator_reconcile_errors_total"),
        actions: sum("graceful_operator_actions_total"),
        serving: text.lines().filter(serving).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let text = "graceful_operator_reconciles_total 12\n\
            graceful_operator_reconcile_errors_total{class=\"a\"} 2\n\
            graceful_operator_reconcile_errors_total{class=\"b\"} 1\n\
            graceful_app_phase{namespace=\"n\",name=\"a\",phase=\"Serving\"} 1\n\
            graceful_app_phase{namespace=\"n\",name=\"b\",phase=\"Serving\"} 0\n\
            graceful_app_phase{namespace=\"n\",name=\"b\",phase=\"Rolling\"} 1\n";
        assert_eq!(parse(text), Counters { plans: 12, failed: 3, actions: 0, serving: 1 });
    }
}
