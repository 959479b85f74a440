//! Each rule of the kit is seen to fail on an implementation that breaks it, and none on one that breaks none.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use clap::Parser;
use futures::StreamExt;
use futures::stream;
use graceful_conformance::{Flags, Report, Verdict, hold, names};

/// A fault of `examples/faulty`, the rule that finds it, and a part of what it says.
struct Case(&'static str, &'static str, &'static str);

const CASES: [Case; 66] = [
    Case("may-be-stored", "get-answers", "Cache-Control is max-age=5"),
    Case("always-200", "known-tag-is-304", "was answered with 200"),
    Case("poll-is-not-held", "poll-is-held", "wait=1 was held for 0."),
    Case("poll-sleeps-on", "poll-wakes", "s after a PUT"),
    Case("poll-is-unbounded", "poll-is-bounded", "it applied Some(100000)"),
    Case("put-is-200", "put-drains", "with 200"),
    Case("never-latches", "put-lingers", "it was never closed"),
    Case("no-linger", "put-lingers", "lingerSeconds 2 was answered with Idle"),
    Case("retry-restarts-the-linger", "retry-changes-nothing", "never closed, after a PUT was sent again"),
    Case("takeover-reopens", "higher-epoch-takes-over", "upon a closed latch was answered with Lingering"),
    Case("takeover-shortens", "linger-is-never-shortened", "at a higher epoch without one"),
    Case("takes-any-epoch", "stale-put-is-409", "was answered with 202"),
    Case("linger-is-unbounded", "put-is-validated", "3601"),
    Case("unknown-fields-are-refused", "unknown-fields-are-ignored", "was answered with 422"),
    Case("resume-keeps-the-latch", "delete-resumes", "accepting: false"),
    Case("resume-only-once", "delete-again-is-200", "with 409"),
    Case("resume-needs-a-drain", "delete-while-serving-is-200", "with 409"),
    Case("resume-takes-any-epoch", "stale-delete-is-409", "was answered with 200"),
    Case("resume-keeps-the-epoch", "late-put-stays-out", "the old drain's PUT was answered with 202"),
    Case("linger-timer-lives-on", "resume-ends-the-linger", "after one of 1 s that was resumed"),
    Case("delete-without-an-epoch", "delete-is-validated", "DELETE /drain was answered with 200"),
    Case("refuses-without-retry-after", "latch-refuses", "without Retry-After"),
    Case("one-path-is-unlatched", "latch-refuses", "POST /task past the latch was answered with 200"),
    Case("latch-reopens", "latch-holds", "s after the latch it is Serving"),
    Case("health-behind-the-latch", "reads-are-answered", "draining, GET /health: 503"),
    Case("keeps-connections", "answers-say-close", "does not say it"),
    Case("idle-connections-stay", "idle-connections-close", "was still open"),
    Case("requests-are-not-counted", "requests-count", "never busy"),
    Case("the-latch-cuts", "what-was-accepted-ends", "latch"),
    Case("counts-to-the-head", "bodies-count-to-their-end", "before a body's end"),
    Case("who-leaves-stays-counted", "who-leaves-is-counted-out", "never at zero after a client that left"),
    Case(
        "failures-stay-counted",
        "failures-are-counted-out",
        "never at zero after requests whose handler failed",
    ),
    Case("tasks-are-not-counted", "tasks-count-to-their-end", "before a task's end"),
    Case("a-timer-works-on", "zero-stays-zero", "after it was idle it is Draining"),
    Case("sockets-are-in-flight", "sockets-hold-nothing-up", "never at zero in flight with one more"),
    Case("the-latch-closes-sockets", "sockets-outlive-the-latch", "was closed at the latch"),
    Case("gap-at-the-latch", "no-gap-at-the-latch", "round"),
    Case("requests-are-not-counted", "no-gap-at-the-latch", "0 were said to be in flight"),
    Case(
        "tasks-are-counted-late",
        "tasks-are-handed-over",
        "tasks that it had accepted could not have ended",
    ),
    Case("slow-under-load", "prompt-under-load", "an answer took"),
    Case("token-on-loopback", "loopback-needs-no-token", "without a token was answered with 401"),
    Case("believes-a-header", "loopback-needs-no-token", "X-Forwarded-For: 10.0.0.7 was answered with 401"),
    Case(
        "believes-a-header",
        "token-is-required",
        "X-Forwarded-For: 127.0.0.1 without a token was answered with 202",
    ),
    Case("token-is-optional", "token-is-required", "a PUT without a token was answered with 202"),
    Case("any-token-will-do", "token-is-for-this-alone", "a token whose iss is wrong was answered with 202"),
    Case("tokens-are-for-once", "token-again-changes-nothing", "its second use was answered with 401"),
    Case("a-field-is-missing", "status-has-its-fields", "/resumable is missing"),
    Case("total-is-off", "total-is-the-sum", "queued, running and requests are 1"),
    Case("idle-while-busy", "states-agree", "contradict each other"),
    Case("boot-ids-alternate", "boot-id-is-one", "the-other"),
    Case("epoch-is-a-clock", "epoch-is-what-was-told", "before it was told any"),
    Case("tag-without-counts", "tag-covers-what-decides", "was given to"),
    Case("tag-with-the-age", "tag-ignores-the-rest", "and then W/"),
    Case("refusals-in-plain-json", "refusals-are-problems", "application/json"),
    Case("sigterm-closes-at-once", "sigterm-lingers", "it closed at once"),
    Case("sigterm-exits-at-once", "sigterm-waits-for-work", "it ended with a request in flight"),
    Case("resume-after-sigterm", "sigterm-is-final", "a DELETE after SIGTERM was answered with 200"),
    Case("mute-at-the-end", "drain-answers-to-the-end", "s after its last answer"),
    Case("exits-with-3", "sigterm-exits-0", "it exited with 3"),
    Case("sockets-are-cut", "sockets-are-told", "was cut without a close frame"),
    Case("farewells-at-once", "sockets-are-told-spread", "were told within 0.0"),
    Case("idle-lingers", "idle-exits-soon", "s to exit"),
    Case("second-sigterm-aborts", "second-sigterm-in-a-pod", "it ended at a second SIGTERM"),
    Case("ignores-sigint", "sigint-aborts", "it went on"),
    Case("boot-id-is-fixed", "boot-id-is-new", "have the boot id the-one"),
    Case("epoch-is-a-clock", "boot-id-is-new", "begins at epoch 17"),
];

/// Of these the peer's address is half the matter; they are held over loopback, or over another address.
const OVER_LOOPBACK: [&str; 1] = ["loopback-needs-no-token"];
const FROM_ELSEWHERE: [&str; 3] =
    ["token-is-required", "token-is-for-this-alone", "token-again-changes-nothing"];

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An address of this machine that is no loopback one. Nothing is sent to find it.
fn elsewhere() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let found = socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr());
    let found = found.map(|address| address.ip()).ok().filter(|ip| !ip.is_loopback());
    found.expect("an address of this machine besides loopback's; without a network: --skip from_elsewhere")
}

