//! How long what is told to a pod may be under way.

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::leader::Leadership;
use crate::probe::slots::AllSlots;

/// Of an app whose count may take a minute.
fn client(address: SocketAddr) -> PodClient {
    let policy = InFlightPolicy {
        container: "server".to_owned(),
        app_container: None,
        port: address.port(),
        path: "/drain".to_owned(),
        question: Language::Graceful,
        poll_interval_seconds: 1,
        timeout_seconds: 60,
    };
    let target = Target {
        app: AppRef::new("tasks").within("apps"),
        pod: "p".to_owned(),
        uid: PodUid::from("u-1"),
        address,
        policy,
        container_id: None,
        keys: Arc::default(),
    };
    PodClient {
        target,
        asker: Asker::that_reaches_loopback(),
        keyring: Keyring::default(),
        dialogues: Dialogues::default(),
        clock: Clock::default(),
        metrics: Arc::new(Metrics::new(Leadership::Sole)),
        slots: Slots::of_app(&AllSlots::of_this_process()),
        lane: Lane::Answers,
    }
}

/// A pod that takes connections and says nothing. The clock is the test's, so that a busy machine changes nothing.
#[tokio::test(start_paused = true)]
async fn what_is_told_to_a_pod_is_over_before_another_leads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    let took = async |request: Request| {
        let asked = Instant::now();
        let error = client.ask(request).await.unwrap_err();
        assert!(matches!(error, AskError::Timeout { .. }), "{error}");
        asked.elapsed().as_secs()
    };
    let (its_own, ours) = (client.target.policy.timeout().as_secs(), CALL_DEADLINE.as_secs());
    assert_eq!(took(Request::Status).await, its_own);
    assert_eq!(took(Request::Drain { epoch: Epoch(1), linger_seconds: 0 }).await, ours);
    // That of a pod that could not be put back is asked for its state as well.
    assert_eq!(took(Request::Resume { epoch: Epoch(2) }).await, ours + its_own);
}
