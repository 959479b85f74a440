//! Our own last writes to an app: a view that does not show them yet is not planned on.

use kube::Resource;

/// A kind of child, as far as views are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    Pod,
    Service,
    Budget,
}

/// Writes that the watches may not have shown yet.
#[derive(Debug, Default)]
pub(crate) struct UnseenWrites(Vec<Write>);

#[derive(Debug)]
struct Write {
    kind: Kind,
    name: String,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    /// The object is there, at this resourceVersion or a later one.
    At(u64),
    /// No object with this uid is there.
    Gone(String),
}

/// What a view holds under a name: uid and resourceVersion.
pub(crate) type Shown = Option<(String, u64)>;

impl UnseenWrites {
    /// Records that we wrote this object: the API server answered with it.
    pub(crate) fn record<K: Resource>(&mut self, kind: Kind, object: &K) {
        let name = object.meta().name.clone().unwrap_or_default();
        self.add(kind, name, Effect::At(version(object)));
    }

    /// Records that we deleted this object, and that it is gone already.
    pub(crate) fn record_removal(&mut self, kind: Kind, name: &str, uid: &str) {
        self.add(kind, name.to_owned(), Effect::Gone(uid.to_owned()));
    }

    fn add(&mut self, kind: Kind, name: String, effect: Effect) {
        self.0.retain(|w| w.kind != kind || w.name != name);
        self.0.push(Write { kind, name, effect });
    }

    /// Drops the writes that this view shows, and says whether it shows them all. An object that the view does not have may be one that it does
    /// not have yet, unless a live list says that it is gone (others delete as well).
    pub(crate) fn settle(
        &mut self,
        seen: impl Fn(Kind, &str) -> Shown,
        surely_gone: impl Fn(Kind, &str) -> bool,
    ) -> bool {
        self.0.retain(|write| {
            let shown = match (&write.effect, seen(write.kind, &write.name)) {
                (Effect::At(version), Some((_, there))) => there >= *version,
                (Effect::At(_), None) => surely_gone(write.kind, &write.name),
                (Effect::Gone(uid), Some((there, _))) => there != *uid,
                (Effect::Gone(_), None) => true,
            };
            !shown
        });
        self.0.is_empty()
    }
}

/// A resourceVersion as a number. Within one kind of resource they can be compared (KEP-5504). One that is not a number sorts last, so that
/// the view counts as late and is read live.
pub(crate) fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(version: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".to_owned());
        pod.metadata.resource_version = Some(version.to_owned());
        pod
    }

    fn settled(unseen: &mut UnseenWrites, gone: bool, seen: Option<(&str, u64)>) -> bool {
        unseen.settle(|_, _| seen.map(|(uid, v)| (uid.to_owned(), v)), |_, _| gone)
    }

    #[test]
    fn a_view_without_our_write_is_late() {
        let mut unseen = UnseenWrites::default();
        assert!(settled(&mut unseen, false, None));
        unseen.record(Kind::Pod, &pod("10"));
        assert!(!settled(&mut unseen, false, None), "it may not have appeared yet");
        assert!(!settled(&mut unseen, false, Some(("u", 9))));
        assert!(settled(&mut unseen, false, Some(("u", 10))));
        assert!(settled(&mut unseen, false, Some(("u", 9))), "once shown, it is not asked for again");
    }

    #[test]
    fn a_later_write_replaces_an_earlier_one() {
        let mut unseen = UnseenWrites::default();
        unseen.record(Kind::Pod, &pod("10"));
        unseen.record(Kind::Pod, &pod("12"));
        assert!(!settled(&mut unseen, false, Some(("u", 11))));
        assert!(settled(&mut unseen, false, Some(("u", 12))));
    }

    #[test]
    fn what_no_live_list_shows_is_gone_once_the_view_agrees() {
        let mut unseen = UnseenWrites::default();
        unseen.record(Kind::Pod, &pod("10"));
        assert!(!settled(&mut unseen, true, Some(("u", 9))), "a ghost would count as serving");
        assert!(settled(&mut unseen, true, None));
        unseen.record_removal(Kind::Pod, "p", "u");
        assert!(!settled(&mut unseen, false, Some(("u", 99))));
        assert!(settled(&mut unseen, false, Some(("another", 1))));
    }
}
