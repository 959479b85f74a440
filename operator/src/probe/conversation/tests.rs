//! With the real drain protocol, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::any;
use graceful_api::InFlightPolicy;
use graceful_drain::{Drain, Keys, Settings};
use graceful_plan::{Contact, PodUid, Restarted};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::app_ref::AppRef;
use crate::clock::Clock;
use crate::keys::{KeyId, Keyring, Ring, ids};
use crate::probe::dialogues::Dialogues;
use crate::probe::slots::{AllSlots, Slots};
use crate::probe::{Asker, Target, Triggered};
use crate::telemetry::Metrics;

struct Scene {
    dialogues: Dialogues,
    trigger: Trigger,
    heard: Triggered,
    talk: JoinSet<()>,
    app: JoinSet<()>,
    address: SocketAddr,
    slots: Slots,
    language: Language,
    keyring: Keyring,
    named: Arc<[KeyId]>,
    poll_interval_seconds: u32,
}

fn pod() -> PodUid {
    PodUid::from("u-1")
}

impl Scene {
    async fn with(drain: &Drain) -> Self {
        Self::of(drain.routes()).await
    }

    async fn of(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, heard) = Trigger::new();
        let mut scene = Self {
            dialogues: Dialogues::default(),
            trigger,
            heard,
            talk: JoinSet::new(),
            app: JoinSet::new(),
            address,
            slots: Slots::of_app(&AllSlots::of_this_process()),
            language: Language::Graceful,
            keyring: Keyring::default(),
            named: Arc::default(),
            poll_interval_seconds: 1,
        };
        scene.serve(listener, routes);
        scene
    }

    fn serve(&mut self, listener: TcpListener, routes: Router) {
        self.app.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    }

    /// The process ends, and another one takes its port.
    async fn restart(&mut self, drain: &Drain) {
        self.app.shutdown().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener, drain.routes());
    }

    fn say(&mut self, conversation: Conversation) {
        self.say_to(&pod(), self.address, conversation);
    }

    fn say_to(&mut self, uid: &PodUid, address: SocketAddr, conversation: Conversation) {
        let policy = InFlightPolicy {
            container: "server".to_owned(),
            app_container: None,
            port: address.port(),
            path: "/drain".to_owned(),
            question: self.language.clone(),
            poll_interval_seconds: self.poll_interval_seconds,
            timeout_seconds: 2,
        };
        let target = Target {
            app: AppRef::new("tasks").within("apps"),
            pod: "p".to_owned(),
            uid: uid.clone(),
            address,
            policy,
            container_id: None,
            keys: self.named.clone(),
        };
        let client = PodClient {
            clock: Clock::default(),
            target,
            asker: Asker::that_reaches_loopback(),
            keyring: self.keyring.clone(),
            dialogues: self.dialogues.clone(),
            metrics: Arc::new(Metrics::new(crate::leader::Leadership::Sole)),
            slots: self.slots.clone(),
            lane: Lane::Answers,
        };
        begin(&self.dialogues, &client.target, conversation, Timestamp::now());
        self.talk.spawn(hold(client, conversation, self.trigger.clone(), Pace::of(Duration::ZERO)));
    }

    /// Reads the dialogues at each trigger until it says so.
    async fn until(&mut self, what: &str, said: impl Fn(&Contact) -> bool) -> Contact {
        let search = async {
            loop {
                self.heard.recv().await.unwrap();
                if let Some(contact) =
                    self.dialogues.contacts([&pod()].into_iter()).remove(&pod()).filter(&said)
                {
                    return contact;
                }
            }
        };
        timeout(Duration::from_secs(20), search).await.unwrap_or_else(|_| panic!("never heard: {what}"))
    }
}

fn app() -> Drain {
    Drain::new(Settings { pod_uid: pod().0, ..Settings::default() })
}

fn idle_in(epoch: u64) -> impl Fn(&Contact) -> bool {
    move |contact| {
        contact.answer.as_ref().is_some_and(|a| {
            a.in_flight.total == 0 && a.protocol.is_some_and(|p| p.epoch == Epoch(epoch) && !p.accepting)
        })
    }
}

const DRAIN: Conversation = Conversation::Drain { epoch: Epoch(7), linger_seconds: 0 };