/// Two ports below those that the kernel gives to connections, of which the race opens many.
fn ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 15_000 + u16::try_from(std::process::id() % 50).unwrap() * 300;
    let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    loop {
        let port = base + NEXT.fetch_add(2, Ordering::Relaxed) % 300;
        if is_free(port) && is_free(port + 1) {
            return (port, port + 1);
        }
    }
}

/// Beside this test's own folder, where cargo puts examples.
fn faulty() -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    let program = beside.parent().unwrap().parent().unwrap().join("examples/faulty");
    assert!(
        program.exists(),
        "run `cargo build -p graceful-conformance --examples` first, or test without --test"
    );
    program
}

async fn held(address: IpAddr, fault: &str, only: &str) -> anyhow::Result<Report> {
    let (port, admin) = ports();
    let faulty = faulty();
    let (ip, port_text, admin_text) = (address.to_string(), port.to_string(), admin.to_string());
    let command = ["--", faulty.to_str().unwrap(), &ip, &port_text, &admin_text, fault].map(str::to_owned);
    hold(flags(address, (port, admin), BODY, only, command.into_iter())).await
}

/// A request whose body is held back, and one that takes its time by itself.
const BODY: &str = "/slow {\"a\": 1}";
const NATURAL: &str = "/while";

fn flags(
    address: IpAddr,
    (port, admin): (u16, u16),
    slow: &str,
    only: &str,
    more: impl Iterator<Item = String>,
) -> Flags {
    let app = format!("http://{address}:{port}");
    let words = [
        "graceful-conformance".to_owned(),
        format!("http://{address}:{admin}"),
        format!("--app={app}/fast"),
        format!("--slow={} {app}{slow}", if slow == NATURAL { "GET" } else { "POST" }),
        format!("--stream={app}/stream"),
        format!("--fail={app}/fail"),
        format!("--task=POST {app}/task"),
        "--task-seconds=0.5".to_owned(),
        format!("--socket=ws://{address}:{port}/ws"),
        format!("--open={app}/health"),
        "--race=600".to_owned(),
    ];
    let only = (!only.is_empty()).then(|| format!("--only={only}"));
    Flags::try_parse_from(words.into_iter().chain(only).chain(more)).unwrap()
}

