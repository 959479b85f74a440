//! How many calls the operator makes, by the API server's own count.
//!
//! Its request metrics name no client. But priority and fairness counts what it lets pass by FlowSchema, and a
//! FlowSchema may be of one ServiceAccount and of some verbs: so the operator gets one a kind of call. They lead to the
//! priority level that ServiceAccounts have anyway, and change nothing but the count.

use anyhow::{Context, ensure};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;
use std::ops::Sub;
use std::time::Duration;

use super::marks;
use crate::harness::wait::eventually;

const PREFIX: &str = "graceful-bench-";
/// Where Kubernetes' own FlowSchema `service-accounts` leads.
const LEVEL: &str = "workload-low";
/// Before `service-accounts` (9000) and after what a cluster needs to live; the first that matches counts.
const PRECEDENCE: usize = 4_000;

/// Kinds of calls: name, API groups, resources, verbs. The first that matches counts.
const KINDS: [(&str, &str, &[&str]); 5] = [
    ("events", "events", &["create", "patch"]),
    ("gets", "*", &["get"]),
    ("lists", "*", &["list"]),
    ("watches", "*", &["watch"]),
    ("writes", "*", &["create", "update", "patch", "delete", "deletecollection"]),
];

/// Calls by kind. Writes are tries too: a dry run counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Calls {
    pub(super) events: u64,
    pub(super) gets: u64,
    pub(super) lists: u64,
    pub(super) watches: u64,
    pub(super) writes: u64,
}

impl Sub for Calls {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let Self { events, gets, lists, watches, writes } = self;
        Self {
            events: events.saturating_sub(before.events),
            gets: gets.saturating_sub(before.gets),
            lists: lists.saturating_sub(before.lists),
            watches: watches.saturating_sub(before.watches),
            writes: writes.saturating_sub(before.writes),
        }
    }
}

impl Calls {
    pub(super) fn total(&self) -> u64 {
        let Self { events, gets, lists, watches, writes } = self;
        events + gets + lists + watches + writes
    }
}

/// Has the API server count the calls of this ServiceAccount.
pub(super) async fn count(client: &Client, namespace: &str, account: &str) -> anyhow::Result<()> {
    let schemas: Api<FlowSchema> = Api::all(client.clone());
    for (n, (kind, resource, verbs)) in KINDS.iter().enumerate() {
        let schema = serde_json::from_value(json!({
            "metadata": {"name": format!("{PREFIX}{kind}"), "labels": marks::labels()},
            "spec": {
                "matchingPrecedence": PRECEDENCE + n,
                "priorityLevelConfiguration": {"name": LEVEL},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{
                    "subjects": [{
                        "kind": "ServiceAccount",
                        "serviceAccount": {"namespace": namespace, "name": account},
                    }],
                    "resourceRules": [{
                        "verbs": verbs, "apiGroups": ["*"], "resources": [resource], "namespaces": ["*"], "clusterScope": true,
                    }],
                }],
            },
        }))?;
        schemas
            .create(&PostParams::default(), &schema)
            .await
            .with_context(|| format!("FlowSchema for {kind}"))?;
    }
    eventually("the API server counts the operator's calls", Duration::from_secs(15), || async {
        for (kind, ..) in KINDS {
            let schema = schemas.get(&format!("{PREFIX}{kind}")).await?;
            let conditions = schema.status.and_then(|s| s.conditions).unwrap_or_default();
            let taken =
                conditions.iter().any(|c| c.type_ == "Dangling" && c.status.as_deref() == Some("False"));
            ensure!(taken, "FlowSchema {PREFIX}{kind} is not taken up");
        }
        Ok(())
    })
    .await
}

/// What has been counted so far.
pub(super) async fn counted(client: &Client) -> anyhow::Result<Calls> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = client.request_text(request).await.context("the API server's metrics")?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Calls {
    let of = |kind: &str| -> u64 {
        let schema = format!("flow_schema=\"{PREFIX}{kind}\"");
        let lines = text.lines().filter(|line| {
            line.starts_with("apiserver_flowcontrol_dispatched_requests_total{") && line.contains(&schema)
        });
        // Large counts are printed as floats.
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    Calls {
        events: of("events"),
        gets: of("gets"),
        lists: of("lists"),
        watches: of("watches"),
        writes: of("writes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_operator_s_calls_are_counted() {
        let text = "# HELP x\n\
            apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"service-accounts\",priority_level=\"workload-low\"} 90\n\
            apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"graceful-bench-gets\",priority_level=\"workload-low\"} 7\n\
            apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"graceful-bench-writes\",priority_level=\"workload-low\"} 1.5e+03\n\
            apiserver_flowcontrol_rejected_requests_total{flow_schema=\"graceful-bench-gets\"} 4\n";
        let calls = parse(text);
        assert_eq!(calls, Calls { gets: 7, writes: 1500, ..Calls::default() });
        assert_eq!((calls - Calls { gets: 2, ..Calls::default() }).total(), 1505);
    }
}
