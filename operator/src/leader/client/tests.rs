use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::*;
use crate::clock::since_boot;
use crate::leader::Term;

/// An API server that has a pod, and what it was asked.
fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        heard.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}).to_string();
        async move { Ok::<_, BoxError>(Response::new(Body::from(pod.into_bytes()))) }
    });
    (Client::new(service, "apps"), asked)
}

#[tokio::test]
async fn nothing_is_written_before_the_term_and_after_it() {
    let (client, asked) = server();
    let term = Arc::new(Term::default());
    let pods: Api<Pod> = Api::default_namespaced(leading(client, Leadership::Elected(Arc::clone(&term))));
    let change = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    let params = PatchParams::default();
    let patch = || crate::error::call("patch a pod", pods.patch("x", &params, &change));

    assert!(matches!(patch().await, Err(crate::Error::NotLeading { .. })));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    assert!(pods.patch("x", &dry, &change).await.is_err(), "a dry run is asked by the leader as well");
    pods.get("x").await.unwrap();
    assert_eq!(asked.lock().unwrap().drain(..).collect::<Vec<_>>(), ["GET /api/v1/namespaces/apps/pods/x"]);

    term.extend(since_boot() + Duration::from_secs(60));
    patch().await.unwrap();
    pods.delete("x", &DeleteParams::default()).await.unwrap();
    let sent = asked.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert_eq!(sent.len(), 2);
    assert!(
        sent.iter().all(|sent| sent.ends_with("timeout=6s")),
        "the API server gives up before us: {sent:?}"
    );

    term.extend(since_boot());
    assert!(matches!(patch().await, Err(crate::Error::NotLeading { .. })));
    assert!(asked.lock().unwrap().is_empty());
}
