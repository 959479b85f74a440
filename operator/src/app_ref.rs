//! Whom a plan, a probe or a metric is about.

use graceful_api::GracefulApp;
use kube::runtime::reflector::ObjectRef;

/// An app by its name and namespace. A new app under an old name has the same.
pub(crate) type AppRef = ObjectRef<GracefulApp>;