#[tokio::test]
async fn the_end_of_the_last_task_is_heard_at_once() {
    let drain = app();
    let task = drain.try_task().unwrap();
    let mut scene = Scene::with(&drain).await;
    scene.poll_interval_seconds = 60;
    scene.say(DRAIN);
    let busy = |c: &Contact| {
        c.answer.as_ref().is_some_and(|a| a.in_flight.total == 1 && !a.protocol.unwrap().accepting)
    };
    scene.until("that it drains", busy).await;
    drop(task);
    // `until` has less patience than the poll interval.
    scene.until("that it is idle", idle_in(7)).await;
}

#[tokio::test]
async fn a_restarted_app_is_told_again_and_the_restart_is_known() {
    let drain = app();
    let task = drain.try_task().unwrap();
    let mut scene = Scene::with(&drain).await;
    scene.say(DRAIN);
    scene.until("that it drains", |c| c.answer.as_ref().is_some_and(|a| a.in_flight.total == 1)).await;
    let again = app();
    scene.restart(&again).await;
    let contact = scene.until("that the new process drains", idle_in(7)).await;
    assert_eq!(contact.restarted, Some(Restarted { times: 1, last_known: 1 }));
    assert_eq!(again.status().epoch, 7);
    drop(task);
}

#[tokio::test]
async fn a_pod_that_has_seen_a_higher_epoch_says_so() {
    let drain = app();
    drain.start(9, Duration::ZERO).unwrap();
    let mut scene = Scene::with(&drain).await;
    scene.say(DRAIN);
    scene.until("the epoch that it has seen", idle_in(9)).await;
}

#[tokio::test]
async fn a_pod_is_told_to_serve_again_until_it_does() {
    let drain = app();
    drain.start(7, Duration::ZERO).unwrap();
    let mut scene = Scene::with(&drain).await;
    scene.say(Conversation::Resume { epoch: Epoch(8) });
    let accepts = |c: &Contact| c.answer.as_ref().and_then(|a| a.protocol).is_some_and(|p| p.accepting);
    scene.until("that it accepts", accepts).await;
    assert_eq!((drain.status().epoch, drain.status().accepting), (8, true));
}

#[tokio::test]
async fn zeros_are_counted_where_admission_cannot_be_closed() {
    let drain = app();
    let mut scene = Scene::with(&drain).await;
    scene.say(Conversation::CountZeros { epoch: Epoch(7) });
    let contact = scene.until("two zeros", |c| c.zero_run.is_some_and(|q| q.reads == 2)).await;
    let quiet = contact.zero_run.unwrap();
    assert!(quiet.until > quiet.since);
    assert!(drain.status().accepting, "nobody told it anything");
}

/// Status, epoch, boot id, accepting, in flight.
type Odd = (StatusCode, u64, &'static str, bool, u64);

/// An app that answers oddly: how often it is asked in three seconds, and what is known of it then.
async fn asks_of(odd: fn(&Method, u64) -> Odd, conversation: Conversation) -> (u64, Contact) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let answer = move |method: Method| async move {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let (status, epoch, boot, accepting, total) = odd(&method, n);
        let body = serde_json::json!({
            "protocol": "v1", "podUid": "u-1", "bootId": boot, "accepting": accepting, "epoch": epoch,
            "inFlight": {"total": total},
        });
        (status, [("etag", format!("\"{n}\""))], body.to_string())
    };
    let mut scene = Scene::of(Router::new().route("/drain", any(answer))).await;
    scene.say(conversation);
    sleep(Duration::from_secs(3)).await;
    let contact = scene.dialogues.contacts([&pod()].into_iter()).remove(&pod()).unwrap();
    (asked.load(Ordering::Relaxed), contact)
}

fn ok(method: &Method) -> StatusCode {
    if *method == Method::PUT { StatusCode::ACCEPTED } else { StatusCode::OK }
}

/// Nothing here is wrong: there is always something new to hear. Four a second is enough of it.
#[tokio::test]
async fn a_tag_that_never_holds_still_is_not_chased() {
    let (asks, _) = asks_of(|m: &Method, n| (ok(m), 7, "b", false, n + 1), DRAIN).await;
    assert!((8..=20).contains(&asks), "{asks} in 3 s");
}

#[tokio::test]
async fn several_processes_are_asked_as_often_as_it_was_configured() {
    let by_turns = |m: &Method, n| (ok(m), 7, if n % 2 == 0 { "a" } else { "b" }, false, 1);
    let (asks, contact) = asks_of(by_turns, DRAIN).await;
    assert!(asks <= 6, "{asks} in 3 s");
    assert!(contact.several && contact.restarted.is_none(), "{contact:?}");
}

