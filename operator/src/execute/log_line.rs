//! What the log says of an action: what was wanted where it was not done, and what was done where it was.

use graceful_plan::Action;

use super::Outcome;
use crate::error::{Error, chain};

/// One line: what, to whom, in which epoch, and why.
pub(super) fn line(action: &Action, outcome: &Result<Outcome, Error>) -> String {
    match outcome {
        Ok(Outcome::Done) => result(action),
        Ok(Outcome::DoneLookAgain(why)) => format!("{}; looking again: {why}", result(action)),
        Ok(Outcome::NotNeeded(why)) => format!("no need to {}: {why}", intent(action)),
        // It names what is refused.
        Ok(Outcome::Refused(why)) => format!("refused: {why}"),
        Ok(Outcome::LookAgain(why)) => format!("did not {}: {why}; looking again", intent(action)),
        Ok(Outcome::Answered) => {
            format!("{}; looking again: what it answered is for the next plan", result(action))
        }
        Ok(Outcome::Later) => {
            format!("did not {}: pods of other apps are marked first; looking again", intent(action))
        }
        Ok(Outcome::GrownOld) => format!("did not {}: the plan has grown old; looking again", intent(action)),
        Err(error) => format!("cannot {}: {}", intent(action), chain(error)),
    }
}

/// What is wanted, as it follows "cannot".
fn intent(action: &Action) -> String {
    match action {
        Action::AddFinalizer => "add the finalizer".to_owned(),
        Action::ReleaseFinalizer => "remove the finalizer".to_owned(),
        Action::Adopt => "adopt the Deployment of spec.adopt".to_owned(),
        Action::Enlist { pod } => format!("label pod {} as one of the app's", pod.name),
        Action::Fence { service } => format!("have Service {service} ask for the serving label"),
        Action::Unfence { service } => format!("have Service {service} select as before its adoption"),
        Action::LetGo { revision } => format!("let go of the Deployment of revision {revision}"),
        Action::LetGoService => "let go of the Service".to_owned(),
        Action::SyncService => "make the Service as the spec says".to_owned(),
        Action::SyncBudget => "make the PodDisruptionBudget as wanted".to_owned(),
        Action::DryRunTemplate { revision } => format!("dry-run the Deployment of revision {revision}"),
        Action::CreateRevision { revision, replicas } => {
            format!("create the Deployment of revision {revision} with {replicas} replicas")
        }
        Action::SyncPolicy { revision } => format!("write the drain policy of revision {revision}"),
        Action::RecordProven { revision } => format!("write that revision {revision} has worked"),
        Action::Nudge { revision } => {
            format!(
                "write to the Deployment of revision {revision}, so that its controllers look at it again"
            )
        }
        Action::DeleteRevision { revision } => {
            format!("delete the Deployment of revision {revision}, which has no pods left")
        }
        Action::ScaleUp { revision, from, to } => {
            format!("scale revision {revision} up from {from} to {to}")
        }
        Action::ScaleDown { revision, from, to } => {
            format!("scale revision {revision} down from {from} to {to}, where no pod has started")
        }
        Action::Unroute { pod, epoch, reason, .. } => {
            format!("take pod {} out of service in epoch {epoch} for {reason}", pod.name)
        }
        Action::PutBack { pod, epoch } => {
            format!("return pod {} to service in epoch {epoch}", pod.name)
        }
        Action::Unbridge { pod } => format!("remove the EndpointSlices of pod {}", pod.name),
        Action::Mark { pod, busy } => format!("mark pod {} as {}", pod.name, busy_or_idle(*busy)),
        Action::Unmark { pod } => format!("take the mark off pod {}", pod.name),
        Action::Retire { pod, proof, .. } => format!("end pod {} ({proof})", pod.name),
    }
}

