//! Two operators and one lease: whichever dies, is stopped or loses it, the other goes on, and nothing is lost between them.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::scenarios::{Limits, Stage, spec, template};
use crate::leader::Timing;

/// A twentieth of what they are, in the proportions of the defaults.
fn fast() -> Timing {
    Timing {
        lease: Duration::from_millis(750),
        renew_deadline: Duration::from_millis(350),
        renew_every: Duration::from_millis(100),
        look_every: Duration::from_millis(25),
    }
}

/// Its task, and what tells it to stop.
type One = (JoinHandle<anyhow::Result<()>>, oneshot::Sender<()>);

struct Two {
    all: [Option<One>; 2],
}

impl Two {
    /// Kubernetes starts what has ended.
    async fn keep(&mut self, stage: &Stage) {
        for (n, one) in self.all.iter_mut().enumerate() {
            if one.as_ref().is_none_or(|(operator, _)| operator.is_finished()) {
                *one = Some(stage.elected(&format!("operator-{n}"), fast()).await);
            }
        }
    }

    fn leader(stage: &Stage) -> Option<usize> {
        let lease = stage.world.list("leases").pop()?;
        let holder = lease["spec"]["holderIdentity"].as_str()?.to_owned();
        (0..2).find(|n| holder.starts_with(&format!("operator-{n}_")))
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.all.iter().flatten().for_each(|(operator, _)| operator.abort());
    }
}

/// P1 and P3 over a hand-over in the midst of each rollout, by a stop and by a death in turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_leadership_changes_hands() {
    let mut stage = Stage::bare(31, 4);
    stage.world.write(|w| {
        let app = json!({"apiVersion": "graceful.dev/v1alpha1", "kind": "GracefulApp",
            "metadata": {"name": "tasks"}, "spec": spec(3)});
        w.create("gracefulapps", "apps", app).unwrap();
    });
    let mut two = Two { all: [None, None] };
    let limits = |serving| Limits { serving, pods: 4, kills: false };
    two.keep(&stage).await;
    stage.until("the first three pods", limits(0), |s| s.settled("0", 3)).await;
    for round in 1..=4 {
        two.keep(&stage).await;
        stage.until("a leader", limits(3), |s| Two::leader(s).is_some()).await;
        let leader = Two::leader(&stage).unwrap();
        let next = round.to_string();
        stage.change(&template(&next));
        stage
            .until("a rollout half way", limits(3), |s| {
                s.world.list("pods").iter().any(|p| p["metadata"]["labels"]["try"] == next.as_str())
            })
            .await;
        let (operator, stop) = two.all[leader].take().unwrap();
        if round % 2 == 0 {
            stop.send(()).unwrap();
            let _ended = operator.await;
        } else {
            operator.abort();
        }
        stage.until("the other leads", limits(3), |s| Two::leader(s).is_some_and(|now| now != leader)).await;
        two.keep(&stage).await;
        stage.until("a rollout", limits(3), |s| s.settled(&next, 3)).await;
    }
    stage.lost_nothing();
}