/// 409 to each PUT, and a higher epoch at each look.
#[tokio::test]
async fn an_epoch_that_is_a_clock_is_asked_as_often_as_it_was_configured() {
    let clock = |m: &Method, n| {
        let status = if *m == Method::PUT { StatusCode::CONFLICT } else { StatusCode::OK };
        (status, 1000 + n, "b", true, 0)
    };
    let (asks, contact) = asks_of(clock, DRAIN).await;
    assert!(asks <= 8, "two a second: {asks} in 3 s");
    assert!(contact.astray.is_some_and(|a| a.times >= 2), "{contact:?}");
}

#[tokio::test]
async fn a_pod_that_obeys_and_never_latches_is_watched_in_peace() {
    let (asks, _) = asks_of(|m: &Method, _| (ok(m), 7, "b", true, 0), DRAIN).await;
    assert!(asks <= 6, "{asks} in 3 s");
}

#[tokio::test]
async fn a_pod_that_does_not_come_back_is_asked_as_often_as_it_was_configured() {
    let (asks, contact) =
        asks_of(|m: &Method, _| (ok(m), 8, "b", false, 0), Conversation::Resume { epoch: Epoch(8) }).await;
    assert!(asks <= 5, "{asks} in 3 s");
    assert!(contact.closed_since.is_some());
}

/// Two hundred pods of the app accept connections and never answer. The one that is quiet is asked all the same.
#[tokio::test]
async fn black_holes_do_not_starve_a_quiet_zero() {
    let mut scene = Scene::with(&app()).await;
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deep = hole.local_addr().unwrap();
    scene.app.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = hole.accept().await {
            held.push(stream);
        }
    });
    for n in 0..200 {
        scene.say_to(&PodUid(format!("hole-{n}")), deep, Conversation::CountZeros { epoch: Epoch(7) });
    }
    scene.say(Conversation::CountZeros { epoch: Epoch(7) });
    let held = |c: &Contact| c.zero_run.is_some_and(|q| q.until.duration_since(q.since).as_secs() >= 5);
    let contact = scene.until("a zero that holds for five seconds", held).await;
    assert!(contact.zero_run.unwrap().reads >= 4, "{contact:?}");
}

/// A process that keeps its epoch and its latch over a restart answers as its predecessor would have, with nothing in flight. It is told again.
#[tokio::test]
async fn a_restart_in_mid_drain_is_told_again_even_if_it_remembers() {
    let remembers = |m: &Method, n| {
        let (boot, total) = if n == 0 { ("a", 3) } else { ("b", 0) };
        let status = if n == 1 && *m == Method::PUT { StatusCode::INTERNAL_SERVER_ERROR } else { ok(m) };
        (status, 7, boot, false, total)
    };
    let (asks, contact) = asks_of(remembers, DRAIN).await;
    assert!((3..=8).contains(&asks), "{asks} in 3 s");
    assert_eq!(contact.restarted, Some(Restarted { times: 1, last_known: 3 }));
    assert_eq!(contact.acknowledged.map(|known| known.epoch), Some(Epoch(7)), "the third question was PUT");
}

