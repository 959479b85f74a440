//! What a run looks like to a person: the lines of the golden transcripts.

use graceful_plan::{Action, Plan, Proof};

use super::World;

impl World {
    /// One line a second that has news: when, phase, sentence; then what is done.
    pub(super) fn record(&mut self, plan: &Plan) {
        let mut line = format!(
            "{:>4} s  {:<9}{}",
            self.elapsed(),
            format!("{:?}", plan.report.phase),
            plan.report.waiting_for
        );
        for action in &plan.actions {
            line.push_str("\n            → ");
            line.push_str(&words(action));
        }
        self.transcript.push(line.trim_end().to_owned());
    }
}

/// An action as a person would say it.
fn words(action: &Action) -> String {
    match action {
        Action::AddFinalizer => "add the finalizer".to_owned(),
        Action::ReleaseFinalizer => "release the finalizer".to_owned(),
        Action::Adopt => "adopt the Deployment".to_owned(),
        Action::Enlist { pod } => format!("label {}", pod.name),
        Action::Fence { service } => format!("fence Service {service}"),
        Action::Unfence { service } => format!("unfence Service {service}"),
        Action::LetGo { revision } => format!("let go of Deployment {revision}"),
        Action::LetGoService => "let go of the Service".to_owned(),
        Action::SyncService => "sync the Service".to_owned(),
        Action::SyncBudget => "sync the PodDisruptionBudget".to_owned(),
        Action::DryRunTemplate { revision } => format!("dry run of {revision}"),
        Action::CreateRevision { revision, replicas } => {
            format!("create {revision} with {replicas} replicas")
        }
        Action::SyncPolicy { revision } => format!("sync the policy of {revision}"),
        Action::RecordProven { revision } => format!("record that {revision} has worked"),
        Action::Nudge { revision } => format!("nudge the controller of {revision}"),
        Action::ScaleUp { revision, from, to } => format!("scale {revision} up, {from} to {to}"),
        Action::ScaleDown { revision, from, to } => format!("scale {revision} down, {from} to {to}"),
        Action::Unroute { pod, epoch, reason, .. } => {
            format!("unroute {} for {reason}, epoch {epoch}", pod.name)
        }
        Action::Unbridge { pod } => format!("end the linger of {}", pod.name),
        Action::Mark { pod, busy: true } => format!("mark {} as busy", pod.name),
        Action::Mark { pod, busy: false } => format!("mark {} as idle", pod.name),
        Action::Unmark { pod } => format!("unmark {}", pod.name),
        Action::PutBack { pod, epoch } => format!("put {} back, epoch {epoch}", pod.name),
        Action::Retire { pod, replicas, proof, .. } => {
            let proof = match proof {
                Proof::Idle { epoch } => format!("idle in epoch {epoch}"),
                Proof::Quiet { epoch } => format!("quiet in epoch {epoch}"),
                Proof::TokenRefused { epoch, grace_seconds } => {
                    format!("quiet in epoch {epoch}, since it refuses to be told, grace {grace_seconds} s")
                }
                Proof::HandedOver { epoch, grace_seconds } => {
                    format!("SIGTERM begins its own drain, epoch {epoch}, grace {grace_seconds} s")
                }
                Proof::Cut { epoch, tasks } => match tasks {
                    Some(n) => format!("cut with {n} in flight, epoch {epoch}"),
                    None => format!("cut unheard, epoch {epoch}"),
                },
                Proof::NotRunning => "nothing runs in it".to_owned(),
                Proof::NeverWorked { grace_seconds } => {
                    format!("its revision never worked, grace {grace_seconds} s")
                }
            };
            format!("delete {} ({proof}), its Deployment from {replicas}", pod.name)
        }
        Action::DeleteRevision { revision } => format!("delete Deployment {revision}"),
    }
}
