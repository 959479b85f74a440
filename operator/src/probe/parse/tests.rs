use graceful_api::WhenAbsent;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn uid() -> PodUid {
    PodUid::from("u-1")
}

fn status(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut status = json!({
        "protocol": "v1", "podUid": "u-1", "bootId": "b-1", "state": "Draining", "accepting": false, "epoch": 7,
        "inFlight": {"total": 3, "queued": 1, "running": 1, "requests": 1},
        "connections": 12, "oldestSeconds": 41, "resumable": true,
    });
    edit(&mut status);
    status.to_string().into_bytes()
}

fn class(body: &[u8]) -> &'static str {
    graceful(body, &uid()).unwrap_err().class()
}

#[test]
fn a_drain_status_is_read_whole() {
    let reading = graceful(&status(|_| ()), &uid()).unwrap();
    assert_eq!(reading.in_flight, InFlight { total: 3, queued: 1, running: 1, requests: 1 });
    assert_eq!(reading.protocol, Some(Protocol { epoch: Epoch(7), accepting: false, resumable: true }));
    assert_eq!(reading.boot_id.as_deref(), Some("b-1"));
}

#[test]
fn an_answer_of_another_pod_is_no_answer() {
    assert_eq!(class(&status(|s| s["podUid"] = json!("u-2"))), "wrong_pod");
    assert_eq!(class(&status(|s| s["podUid"] = json!(""))), "wrong_pod");
    assert_eq!(class(&status(|s| s["podUid"] = json!(null))), "wrong_pod");
}

#[test]
fn a_count_that_is_none_is_busy() {
    for total in [json!(-1), json!("0"), json!(1e308), json!(0.5), json!(null)] {
        assert_eq!(class(&status(|s| s["inFlight"]["total"] = total)), "not_a_count");
    }
    assert_eq!(class(&status(|s| s["inFlight"]["queued"] = json!("1"))), "not_a_count");
    assert_eq!(class(&status(|s| s["epoch"] = json!(1u64 << 53))), "not_a_count");
}

#[test]
fn a_total_below_its_parts_is_busy() {
    assert_eq!(class(&status(|s| s["inFlight"]["total"] = json!(0))), "not_protocol");
}

#[test]
fn what_is_no_drain_status_is_busy() {
    for body in ["", "NaN", "{", "<html>", "\u{0}"] {
        assert_eq!(class(body.as_bytes()), "not_json", "{body:?}");
    }
    assert_eq!(class(b"[]"), "not_protocol");
    assert_eq!(class(b"0"), "not_protocol");
    assert_eq!(class(br#"{"task_lenth": 0}"#), "not_protocol");
    assert_eq!(class(&status(|s| s["accepting"] = json!("false"))), "not_protocol");
    assert_eq!(class(&status(|s| s["bootId"] = json!(""))), "not_protocol");
    assert_eq!(class(&"[".repeat(60_000).into_bytes()), "not_json");
}

#[test]
fn a_pointer_reaches_a_number_or_nothing() {
    let body = br#"{"task_lenth": 4, "a/b": [{"n": "5"}]}"#;
    assert_eq!(json_pointer(body, "/task_lenth").unwrap().in_flight.total, 4);
    assert_eq!(json_pointer(b"6", "").unwrap().in_flight.total, 6);
    assert_eq!(json_pointer(body, "/task_length").unwrap_err().class(), "pointer_missing");
    assert_eq!(json_pointer(body, "/a~1b/0/n").unwrap_err().class(), "not_a_count");
}

fn metric(body: &[u8]) -> Result<Reading, AskError> {
    let language = Language::Prometheus { metric: "q".parse().unwrap(), when_absent: WhenAbsent::Busy };
    let asked = uid();
    let mut hearing = Hearing::new(&language, &asked);
    hearing.take(body)?;
    hearing.reading(true)
}

proptest! {
    /// Whatever a pod sends, it is either a count below 2^53 or an error.
    #[test]
    fn hostile_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        for reading in [graceful(&body, &uid()), json_pointer(&body, "/n"), metric(&body)].into_iter().flatten() {
            prop_assert!(reading.in_flight.total < count::LIMIT);
        }
    }

    #[test]
    fn hostile_pages_are_read_without_a_panic(page in "[q{}=\",\\\\ #.0-9eNa\n-]{0,80}") {
        if let Ok(reading) = metric(page.as_bytes()) {
            prop_assert!(reading.in_flight.total < count::LIMIT);
        }
    }
}
