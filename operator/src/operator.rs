//! All that the loop works with, put together once by `run`. Each stage is handed what it uses of it, and no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use graceful_api::GracefulApp;
use kube::ResourceExt;

use crate::app_ref::AppRef;
use crate::execute::Supplies;
use crate::leader::Leadership;
use crate::memory::Memory;
use crate::observe::Sources;
use crate::probe::Probes;
use crate::pulse::Pulse;
use crate::report::Reporter;
use crate::telemetry::Metrics;

pub(crate) struct Operator {
    pub(crate) sources: Sources,
    pub(crate) probes: Probes,
    pub(crate) supplies: Supplies,
    pub(crate) reporter: Reporter,
    pub(crate) memory: Memory,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) metrics: Arc<Metrics>,
    /// Asked before each plan; the client in `sources` and the conversations ask it before each request.
    pub(crate) leadership: Leadership,
    /// None is all.
    pub(crate) namespaces: BTreeSet<String>,
}

impl Operator {
    /// Where two operators share a cluster, each leaves the other's namespaces alone. One that we may not list waits until we may.
    pub(crate) fn runs_in(&self, namespace: &str) -> bool {
        let ours = self.namespaces.is_empty() || self.namespaces.contains(namespace);
        ours && self.sources.stores.know(namespace)
    }

    /// Drops all that is remembered of an app that is gone.
    pub(crate) fn forget(&self, app: &GracefulApp) {
        self.memory.forget(&app.uid().unwrap_or_default());
        self.forget_ref(&AppRef::from_obj(app));
    }

    /// The same for what is kept by name.
    pub(crate) fn forget_ref(&self, app: &AppRef) {
        self.probes.forget(app);
        self.metrics.forget(app);
        self.pulse.forget(app);
        self.sources.stores.concerns.forget(app);
    }
}
