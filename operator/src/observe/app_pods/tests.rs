use serde_json::json;

use super::*;
use crate::observe::pods::parse;

#[test]
fn ready_on_a_clock_that_is_ahead_is_ready_since_it_was_seen() {
    let ready = |since: &str| {
        let pod = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": []}, "status": {"startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}});
        vec![parse(
            &serde_json::from_value(pod).unwrap(),
            None,
            |_| graceful_plan::Node::default(),
            Timestamp::now(),
        )]
    };
    let at = |minute: i64| {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_mins(minute)
    };
    let mut ahead = HashMap::new();
    let mut look = |since: &str, minute| {
        let mut pods = ready(since);
        ready_by_our_clock(&mut pods, &mut ahead, at(minute));
        pods[0].readiness
    };
    assert_eq!(look("2026-01-01T00:01:00Z", 2), Readiness::Ready(at(1)), "an honest clock's word stands");
    assert_eq!(look("2026-01-01T01:00:00Z", 3), Readiness::Ready(at(3)));
    assert_eq!(look("2026-01-01T01:00:00Z", 50), Readiness::Ready(at(3)));
    assert_eq!(look("2026-01-01T01:00:00Z", 70), Readiness::Ready(at(3)), "also once that moment has come");
    assert_eq!(look("2026-01-01T02:00:00Z", 71), Readiness::Ready(at(71)), "it was unready in between");
}