/// Keeps P7. Clients would be sent to it if nobody knew that it is closed.
#[tokio::test]
async fn a_pod_that_fails_to_open_is_heard_all_the_same() {
    let fails = |m: &Method, _| {
        let status = if *m == Method::DELETE { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        (status, 7, "b", false, 0)
    };
    let (_, contact) = asks_of(fails, Conversation::Resume { epoch: Epoch(8) }).await;
    assert!(contact.answer.and_then(|a| a.protocol).is_some_and(|p| !p.accepting));
    assert!(contact.opening.is_some() && contact.error.is_some());
}

/// 409 is no acknowledgement, whatever the pod's own view says.
#[tokio::test]
async fn a_refused_epoch_is_not_acknowledged() {
    let refuses = |m: &Method, _| {
        let status = if *m == Method::PUT { StatusCode::CONFLICT } else { StatusCode::OK };
        (status, 7, "b", false, 0)
    };
    let (_, contact) = asks_of(refuses, DRAIN).await;
    assert_eq!(contact.acknowledged, None);
}

/// What thousands of series and a histogram a route come to. Past the limit it is an error.
#[tokio::test]
async fn a_page_of_megabytes_is_read() {
    for (bytes, found) in [(2_000_000, Ok(5)), (17_000_000, Err("is longer than 16777216 bytes"))] {
        let mut page = String::with_capacity(bytes + 200);
        while page.len() < bytes {
            page.push_str("http_request_duration_seconds_bucket{route=\"/v1/things\",le=\"0.5\"} 1234\n");
        }
        page.push_str("jobs_running 5\n");
        let mut scene = Scene::of(Router::new().route("/drain", any(|| async move { page }))).await;
        let metrics = vec!["jobs_running".parse().unwrap()].try_into().unwrap();
        let when_absent = graceful_api::WhenAbsent::Busy;
        scene.language = Language::Prometheus { metrics, when_absent, idle_at: 0 };
        scene.say(Conversation::Ask);
        let contact = scene.until("a word", |c| c.tried_at.is_some()).await;
        match (contact.answer, contact.error, found) {
            (Some(answer), None, Ok(found)) => assert_eq!(answer.in_flight.total, found),
            (None, Some(error), Err(why)) => assert!(error.message.contains(why), "{error:?}"),
            met => panic!("{met:?}"),
        }
    }
}

/// A pod that was given the public halves of this ring.
fn verifying(ring: &Ring) -> Drain {
    let keys = Some(Keys::from_jwk_set(&ring.public_halves()).unwrap());
    Drain::new(Settings { pod_uid: pod().0, keys, ..Settings::default() })
}

impl Scene {
    /// The operator holds the first ring, and the pod names the keys of the second.
    fn signs(&mut self, held: &Ring, named: &Ring) {
        self.keyring = Keyring::of(held.clone());
        self.named = ids(&named.public_halves()).into();
    }
}

#[tokio::test]
async fn a_pod_that_verifies_is_told_with_a_token_and_resumed_with_another() {
    let ring = Ring::random(&mut rand::rng());
    let drain = verifying(&ring);
    let mut scene = Scene::with(&drain).await;
    scene.signs(&ring, &ring);
    scene.say(DRAIN);
    let contact = scene.until("that it is idle", idle_in(7)).await;
    assert_eq!((contact.acknowledged.map(|known| known.epoch), contact.refused), (Some(Epoch(7)), None));
    scene.talk.shutdown().await;
    scene.say(Conversation::Resume { epoch: Epoch(8) });
    let accepts = |c: &Contact| c.answer.as_ref().and_then(|a| a.protocol).is_some_and(|p| p.accepting);
    scene.until("that it accepts", accepts).await;
}

#[tokio::test]
async fn a_pod_of_before_the_last_rotation_is_told_all_the_same() {
    let first = Ring::random(&mut rand::rng());
    let drain = verifying(&first);
    let mut scene = Scene::with(&drain).await;
    let now = Timestamp::now();
    scene.signs(&first.rotated(&mut rand::rng(), now).rotated(&mut rand::rng(), now), &first);
    scene.say(DRAIN);
    scene.until("that it is idle", idle_in(7)).await;
}

#[tokio::test]
async fn a_restarted_app_is_told_with_a_token_for_its_new_process() {
    let ring = Ring::random(&mut rand::rng());
    let (drain, again) = (verifying(&ring), verifying(&ring));
    let task = drain.try_task().unwrap();
    let mut scene = Scene::with(&drain).await;
    scene.signs(&ring, &ring);
    scene.say(DRAIN);
    scene.until("that it drains", |c| c.answer.as_ref().is_some_and(|a| a.in_flight.total == 1)).await;
    scene.restart(&again).await;
    let contact = scene.until("that the new process drains", idle_in(7)).await;
    assert_eq!(contact.refused, None);
    drop(task);
}

/// A lost key, and an operator without any: both are refused, and say so in the pod's own words.
#[tokio::test]
async fn a_pod_that_knows_no_key_of_ours_refuses_and_is_heard_all_the_same() {
    let (lost, ours) = (Ring::random(&mut rand::rng()), Ring::random(&mut rand::rng()));
    let drain = verifying(&lost);
    let mut scene = Scene::with(&drain).await;
    scene.signs(&ours, &lost);
    scene.say(DRAIN);
    let contact = scene.until("a refusal", |c| c.refused.is_some()).await;
    assert!(contact.refused.unwrap().message.starts_with("401: Bearer realm"));
    assert!(contact.answer.is_some() && contact.error.is_none(), "it answers");
    // It names a key of ours, and does not know it after all.
    let mut scene = Scene::with(&drain).await;
    scene.signs(&ours, &ours);
    scene.say(DRAIN);
    let contact = scene.until("a refusal", |c| c.refused.is_some()).await;
    assert!(contact.refused.unwrap().message.starts_with("401: this pod does not know that key; it knows "));
    assert_eq!(drain.status().epoch, 0);
    scene.talk.shutdown().await;
    scene.say(Conversation::CountZeros { epoch: Epoch(7) });
    scene.until("two zeros", |c| c.zero_run.is_some_and(|q| q.reads == 2)).await;
}

/// It gets no token, and asks for none.
#[tokio::test]
async fn a_pod_that_names_no_key_is_told_as_ever() {
    let ring = Ring::random(&mut rand::rng());
    let drain = app();
    let mut scene = Scene::with(&drain).await;
    scene.keyring = Keyring::of(ring);
    scene.say(DRAIN);
    scene.until("that it is idle", idle_in(7)).await;
}

/// What a server of another make says: its uid, its boot id by the number of the question, its own `Date`, and a 401 to what is told it without being
/// satisfied by `takes`.
async fn told(
    boot: fn(u64) -> &'static str,
    uid: fn(u64) -> &'static str,
    date: &'static str,
    takes: fn(&serde_json::Value) -> bool,
) -> Contact {
    let ring = Ring::random(&mut rand::rng());
    let asked = Arc::new(AtomicU64::new(0));
    let answer = move |method: Method, headers: HeaderMap| async move {
        let n = asked.fetch_add(1, Ordering::Relaxed);
        let claims = headers.get("authorization").map(|token| {
            use base64::Engine as _;
            let payload = token.to_str().unwrap().split('.').nth(1).unwrap().to_owned();
            let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
            serde_json::from_slice(&payload).unwrap()
        });
        let refused = method != Method::GET && !claims.is_some_and(|claims| takes(&claims));
        let status = if refused { StatusCode::UNAUTHORIZED } else { ok(&method) };
        let body = serde_json::json!({
            "protocol": "v1", "podUid": uid(n), "bootId": boot(n), "accepting": false, "epoch": 7, "inFlight": {"total": 0},
        });
        (status, [("date", date)], body.to_string())
    };
    let mut scene = Scene::of(Router::new().route("/drain", any(answer))).await;
    scene.signs(&ring, &ring);
    scene.say(DRAIN);
    sleep(Duration::from_millis(1500)).await;
    scene.dialogues.contacts([&pod()].into_iter()).remove(&pod()).unwrap()
}

/// Five hours ahead, or two years behind: skew refuses nobody.
#[tokio::test]
async fn a_token_expires_by_the_pod_s_own_clock() {
    let takes = |claims: &serde_json::Value| claims["exp"] == 1_800_000_060;
    let contact = told(|_| "b", |_| "u-1", "Fri, 15 Jan 2027 08:00:00 GMT", takes).await;
    assert_eq!((contact.acknowledged.map(|known| known.epoch), contact.refused), (Some(Epoch(7)), None));
    let contact = told(
        |_| "b",
        |_| "u-1",
        "nonsense",
        |claims| {
            let ours = Timestamp::now().as_second() + 60;
            claims["exp"].as_i64().is_some_and(|exp| (exp - ours).abs() < 5)
        },
    )
    .await;
    assert_eq!(
        contact.acknowledged.map(|known| known.epoch),
        Some(Epoch(7)),
        "without a date, ours has to do"
    );
}

/// GET, PUT, GET: it was restarted after the first, so that its refusal says nothing of our key.
#[tokio::test]
async fn a_refusal_of_a_token_for_a_process_that_is_gone_counts_for_nothing() {
    let date = "Fri, 15 Jan 2027 08:00:00 GMT";
    let boot = |n| if n == 0 { "a" } else { "b" };
    let contact = told(boot, |_| "u-1", date, |claims| claims["boot"] == "b").await;
    assert_eq!((contact.acknowledged.map(|known| known.epoch), contact.refused), (Some(Epoch(7)), None));
}

#[tokio::test]
async fn a_stranger_s_refusal_at_the_pod_s_address_counts_for_nothing() {
    let date = "Fri, 15 Jan 2027 08:00:00 GMT";
    let uid = |n| if n == 0 { "u-1" } else { "u-2" };
    let contact = told(|_| "b", uid, date, |_| false).await;
    assert_eq!(contact.refused, None);
    assert!(contact.error.unwrap().message.contains("u-2"));
}
