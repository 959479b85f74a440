//! The load generator's pod as the harness sees it: deployed beside the app, read through the API server's proxy.

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::wait::eventually;
use super::world::World;
use crate::loadgen::now_ms;
use crate::wire::{LedgerView, LoadSpec, PORT, Speaks, create_task};

/// The name of its pod and Service.
const NAME: &str = "loadgen";

/// A load generator in one namespace.
#[derive(Clone)]
pub struct Load {
    client: Client,
    namespace: String,
}

/// A modest load that two cores and several tests side by side can bear: tasks of 5 s make it about 30 in flight.
pub fn usual() -> LoadSpec {
    LoadSpec {
        target: format!("http://{}", super::app::NAME),
        clients: 6,
        fresh: false,
        rate_per_second: 6.0,
        sockets: 4,
        numbered: false,
        speaks: Speaks::Tasks,
        seconds: 600,
        submit_path: create_task(),
    }
}

impl Load {
    /// Starts the pod and its Service, and waits until it answers.
    pub async fn deploy(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), namespace);
        let services: Api<Service> = Api::namespaced(world.client.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": NAME, "labels": {"app": NAME}},
            "spec": {
                "restartPolicy": "Never", // a restarted ledger would have forgotten all
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": NAME,
                    "image": world.image(NAME),
                    "imagePullPolicy": world.pull_policy(),
                    "ports": [{"name": "http", "containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/livez", "port": "http"}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }],
            },
        }))?;
        let service = serde_json::from_value(json!({
            "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT, "targetPort": "http"}]},
        }))?;
        services.create(&PostParams::default(), &service).await?;
        pods.create(&PostParams::default(), &pod).await?;
        let load = Self { client: world.client.clone(), namespace: namespace.to_owned() };
        eventually("the load generator answers", super::STARTS, || load.ledger()).await?;
        Ok(load)
    }

    /// Asks the load generator for its ledger.
    pub async fn ledger(&self) -> anyhow::Result<LedgerView> {
        let text = self.request("GET", "ledger", Vec::new()).await?;
        serde_json::from_str(&text).context("the ledger is not what we know")
    }

    /// The ledger, and the harness' clock minus the ledger's in milliseconds.
    pub async fn ledger_with_offset(&self) -> anyhow::Result<(LedgerView, i64)> {
        let before = now_ms();
        let view = self.ledger().await?;
        let middle = u64::midpoint(before, now_ms());
        let offset = i64::try_from(middle)?.saturating_sub(i64::try_from(view.now_ms)?);
        Ok((view, offset))
    }

    /// Fails unless the target answers from the load generator's pod.
    pub async fn reaches(&self, target: &str, speaks: Speaks) -> anyhow::Result<()> {
        self.request("GET", &format!("reach?target={target}&speaks={speaks:?}"), Vec::new()).await?;
        Ok(())
    }

    /// Starts a load beside what already runs.
    pub async fn start(&self, spec: &LoadSpec) -> anyhow::Result<()> {
        self.request("POST", "load", serde_json::to_vec(spec)?).await?;
        Ok(())
    }

    /// Stops submitting, and the sockets too if asked, and waits until the last submission is answered.
    pub async fn stop(&self, sockets: bool) -> anyhow::Result<()> {
        self.request("POST", &format!("load/stop?sockets={sockets}"), Vec::new()).await?;
        eventually("the last submission is answered", super::STARTS, || async {
            if self.ledger().await?.submitting {
                bail!("still submitting");
            }
            Ok(())
        })
        .await
    }

    async fn request(&self, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<String> {
        let uri = format!("/api/v1/namespaces/{}/pods/{NAME}:{PORT}/proxy/{path}", self.namespace);
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(body)?;
        Ok(self.client.request_text(request).await?)
    }
}
