//! Condition types and reasons, in the one order they are written in.

use std::fmt;

/// A condition's type. The order here is their order in status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// At least `replicas − maxUnavailable` pods serve.
    Available,
    /// A rollout goes on or is complete; False when it got stuck.
    Progressing,
    /// No pod is draining.
    Drained,
    /// Something the user should know and nothing waits for: a grace too short, a probe that fails while draining.
    Warning,
    /// kstatus: the operator still works towards the spec.
    Reconciling,
    /// kstatus: it cannot go on without help; the message says what would help.
    Stalled,
}

impl ConditionType {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Available, Self::Progressing, Self::Drained, Self::Warning, Self::Reconciling, Self::Stalled];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Progressing => "Progressing",
            Self::Drained => "Drained",
            Self::Warning => "Warning",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a condition has its status. A closed list, so that alerts can name them all; docs/status.md does, and a test holds it to [`Reason::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// All is as the spec says.
    AsDesired,
    /// Enough pods serve.
    MinimumReplicasAvailable,
    /// Too few pods serve.
    MinimumReplicasUnavailable,
    /// A new revision is being rolled out.
    RollingOut,
    /// Pods are being added or drained for a new number of replicas.
    Scaling,
    /// Pods are draining.
    Draining,
    /// Pods on a node that leaves are replaced, and drain.
    NodeDraining,
    /// A node with pods of the app dies soon, whatever is done: they accept nothing more.
    NodeDies,
    /// Pods stay on a node that is cordoned or marked by an autoscaler.
    NodeKept,
    /// Pods that others ended (a delete, an eviction) finish their work.
    EndedByOthers,
    /// A pod is past its deadline and is kept: by `onDeadline: Hold`, or, with signal Sigterm, since its container has crashed and its next start may find
    /// work in a volume.
    DeadlineHeld,
    /// The API server, an admission webhook or the cluster's controllers are too slow to end pods safely, or to take our writes.
    ControlPlaneSlow,
    /// `rollout.paused` is set.
    Paused,
    /// The GracefulApp is being deleted.
    Deleting,
    /// The spec contradicts itself, or it or a Deployment of the app cannot be read; the message names the field.
    InvalidSpec,
    /// Kubernetes refuses the template or a child; the message is its own.
    Refused,
    /// Pods were made and ended without getting nearer to the spec, or are asked for and none comes: the operator goes on slowly.
    NoProgress,
    /// New pods cannot be made, do not become Available, or are Available and do not accept, for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded,
    /// New pods are Available, but their in-flight endpoint gives no valid answer.
    InFlightUnreadable,
    /// A Service of the user's own selects the pods without the serving label.
    UnfencedService,
    /// A PodDisruptionBudget of the user's own covers the same pods.
    ForeignDisruptionBudget,
    /// Another field manager has set something on a child that clients may notice; it is left.
    SetByOthers,
    /// A pod with this app's label belongs to none of its Deployments: nobody drains it.
    PodLetGo,
    /// A Deployment with this app's label is another app's, of an earlier one of this name, or a copy: nobody drains its pods.
    ForeignDeployment,
    /// A Deployment is being adopted: some of its pods are left. New ones of it get clients only while an operator runs.
    Adopting,
    /// The Deployment that `spec.adopt` names cannot be adopted yet, or is not drained since an autoscaler scales it; the message says what it waits for, or what to do.
    AdoptionWaits,
    /// Others change a child back each time it is put right.
    ChangedByOthers,
    /// A targetPort of the Service is the name of no container's port.
    NoSuchPort,
    /// What is baked into running pods (grace period, hook) differs from the spec.
    BakedInDiffers,
    /// The template's grace period is shorter than a drain may take.
    GraceTooShort,
    /// A probe's path fails while the pod drains.
    ProbeFailsWhileDraining,
    /// A container beside a gate has a preStop hook of its own, which does not wait for the gate.
    HookBesideGate,
    /// The NetworkPolicies over the pods let nobody in to the gate.
    GateShutOff,
    /// What a pod answers contradicts the drain protocol.
    ProtocolBroken,
    /// A pod refuses our token: it cannot be told to drain, and is ended once its in-flight count has stayed 0 for quietSeconds.
    TokenRefused,
    /// Pods that were to verify who drains them do not: the keys could not be read as their revision was made.
    DoesNotVerify,
    /// A pod is still there a minute after its end began.
    EndsSlowly,
    /// The operator failed on this app by a fault of its own, and retries slowly; the message is for a bug report.
    OperatorFault,
    /// More than one thing to warn of; the message lists them.
    SeveralWarnings,
}

impl Reason {
    /// All, as they stand above.
    pub const ALL: [Self; 39] = [
        Self::AsDesired,
        Self::MinimumReplicasAvailable,
        Self::MinimumReplicasUnavailable,
        Self::RollingOut,
        Self::Scaling,
        Self::Draining,
        Self::NodeDraining,
        Self::NodeDies,
        Self::NodeKept,
        Self::EndedByOthers,
        Self::DeadlineHeld,
        Self::ControlPlaneSlow,
        Self::Paused,
        Self::Deleting,
        Self::InvalidSpec,
        Self::Refused,
        Self::NoProgress,
        Self::ProgressDeadlineExceeded,
        Self::InFlightUnreadable,
        Self::UnfencedService,
        Self::ForeignDisruptionBudget,
        Self::SetByOthers,
        Self::PodLetGo,
        Self::ForeignDeployment,
        Self::Adopting,
        Self::AdoptionWaits,
        Self::ChangedByOthers,
        Self::NoSuchPort,
        Self::BakedInDiffers,
        Self::GraceTooShort,
        Self::ProbeFailsWhileDraining,
        Self::HookBesideGate,
        Self::GateShutOff,
        Self::ProtocolBroken,
        Self::TokenRefused,
        Self::DoesNotVerify,
        Self::EndsSlowly,
        Self::OperatorFault,
        Self::SeveralWarnings,
    ];

    /// The name on the wire: CamelCase, as the API conventions want.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AsDesired => "AsDesired",
            Self::MinimumReplicasAvailable => "MinimumReplicasAvailable",
            Self::MinimumReplicasUnavailable => "MinimumReplicasUnavailable",
            Self::RollingOut => "RollingOut",
            Self::Scaling => "Scaling",
            Self::Draining => "Draining",
            Self::NodeDraining => "NodeDraining",
            Self::NodeDies => "NodeDies",
            Self::NodeKept => "NodeKept",
            Self::EndedByOthers => "EndedByOthers",
            Self::DeadlineHeld => "DeadlineHeld",
            Self::ControlPlaneSlow => "ControlPlaneSlow",
            Self::Paused => "Paused",
            Self::Deleting => "Deleting",
            Self::InvalidSpec => "InvalidSpec",
            Self::Refused => "Refused",
            Self::NoProgress => "NoProgress",
            Self::ProgressDeadlineExceeded => "ProgressDeadlineExceeded",
            Self::InFlightUnreadable => "InFlightUnreadable",
            Self::UnfencedService => "UnfencedService",
            Self::ForeignDisruptionBudget => "ForeignDisruptionBudget",
            Self::SetByOthers => "SetByOthers",
            Self::PodLetGo => "PodLetGo",
            Self::ForeignDeployment => "ForeignDeployment",
            Self::Adopting => "Adopting",
            Self::AdoptionWaits => "AdoptionWaits",
            Self::ChangedByOthers => "ChangedByOthers",
            Self::NoSuchPort => "NoSuchPort",
            Self::BakedInDiffers => "BakedInDiffers",
            Self::GraceTooShort => "GraceTooShort",
            Self::ProbeFailsWhileDraining => "ProbeFailsWhileDraining",
            Self::HookBesideGate => "HookBesideGate",
            Self::GateShutOff => "GateShutOff",
            Self::ProtocolBroken => "ProtocolBroken",
            Self::TokenRefused => "TokenRefused",
            Self::DoesNotVerify => "DoesNotVerify",
            Self::EndsSlowly => "EndsSlowly",
            Self::OperatorFault => "OperatorFault",
            Self::SeveralWarnings => "SeveralWarnings",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reason has one row in the table of docs/status.md, and each row is a reason's.
    #[test]
    fn the_docs_name_every_condition_and_every_reason() {
        let docs = include_str!("../../../docs/status.md");
        let named = |heading: &str| {
            let after = docs.split_once(heading).map_or("", |(_, after)| after);
            let section = after.split("\n## ").next().unwrap_or_default();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| **")?.split("**").next());
            rows.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
        let mut in_docs = named("\n## Reasons\n");
        reasons.sort();
        in_docs.sort();
        assert_eq!(in_docs, reasons);
        let types: Vec<_> = ConditionType::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
        assert_eq!(named("\n## Conditions\n"), types);
    }
}