/// What the table says of a case, and what was found; None where they agree.
async fn differs(Case(fault, rule, says): &Case, address: IpAddr) -> Option<String> {
    let report = match held(address, fault, rule).await {
        Ok(report) => report,
        Err(error) => return Some(format!("{fault}: {error:#}")),
    };
    let found = &report.rules[0];
    let holds = found.verdict == Verdict::Failed && found.reason.contains(says);
    (!holds).then(|| format!("{fault}: {rule} {}: {:?}, not {says:?}", found.verdict.as_str(), found.reason))
}

async fn all_fail(cases: Vec<&Case>, address: IpAddr) {
    // They mostly wait.
    let held = stream::iter(cases).map(|case| differs(case, address)).buffer_unordered(8);
    let differ: Vec<String> = held.filter_map(std::future::ready).collect().await;
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn every_rule_has_a_fault_that_it_finds() {
    let found: BTreeSet<_> = CASES.iter().map(|Case(_, rule, _)| *rule).collect();
    assert_eq!(found, names().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found() {
    let here = CASES.iter().filter(|Case(_, rule, _)| !FROM_ELSEWHERE.contains(rule));
    all_fail(here.collect(), LOOPBACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_elsewhere_each_fault_of_tokens_is_found() {
    let there = CASES.iter().filter(|Case(_, rule, _)| FROM_ELSEWHERE.contains(rule));
    all_fail(there.collect(), elsewhere()).await;
}

fn all_pass(report: &Report, skipped: &[&str]) {
    let other: Vec<_> = report.rules.iter().filter(|held| held.verdict != Verdict::Passed).collect();
    let names: Vec<_> = other.iter().map(|held| held.rule).collect();
    assert_eq!((report.failed(), names.as_slice()), (0, skipped), "{}", report.table());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_every_rule_passes() {
    all_pass(&held(LOOPBACK, "none", "").await.unwrap(), &FROM_ELSEWHERE);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_elsewhere_without_a_fault_tokens_pass() {
    let only = [FROM_ELSEWHERE.as_slice(), &OVER_LOOPBACK].concat().join(",");
    all_pass(&held(elsewhere(), "none", &only).await.unwrap(), &OVER_LOOPBACK);
}

/// Of somebody else's process, and with a path that takes its time.
async fn held_by_pid(fault: &str, slow: &str, only: &str) -> Report {
    let (port, admin) = ports();
    let mut child = tokio::process::Command::new(faulty())
        .args([&LOOPBACK.to_string(), &port.to_string(), &admin.to_string(), fault])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while tokio::net::TcpStream::connect((LOOPBACK, admin)).await.is_err() {
        assert_eq!(child.try_wait().unwrap(), None, "it serves");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let pid = ["--pid".to_owned(), child.id().unwrap().to_string()];
    hold(flags(LOOPBACK, (port, admin), slow, only, pid.into_iter())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_not_ours_is_ended_once() {
    let only =
        "sigterm-lingers,sigterm-waits-for-work,sigterm-is-final,drain-answers-to-the-end,sockets-are-told";
    all_pass(&held_by_pid("none", BODY, only).await, &[]);
    // What nobody but its parent sees, and what takes another process.
    let only = "sigterm-exits-0,idle-exits-soon,boot-id-is-new,token-is-required";
    let report = held_by_pid("none", BODY, only).await;
    all_pass(&report, &["token-is-required", "sigterm-exits-0", "idle-exits-soon", "boot-id-is-new"]);
    let report = held_by_pid("resume-after-sigterm", BODY, "sigterm-is-final").await;
    assert_eq!(report.failed(), 1, "{}", report.table());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_takes_its_time_is_as_good_as_a_body() {
    let only = "requests-count,what-was-accepted-ends,who-leaves-is-counted-out,no-gap-at-the-latch,prompt-under-load";
    all_pass(&held_by_pid("none", NATURAL, only).await, &[]);
    for (fault, rule) in [
        ("requests-are-not-counted", "requests-count"),
        ("gap-at-the-latch", "no-gap-at-the-latch"),
        ("the-latch-cuts", "what-was-accepted-ends"),
    ] {
        let report = held_by_pid(fault, NATURAL, rule).await;
        assert_eq!(report.failed(), 1, "{fault}: {}", report.table());
    }
}