/// What was done.
fn result(action: &Action) -> String {
    match action {
        Action::AddFinalizer => "added the finalizer".to_owned(),
        Action::ReleaseFinalizer => "removed the finalizer: nothing of this app is left to do".to_owned(),
        Action::Adopt => "adopted the Deployment of spec.adopt: it is paused".to_owned(),
        Action::Enlist { pod } => format!("labelled pod {} as one of the app's", pod.name),
        Action::Fence { service } => format!("had Service {service} ask for the serving label"),
        Action::Unfence { service } => format!("had Service {service} select as before its adoption"),
        Action::LetGo { revision } => {
            format!("let go of the Deployment of revision {revision}: it is a plain one")
        }
        Action::LetGoService => "let go of the Service".to_owned(),
        Action::SyncService => "made the Service as the spec says".to_owned(),
        Action::SyncBudget => "made the PodDisruptionBudget as wanted".to_owned(),
        Action::DryRunTemplate { revision } => format!("dry-ran the Deployment of revision {revision}"),
        Action::CreateRevision { revision, replicas } => {
            format!("created the Deployment of revision {revision} with {replicas} replicas")
        }
        Action::SyncPolicy { revision } => format!("wrote the drain policy of revision {revision}"),
        Action::RecordProven { revision } => format!("wrote that revision {revision} has worked"),
        Action::Nudge { revision } => {
            format!(
                "wrote to the Deployment of revision {revision}, so that its controllers look at it again"
            )
        }
        Action::DeleteRevision { revision } => {
            format!("deleted the Deployment of revision {revision}, which had no pods left")
        }
        Action::ScaleUp { revision, from, to } => {
            format!("scaled revision {revision} up from {from} to {to}")
        }
        Action::ScaleDown { revision, from, to } => {
            format!("scaled revision {revision} down from {from} to {to}, where no pod had started")
        }
        Action::Unroute { pod, epoch, reason, .. } => {
            format!("took pod {} out of service in epoch {epoch} for {reason}", pod.name)
        }
        Action::PutBack { pod, epoch } => {
            format!("returned pod {} to service in epoch {epoch}", pod.name)
        }
        Action::Unbridge { pod } => format!("removed the EndpointSlices of pod {}", pod.name),
        Action::Mark { pod, busy } => format!("marked pod {} as {}", pod.name, busy_or_idle(*busy)),
        Action::Unmark { pod } => format!("took the mark off pod {}", pod.name),
        Action::Retire { pod, proof, .. } => format!("ended pod {} ({proof})", pod.name),
    }
}

fn busy_or_idle(busy: bool) -> &'static str {
    if busy { "busy" } else { "idle" }
}

#[cfg(test)]
mod tests {
    use graceful_api::RevisionHash;
    use graceful_plan::{Epoch, PodRef, PodUid, Proof};

    use super::*;

    #[test]
    fn the_log_says_that_a_pod_was_ended_only_where_it_was() {
        let retire = Action::Retire {
            pod: PodRef { name: "tasks-a".to_owned(), uid: PodUid::from("u") },
            revision: RevisionHash::from("r"),
            replicas: 3,
            proof: Proof::Idle { epoch: Epoch(7) },
            as_well: Vec::new(),
        };
        let said = |outcome| line(&retire, &outcome);
        assert_eq!(said(Ok(Outcome::Done)), "ended pod tasks-a (idle in epoch 7)");
        assert_eq!(
            said(Ok(Outcome::DoneLookAgain("its replica was not taken back"))),
            "ended pod tasks-a (idle in epoch 7); looking again: its replica was not taken back"
        );
        assert_eq!(
            said(Ok(Outcome::NotNeeded("it has finished by itself"))),
            "no need to end pod tasks-a (idle in epoch 7): it has finished by itself"
        );
        assert_eq!(
            said(Ok(Outcome::LookAgain("it was changed meanwhile"))),
            "did not end pod tasks-a (idle in epoch 7): it was changed meanwhile; looking again"
        );
        assert_eq!(
            said(Err(Error::NotLeading { what: "delete a pod" })),
            "cannot end pod tasks-a (idle in epoch 7): did not delete a pod: this operator does not lead"
        );
    }
}
