use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn pod(namespace: &str, name: &str, labels: &[&str], version: u32) -> Pod {
    let labels: BTreeMap<_, _> = labels.iter().map(|l| l.split_once('=').unwrap()).collect();
    serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name, "uid": name,
        "resourceVersion": version.to_string(), "labels": labels}}))
    .unwrap()
}

fn index() -> Index<Pod> {
    Index::new(|pod| pod.labels().iter().map(|(k, v)| format!("{k}={v}")).collect(), &[Scope::All])
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|p| p.name_any()).collect()
}

#[test]
fn a_group_has_its_members_alone_and_follows_their_changes() {
    let index = index();
    for (name, app) in [("b", "app=x"), ("a", "app=x"), ("c", "app=y")] {
        index.apply(pod("n", name, &[app], 1));
    }
    index.apply(pod("other", "d", &["app=x"], 1));
    assert_eq!(names(&index.group("n", "app=x")), ["a", "b"]);
    let (before, _) = index.apply(pod("n", "b", &["app=y"], 2));
    assert_eq!(before.unwrap().labels()["app"], "x");
    assert_eq!(names(&index.group("n", "app=x")), ["a"]);
    assert_eq!(names(&index.group("n", "app=y")), ["b", "c"]);
    index.remove(&pod("n", "c", &[], 3));
    assert_eq!(names(&index.group("n", "app=y")), ["b"]);
    assert!(index.get("n", "c").is_none());
    assert_eq!(index.all().len(), 3);
    assert_eq!(index.within("n").len(), 2);
}

#[test]
fn a_label_that_all_share_does_not_make_one_group_of_all() {
    let index = index();
    for n in 0..500 {
        index.apply(pod("n", &format!("p{n}"), &["tier=web", &format!("app=x{n}")], 1));
    }
    let largest = (0..500).map(|n| index.group("n", &format!("app=x{n}")).len()).max().unwrap();
    assert!(largest.max(index.group("n", "tier=web").len()) <= 2);
}

#[test]
fn a_list_changes_nothing_until_it_is_whole() {
    let index = index();
    index.apply(pod("n", "a", &["app=x"], 1));
    index.apply(pod("n", "b", &["app=x"], 1));
    let kept = index.get("n", "a").unwrap();
    index.begin(&Scope::All);
    index.list(pod("n", "a", &["app=x"], 1));
    assert_eq!(names(&index.group("n", "app=x")), ["a", "b"]);
    // A list that broke off: another begins.
    index.begin(&Scope::All);
    index.list(pod("n", "a", &["app=x"], 1));
    index.list(pod("n", "c", &["app=x"], 2));
    index.finish(&Scope::All);
    assert_eq!(names(&index.group("n", "app=x")), ["a", "c"]);
    assert!(Arc::ptr_eq(&kept, &index.get("n", "a").unwrap()), "what has not changed is not held twice");
}

#[test]
fn a_list_of_one_namespace_leaves_the_others_as_they_are() {
    let scopes = ["a", "b"].map(|namespace| Scope::Namespace(namespace.to_owned()));
    let index = Index::new(|_| Vec::new(), &scopes);
    let ready = || *index.0.listed.borrow();
    for (scope, namespace) in scopes.iter().zip(["a", "b"]) {
        assert!(!ready(), "{namespace} has yet to be listed");
        index.begin(scope);
        index.list(pod(namespace, "x", &[], 1));
        index.finish(scope);
    }
    assert!(ready());
    // Both at once: the one that is begun anew does not throw away what the other has shown so far.
    index.begin(&scopes[0]);
    index.list(pod("a", "y", &[], 2));
    index.begin(&scopes[1]);
    index.finish(&scopes[1]);
    index.finish(&scopes[0]);
    assert_eq!((names(&index.within("a")), names(&index.within("b"))), (vec!["y".to_owned()], vec![]));
}
