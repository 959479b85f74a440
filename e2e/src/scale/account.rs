//! The operator's own rights: a token for the ServiceAccount of the chart's release, in a kubeconfig that leads through
//! the relay.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use serde_json::json;

use crate::harness::charts;
use crate::harness::world::World;

/// The release's name is its ServiceAccount's.
pub(super) const ACCOUNT: &str = "graceful-operator";
/// Longer than any run.
const TOKEN_SECONDS: i64 = 4 * 3600;

/// The API server of the kubeconfig.
#[derive(Debug)]
pub(super) struct Server {
    /// `host:port`.
    pub(super) address: String,
    authority: String,
}

impl Server {
    pub(super) fn of(world: &World) -> anyhow::Result<Self> {
        let file = Kubeconfig::read_from(&world.kubeconfig)?;
        let cluster = file
            .clusters
            .into_iter()
            .find_map(|named| named.cluster)
            .context("no cluster in the kubeconfig")?;
        let url: http::Uri = cluster.server.context("no server in the kubeconfig")?.parse()?;
        let address = url.authority().context("no host in the kubeconfig's server")?.to_string();
        let authority = cluster
            .certificate_authority_data
            .context("the kubeconfig has no certificate authority in it")?;
        Ok(Self { address, authority })
    }

    /// A kubeconfig with the rights of the chart, to the relay instead of the server.
    pub(super) async fn write_kubeconfig(
        &self,
        world: &World,
        relay: SocketAddr,
        to: &Path,
    ) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), charts::NAMESPACE);
        let spec =
            TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let token = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await;
        let token = token.with_context(|| {
            format!(
                "no token for {}/{ACCOUNT}: is the chart installed? without --installed it is",
                charts::NAMESPACE
            )
        })?;
        let token = token.status.context("a token without a status")?.token;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": format!("https://{relay}"), "certificate-authority-data": self.authority,
            }}],
            "users": [{"name": "bench", "user": {"token": token}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(to).with_context(|| to.display().to_string())?;
        std::io::Write::write_all(&mut file, kubeconfig.to_string().as_bytes())?;
        Ok(())
    }
}
