//! With the real drain protocol, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use graceful_api::InFlightPolicy;
use graceful_drain::{Drain, Settings};
use graceful_plan::{Contact, PodUid, Restarted};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::probe::book::Book;
use crate::probe::{AppRef, Asker, Target};
use crate::telemetry::Metrics;

struct Scene {
    book: Book,
    trigger: Trigger,
    heard: UnboundedReceiver<AppRef>,
    talk: JoinSet<()>,
    app: JoinSet<()>,
    address: SocketAddr,
}

fn pod() -> PodUid {
    PodUid::from("u-1")
}

impl Scene {
    async fn with(drain: &Drain) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, heard) = Trigger::new();
        let mut scene = Self {
            book: Book::default(),
            trigger,
            heard,
            talk: JoinSet::new(),
            app: JoinSet::new(),
            address,
        };
        scene.serve(listener, drain);
        scene
    }

    fn serve(&mut self, listener: TcpListener, drain: &Drain) {
        let routes = drain.routes();
        self.app.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    }

    /// The process ends, and another one takes its port.
    async fn restart(&mut self, drain: &Drain) {
        self.app.shutdown().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener, drain);
    }

    fn say(&mut self, conversation: Conversation) {
        let policy = InFlightPolicy {
            container: "server".to_owned(),
            port: self.address.port(),
            path: "/drain".to_owned(),
            question: Language::Graceful,
            poll_interval_seconds: 1,
            timeout_seconds: 2,
        };
        let target = Target {
            app: AppRef::new("tasks").within("apps"),
            pod: "p".to_owned(),
            uid: pod(),
            address: self.address,
            policy,
            incarnation: None,
        };
        let line = Line {
            target,
            asker: Asker::that_reaches_loopback(),
            book: self.book.clone(),
            metrics: Arc::new(Metrics::new()),
            places: Arc::new(Semaphore::new(1)),
        };
        self.talk.spawn(hold(line, conversation, self.trigger.clone(), Pace::default()));
    }

    /// Reads the book at each trigger until it says so.
    async fn until(&mut self, what: &str, said: impl Fn(&Contact) -> bool) -> Contact {
        let search = async {
            loop {
                self.heard.recv().await.unwrap();
                if let Some(contact) = self.book.contacts([&pod()].into_iter()).remove(&pod()).filter(&said) {
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
    scene.say(DRAIN);
    let busy = |c: &Contact| {
        c.answer.as_ref().is_some_and(|a| a.in_flight.total == 1 && !a.protocol.unwrap().accepting)
    };
    scene.until("that it drains", busy).await;
    let ended = Instant::now();
    drop(task);
    scene.until("that it is idle", idle_in(7)).await;
    assert!(
        ended.elapsed() < Duration::from_millis(500),
        "well within the poll interval: {:?}",
        ended.elapsed()
    );
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
    scene.say(Conversation::Quiet { epoch: Epoch(7) });
    let contact = scene.until("two zeros", |c| c.quiet.is_some_and(|q| q.reads == 2)).await;
    let quiet = contact.quiet.unwrap();
    assert!(quiet.until > quiet.since);
    assert!(drain.status().accepting, "nobody told it anything");
}
