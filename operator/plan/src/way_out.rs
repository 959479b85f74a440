//! What a person can do about a pod that is held.

use crate::observed::Pod;
use crate::phrases::whole_seconds;

/// What the command for a pod that was handed over leaves it, past its deadline.
const SHORT_GRACE_SECONDS: u32 = 30;

/// What a person can do about a held pod. Of one on a silent node nobody knows, and a delete would only hang.
pub fn way_out(namespace: &str, pod: &Pod) -> Option<String> {
    if pod.node.is_silent() {
        return None;
    }
    if pod.terminating {
        return Some(of_a_handed_over(namespace, pod));
    }
    if pod.waits_in_a_volume() {
        let why = "its container has crashed, and what it accepted may be in its volume";
        return Some(format!("{why}: let it start again; deleting the pod loses what an emptyDir holds"));
    }
    let (name, grace) = (&pod.name, pod.grace_seconds);
    Some(format!(
        "wait, or `kubectl -n {namespace} delete pod {name}`: it then has its grace period of {grace} s to finish"
    ))
}

/// What ends it sooner. A kubelet (1.37.2) that stops a pod already goes by the grace that it began with, until it is restarted.
fn of_a_handed_over(namespace: &str, pod: &Pod) -> String {
    let until = pod
        .grace_ends
        .map_or(String::new(), |at| format!(" (its grace period ends at {})", whole_seconds(at)));
    let name = &pod.name;
    let node = pod.node.name.as_ref().map_or_else(|| "its node".to_owned(), |node| format!("node {node}"));
    format!(
        "wait{until}; to end it before that, or where it outlives that, whatever it has in flight: `kubectl -n {namespace} delete pod {name} \
         --grace-period={SHORT_GRACE_SECONDS}`, then restart the kubelet of {node}, which takes a shorter grace period up only then"
    )
}
