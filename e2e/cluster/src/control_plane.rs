//! etcd, the API server, the controller manager and the scheduler: plain processes of the host.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use graceful_process::wait_until;

use crate::artifacts::Artifacts;
use crate::command::Progress;
use crate::layout::{HOST_IP, POD_CIDR, SERVICE_CIDR, run};
use crate::{kubernetes, pki, process};

/// All four, in the order they are started.
pub(crate) const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Starts those of etcd and the API server that don't run.
pub(crate) fn start_api(artifacts: &Artifacts) -> anyhow::Result<()> {
    start(artifacts, "etcd", etcd())?;
    fs::write(audit_policy(), AUDITED).context("write the audit policy")?;
    start(artifacts, "kube-apiserver", api_server())
}

/// Who wrote what, and when it took effect, of our operators alone: what a test of two of them goes by.
const AUDITED: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:graceful-system:graceful-operator"]
  verbs: [create, update, patch, delete]
- level: None
"#;

fn audit_policy() -> PathBuf {
    run("audit-policy.yaml")
}

/// Waits until the API server serves, then starts those of the other two that don't run.
pub(crate) fn finish(artifacts: &Artifacts, progress: &Progress) -> anyhow::Result<()> {
    wait_for_api(artifacts)?;
    progress.say("API server ready");
    start(artifacts, "kube-controller-manager", controller_manager())?;
    start(artifacts, "kube-scheduler", scheduler())
}

/// The command lines, for the fingerprint of what runs.
pub(crate) fn words() -> Vec<Vec<String>> {
    vec![etcd(), api_server(), controller_manager(), scheduler()]
}

fn start(artifacts: &Artifacts, part: &str, flags: Vec<String>) -> anyhow::Result<()> {
    if process::runs(part) {
        return Ok(());
    }
    let mut words = vec![artifacts.program(part).display().to_string()];
    words.extend(flags);
    process::start(part, &words)
}

fn wait_for_api(artifacts: &Artifacts) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 6443));
    let served = wait_until("API server ready", Duration::from_secs(60), Duration::from_millis(100), || {
        // A connection costs nothing beside a kubectl, whose start takes CPU from what it waits for.
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            && kubernetes::get_raw(artifacts, "/readyz").is_some()
            || ["etcd", "kube-apiserver"].iter().any(|part| !process::runs(part))
    });
    for part in ["etcd", "kube-apiserver"] {
        anyhow::ensure!(process::runs(part), "{part} ended:\n{}", process::log_tail(part));
    }
    served.with_context(|| process::log_tail("kube-apiserver"))
}

/// No fsync: a test cluster need not survive a power cut, and its disk is shared with builds.
fn etcd() -> Vec<String> {
    let data = run("etcd");
    flags(&[
        "--name=graceful",
        &format!("--data-dir={}", data.display()),
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=graceful=http://127.0.0.1:2380",
        "--log-level=warn",
    ])
}

fn api_server() -> Vec<String> {
    flags(&[
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        // The endpoint of the service `kubernetes`, as pods reach it.
        &format!("--advertise-address={HOST_IP}"),
        &format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        &pki("tls-cert-file", "apiserver.crt"),
        &pki("tls-private-key-file", "apiserver.key"),
        &pki("client-ca-file", "ca.crt"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        &pki("service-account-key-file", "sa.pub"),
        &pki("service-account-signing-key-file", "sa.key"),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        &pki("kubelet-client-certificate", "apiserver-kubelet.crt"),
        &pki("kubelet-client-key", "apiserver-kubelet.key"),
        "--kubelet-preferred-address-types=InternalIP",
        // The aggregation layer: an API server of an add-on may be plugged in.
        &pki("requestheader-client-ca-file", "front.crt"),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        &pki("proxy-client-cert-file", "front-client.crt"),
        &pki("proxy-client-key-file", "front-client.key"),
        "--enable-aggregator-routing=true",
        &format!("--audit-policy-file={}", audit_policy().display()),
        &format!("--audit-log-path={}", run("audit.log").display()),
        "--audit-log-maxsize=64",
        "--audit-log-maxbackup=1",
        "--profiling=false",
    ])
}

/// A lost node is noticed after 12 s instead of 50. The higher rate saves seconds of the start, when every default
/// object is made at once.
fn controller_manager() -> Vec<String> {
    let mut flags = flags(&[
        "--use-service-account-credentials=true",
        &pki("service-account-private-key-file", "sa.key"),
        &pki("root-ca-file", "ca.crt"),
        &pki("cluster-signing-cert-file", "ca.crt"),
        &pki("cluster-signing-key-file", "ca.key"),
        "--allocate-node-cidrs=false",
        &format!("--cluster-cidr={POD_CIDR}"),
        // Else it makes a folder in /usr/libexec.
        &format!("--flex-volume-plugin-dir={}", run("flex").display()),
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=12s",
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]);
    flags.extend(client_of_api("controller-manager"));
    flags
}

fn scheduler() -> Vec<String> {
    client_of_api("scheduler")
}

/// One of each: there is nobody to elect.
fn client_of_api(name: &str) -> Vec<String> {
    let kubeconfig = kubernetes::kubeconfig(name).display().to_string();
    flags(&[
        &format!("--kubeconfig={kubeconfig}"),
        &format!("--authentication-kubeconfig={kubeconfig}"),
        &format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ])
}

fn pki(flag: &str, file: &str) -> String {
    format!("--{flag}={}", pki::file(file).display())
}

fn flags(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rbac_is_enforced_and_the_service_address_is_in_the_range() {
        assert!(api_server().contains(&"--authorization-mode=Node,RBAC".to_owned()));
        let range = SERVICE_CIDR.trim_end_matches("0.0/16");
        assert!(crate::layout::API_SERVICE_IP.starts_with(range) && crate::layout::DNS_IP.starts_with(range));
    }

    #[test]
    fn only_the_api_server_listens_beyond_loopback() {
        for words in [etcd(), controller_manager(), scheduler()] {
            let listens = |word: &&String| word.contains("listen-") || word.contains("bind-address");
            assert!(words.iter().filter(listens).all(|word| word.contains("127.0.0.1")), "{words:?}");
        }
    }
}
