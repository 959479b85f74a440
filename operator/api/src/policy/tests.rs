//! What an annotation says, in each version of it.

use std::fmt;

use super::*;
use crate::members::Members;
use crate::spec::WhenAbsent;

fn one<T: PartialEq + fmt::Display>(member: T) -> Members<T> {
    vec![member].try_into().unwrap()
}

fn policy(when_absent: WhenAbsent) -> Policy {
    Policy {
        in_flight: InFlightPolicy {
            container: "web".to_owned(),
            app_container: None,
            port: 8000,
            path: "/metrics".to_owned(),
            question: Question::Prometheus {
                metrics: one(r#"q{state="running"}"#.parse().unwrap()),
                when_absent,
                idle_at: 0,
            },
            poll_interval_seconds: 1,
            timeout_seconds: 2,
        },
        drain: DrainPolicy {
            signal: Signal::Http,
            linger_seconds: 3,
            quiet_seconds: 5,
            deadline_seconds: 300,
            on_deadline: OnDeadline::Hold,
        },
    }
}

/// P5: golden: Deployments in users' clusters carry exactly this text. It stays so where `whenAbsent` is not used (P5).
#[test]
fn an_annotation_written_today_is_read_by_every_later_version() {
    let text = r#"{"inFlight":{"container":"web","port":8000,"path":"/metrics","question":{"format":"Prometheus","metric":"q{state=\"running\"}"},"pollIntervalSeconds":1,"timeoutSeconds":2},"drain":{"signal":"Http","lingerSeconds":3,"quietSeconds":5,"deadlineSeconds":300,"onDeadline":"Hold"}}"#;
    assert_eq!(policy(WhenAbsent::Busy).to_annotation(), text);
    assert_eq!(Policy::from_annotation(text).unwrap(), policy(WhenAbsent::Busy));
    let text = text.replace(r#"\"}"},"poll"#, r#"\"}","whenAbsent":"Zero"},"poll"#);
    assert_eq!(policy(WhenAbsent::Zero).to_annotation(), text);
    assert_eq!(Policy::from_annotation(&text).unwrap(), policy(WhenAbsent::Zero));
}

/// P1 over an upgrade: a revision of before, whose app may end at once on SIGTERM, keeps its quiet zero.
#[test]
fn the_sigterm_of_older_operators_stays_a_quiet_zero() {
    let reads = |word: &str| {
        let text = policy(WhenAbsent::Busy).to_annotation().replace("\"Http\"", &format!("\"{word}\""));
        Policy::from_annotation(&text).map(|p| p.drain.signal).ok()
    };
    assert_eq!((reads("Sigterm"), reads("Somehow")), (Some(Signal::None), None));
    for signal in [Signal::Http, Signal::Sigterm, Signal::None] {
        let mut written = policy(WhenAbsent::Busy);
        written.drain.signal = signal;
        assert_eq!(Policy::from_annotation(&written.to_annotation()).unwrap(), written);
    }
}

/// P1, P5 over an upgrade: what stands in users' clusters with the single names is asked as it was, and is not written anew.
#[test]
fn an_annotation_of_before_there_were_sums_is_read_and_written_as_it_stands() {
    let question = |text: &str| Policy::from_annotation(text).map(|p| p.in_flight.question);
    // Both as the operator of before wrote them.
    let metric = r#"{"inFlight":{"container":"web","port":8000,"path":"/metrics","question":{"format":"Prometheus","metric":"q{state=\"running\"}","whenAbsent":"Zero"},"pollIntervalSeconds":1,"timeoutSeconds":2},"drain":{"signal":"None","lingerSeconds":3,"quietSeconds":5,"deadlineSeconds":300,"onDeadline":"Hold"}}"#;
    let pointer = r#"{"inFlight":{"container":"web","port":8000,"path":"/stats","question":{"format":"JsonPointer","pointer":"/queue/length"},"pollIntervalSeconds":1,"timeoutSeconds":2},"drain":{"signal":"None","lingerSeconds":3,"quietSeconds":5,"deadlineSeconds":300,"onDeadline":"Hold"}}"#;
    let metrics = one(r#"q{state="running"}"#.parse().unwrap());
    let asks = Question::Prometheus { metrics, when_absent: WhenAbsent::Zero, idle_at: 0 };
    assert_eq!(question(metric).unwrap(), asks);
    let asks = Question::JsonPointer { pointers: one("/queue/length".to_owned()), idle_at: 0 };
    assert_eq!(question(pointer).unwrap(), asks);
    for text in [metric, pointer] {
        assert_eq!(Policy::from_annotation(text).unwrap().to_annotation(), text);
    }
}

/// P5: golden: a sum in an annotation. An operator of before does not read it, and lets the pods be.
#[test]
fn a_sum_in_an_annotation_is_read_by_every_later_version() {
    let mut sum = policy(WhenAbsent::Zero);
    sum.in_flight.question = Question::Prometheus {
        metrics: vec!["a".parse().unwrap(), r#"b{c="d"}"#.parse().unwrap()].try_into().unwrap(),
        when_absent: WhenAbsent::Zero,
        idle_at: 1,
    };
    let prometheus = r#"{"format":"Prometheus","metrics":["a","b{c=\"d\"}"],"whenAbsent":"Zero","idleAt":1}"#;
    let pointers = vec!["/running".to_owned(), "/queued".to_owned()].try_into().unwrap();
    let document = Question::JsonPointer { pointers, idle_at: 2 };
    let json_pointer = r#"{"format":"JsonPointer","pointers":["/running","/queued"],"idleAt":2}"#;
    for (question, text) in [(sum.in_flight.question, prometheus), (document, json_pointer)] {
        assert_eq!(serde_json::to_string(&question).unwrap(), text);
        assert_eq!(serde_json::from_str::<Question>(text).unwrap(), question);
    }
}

/// P7: an annotation that was edited by hand makes nobody idle.
#[test]
fn an_annotation_that_counts_nothing_is_refused() {
    for text in [
        r#"{"format":"Prometheus"}"#,
        r#"{"format":"Prometheus","metrics":[]}"#,
        r#"{"format":"Prometheus","metrics":["a","a"]}"#,
        r#"{"format":"Prometheus","metric":"a","metrics":["a","b"]}"#,
        r#"{"format":"JsonPointer"}"#,
        r#"{"format":"JsonPointer","pointers":[]}"#,
        r#"{"format":"JsonPointer","pointer":"/a","idleAt":1001}"#,
    ] {
        assert!(serde_json::from_str::<Question>(text).is_err(), "{text}");
    }
}
