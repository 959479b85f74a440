use graceful_api::WhenAbsent;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::probe::AskErrorClass;

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

fn class(body: &[u8]) -> AskErrorClass {
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
fn what_is_scheduled_is_read_where_it_can_be() {
    let read =
        |scheduled: Value| graceful(&status(|s| s["scheduled"] = scheduled), &uid()).unwrap().scheduled;
    let next = "2026-11-26T16:30:00Z";
    let said = Scheduled { tasks: 1, next: next.parse().unwrap() };
    assert_eq!(read(json!({"tasks": 1, "next": next})), Some(said));
    for odd in [
        json!(null),
        json!("soon"),
        json!({"tasks": 2, "next": next}),
        json!({"tasks": 0, "next": next}),
        json!({"tasks": -1, "next": next}),
        json!({"tasks": 1, "next": 1_796_000_000}),
        json!({"tasks": 1, "next": "soon"}),
    ] {
        assert_eq!(read(odd.clone()), None, "{odd}");
    }
}

/// Keeps P7: a gate answers before its app, and its own zero says nothing of that.
#[test]
fn a_pod_that_says_that_it_does_not_know_gives_no_answer() {
    let unknown = status(|s| s["unknown"] = json!("the app behind the gate: nothing listens there"));
    let error = graceful(&unknown, &uid()).unwrap_err();
    assert_eq!(error.class(), AskErrorClass::NotKnown);
    assert!(
        error.to_string().contains("in flight: the app behind the gate: nothing listens there;"),
        "{error}"
    );
    assert!(graceful(&status(|s| s["unknown"] = json!(null)), &uid()).is_ok());
}

#[test]
fn an_answer_of_another_pod_is_no_answer() {
    assert_eq!(class(&status(|s| s["podUid"] = json!("u-2"))), AskErrorClass::WrongPod);
    assert_eq!(class(&status(|s| s["podUid"] = json!(""))), AskErrorClass::WrongPod);
    assert_eq!(class(&status(|s| s["podUid"] = json!(null))), AskErrorClass::WrongPod);
}

#[test]
fn a_count_that_is_none_is_busy() {
    for total in [json!(-1), json!("0"), json!(1e308), json!(0.5), json!(null)] {
        assert_eq!(class(&status(|s| s["inFlight"]["total"] = total)), AskErrorClass::NotACount);
    }
    assert_eq!(class(&status(|s| s["inFlight"]["queued"] = json!("1"))), AskErrorClass::NotACount);
    assert_eq!(class(&status(|s| s["epoch"] = json!(1u64 << 53))), AskErrorClass::NotACount);
}

#[test]
fn a_total_below_its_parts_is_busy() {
    assert_eq!(class(&status(|s| s["inFlight"]["total"] = json!(0))), AskErrorClass::NotProtocol);
}

/// Keeps P7.
#[test]
fn what_is_no_drain_status_is_busy() {
    for body in ["", "NaN", "{", "<html>", "\u{0}"] {
        assert_eq!(class(body.as_bytes()), AskErrorClass::NotJson, "{body:?}");
    }
    assert_eq!(class(b"[]"), AskErrorClass::NotProtocol);
    assert_eq!(class(b"0"), AskErrorClass::NotProtocol);
    assert_eq!(class(br#"{"task_lenth": 0}"#), AskErrorClass::NotProtocol);
    assert_eq!(class(&status(|s| s["accepting"] = json!("false"))), AskErrorClass::NotProtocol);
    assert_eq!(class(&status(|s| s["bootId"] = json!(""))), AskErrorClass::NotProtocol);
    assert_eq!(class(&"[".repeat(60_000).into_bytes()), AskErrorClass::NotJson);
}

#[test]
fn a_pointer_reaches_a_number_or_nothing() {
    let body = br#"{"task_lenth": 4, "a/b": [{"n": "5"}]}"#;
    assert_eq!(json_pointer(body, "/task_lenth").unwrap().in_flight.total, 4);
    assert_eq!(json_pointer(b"6", "").unwrap().in_flight.total, 6);
    assert_eq!(json_pointer(body, "/task_length").unwrap_err().class(), AskErrorClass::PointerMissing);
    assert_eq!(json_pointer(body, "/a~1b/0/n").unwrap_err().class(), AskErrorClass::NotACount);
}

/// `12` may be the beginning of `120`, and `0` of `0.5`.
#[test]
fn a_bare_number_must_be_whole() {
    let language = Language::JsonPointer { pointers: vec![String::new()].try_into().unwrap(), idle_at: 0 };
    let asked = uid();
    let read = |body: &[u8], framed| {
        let mut hearing = Hearing::new(&language, &asked);
        hearing
            .take(body)
            .and_then(|()| hearing.reading(framed))
            .map(|r| r.in_flight.total)
            .map_err(|e| e.class())
    };
    assert_eq!(read(b"0", true), Ok(0));
    assert_eq!(read(b"0", false), Err(AskErrorClass::NotJson));
    assert_eq!(read(b" 12\n", false), Err(AskErrorClass::NotJson));
}

fn hear(language: &Language, body: &[u8]) -> Result<Reading, AskError> {
    let asked = uid();
    let mut hearing = Hearing::new(language, &asked);
    hearing.take(body)?;
    hearing.reading(true)
}

fn sum_of(pointers: &[&str], idle_at: u32) -> Language {
    let pointers = pointers.iter().map(|pointer| (*pointer).to_owned()).collect::<Vec<_>>();
    Language::JsonPointer { pointers: pointers.try_into().unwrap(), idle_at }
}

fn json_pointer(body: &[u8], pointer: &str) -> Result<Reading, AskError> {
    hear(&sum_of(&[pointer], 0), body)
}

fn metric(body: &[u8]) -> Result<Reading, AskError> {
    let metrics = vec!["q".parse().unwrap()].try_into().unwrap();
    hear(&Language::Prometheus { metrics, when_absent: WhenAbsent::Busy, idle_at: 0 }, body)
}

#[test]
fn several_pointers_are_one_sum() {
    let total = |body: &[u8], pointers: &[&str]| {
        hear(&sum_of(pointers, 0), body).map(|r| r.in_flight.total).map_err(|e| e.class())
    };
    let body = br#"{"running": 3, "queued": {"mail": 4}, "name": "x"}"#;
    assert_eq!(total(body, &["/running", "/queued/mail"]), Ok(7));
    // P7: half of a count is no count.
    assert_eq!(total(br#"{"running": 0}"#, &["/running", "/queued"]), Err(AskErrorClass::PointerMissing));
    assert_eq!(total(body, &["/running", "/name"]), Err(AskErrorClass::NotACount));
    let most = format!(r#"{{"a": {0}, "b": {0}}}"#, count::LIMIT - 1);
    assert_eq!(total(most.as_bytes(), &["/a", "/b"]), Err(AskErrorClass::NotACount));
}

/// An endpoint that counts the question itself says 1 of an idle pod. What is decided by, and read, is what is left.
#[test]
fn a_count_of_the_question_itself_is_taken_off() {
    let left = |n: u64, idle_at| {
        let page = format!("q {n}\n");
        let metrics = vec!["q".parse().unwrap()].try_into().unwrap();
        let prometheus = Language::Prometheus { metrics, when_absent: WhenAbsent::Busy, idle_at };
        let by_page = hear(&prometheus, page.as_bytes()).unwrap().in_flight.total;
        let document = format!(r#"{{"a": {n}, "b": 0}}"#);
        let by_document = hear(&sum_of(&["/a", "/b"], idle_at), document.as_bytes()).unwrap().in_flight.total;
        assert_eq!(by_page, by_document);
        by_page
    };
    assert_eq!([left(0, 1), left(1, 1), left(2, 1), left(3, 0)], [0, 0, 1, 3]);
    assert!(json_pointer(b"{}", "/a").is_err(), "nothing is taken off what is not known");
}

proptest! {
    /// P7: whatever a pod sends, it is either a count below 2^53 or an error.
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

    /// P7: a status of a pod with three in flight, cut or with one byte changed, is never zero.
    #[test]
    fn a_damaged_status_is_never_zero(at in 0usize..400, cut: bool, byte: u8) {
        let mut body = status(|_| ());
        let at = at % body.len();
        if cut {
            body.truncate(at);
        } else {
            body[at] = byte;
        }
        let total = graceful(&body, &uid()).map(|r| r.in_flight.total);
        prop_assert!(total.as_ref().map_or(true, |n| *n > 0), "{}", String::from_utf8_lossy(&body));
    }

    /// Whatever JSON comes, what reads as an answer has all that an answer must have.
    #[test]
    fn any_json_is_an_answer_or_an_error(answer in any_status()) {
        let body = answer.to_string();
        let counts = [json_pointer(body.as_bytes(), "/inFlight/total"), json_pointer(body.as_bytes(), "/epoch")];
        for reading in counts.into_iter().flatten() {
            prop_assert!(reading.in_flight.total < count::LIMIT);
        }
        if let Ok(reading) = graceful(body.as_bytes(), &uid()) {
            prop_assert_eq!(&answer["podUid"], &json!("u-1"));
            prop_assert!(answer["accepting"].is_boolean() && reading.boot_id.is_some());
            prop_assert!(reading.epoch().is_some_and(|e| e.0 < count::LIMIT));
            let InFlight { total, queued, running, requests } = reading.in_flight;
            prop_assert!(total < count::LIMIT && total >= queued + running + requests);
            prop_assert!(answer["inFlight"]["total"].as_f64() == Some(total as f64));
        }
    }
}

/// Statuses whose fields may be anything.
fn any_status() -> impl Strategy<Value = Value> {
    let scalar = || {
        prop_oneof![
            Just(json!("v1")),
            Just(json!("u-1")),
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<u64>().prop_map(|n| json!(n)),
            (0u64..4).prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<f64>().prop_map(|n| json!(n)),
            "\\PC{0,4}".prop_map(|s| json!(s)),
        ]
    };
    let mostly = |usual: Value| prop_oneof![6 => Just(usual), 1 => scalar()];
    let counts = (scalar(), scalar(), scalar(), scalar())
        .prop_map(|(total, queued, running, requests)| json!({"total": total, "queued": queued, "running": running, "requests": requests}));
    let counts = prop_oneof![6 => counts, 1 => scalar(), 1 => Just(json!([0])), 2 => (0u64..9).prop_map(|n| json!({"total": n}))];
    (mostly(json!("v1")), mostly(json!("u-1")), mostly(json!("b")), mostly(json!(false)), mostly(json!(7)), counts).prop_map(
        |(protocol, uid, boot, accepting, epoch, counts)| {
            json!({"protocol": protocol, "podUid": uid, "bootId": boot, "accepting": accepting, "epoch": epoch, "inFlight": counts})
        },
    )
}
