//! The files that the parts read, as text. Nothing here touches the machine.

use std::path::Path;

use serde_json::{Value, json};

use crate::cgroup;
use crate::layout::{DNS_IP, POD_CIDR, REGISTRY, node_name, pod_cidr};

/// Where this machine keeps what we take from its distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// The runc program.
    pub(crate) runc: String,
    /// The folder of the CNI plugins.
    pub(crate) cni: String,
}

/// A client's configuration that points at its certificates.
pub(crate) fn kubeconfig(server: &str, pki: &Path, client: &str) -> String {
    let file = |name: String| pki.join(name);
    pretty(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "graceful", "cluster":
            {"server": server, "certificate-authority": file("ca.crt".into())}}],
        "users": [{"name": client, "user":
            {"client-certificate": file(format!("{client}.crt")), "client-key": file(format!("{client}.key"))}}],
        "contexts": [{"name": "graceful", "context": {"cluster": "graceful", "user": client}}],
        "current-context": "graceful",
    }))
}

/// A bridge in the node for its pods, their addresses, and hostPorts.
pub(crate) fn cni(n: u8) -> String {
    pretty(&json!({
        "cniVersion": "1.0.0",
        "name": "kube",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam",
                      "ranges": [[{"subnet": pod_cidr(n)}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    }))
}

/// containerd's own configuration; `dir` is the node's disk.
///
/// `restrict_oom_score_adj`: root without CAP_SYS_RESOURCE may not lower a score, and runc dies trying.
pub(crate) fn containerd(dir: &Path, installed: &Installed) -> String {
    let (dir, Installed { runc, cni }) = (dir.display(), installed);
    format!(
        "version = 3
root = '{dir}/containerd'
state = '/run/containerd'
[grpc]
  address = '{dir}/containerd.sock'
[ttrpc]
  address = '{dir}/containerd.sock.ttrpc'
[plugins]
  [plugins.'io.containerd.internal.v1.opt']
    path = '{dir}/opt'
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'
    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = 'graceful/pause:1'
    [plugins.'io.containerd.cri.v1.images'.registry]
      config_path = '{dir}/certs.d'
  [plugins.'io.containerd.cri.v1.runtime']
    disable_apparmor = true
    restrict_oom_score_adj = true
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = '{runc}'
        SystemdCgroup = false
    [plugins.'io.containerd.cri.v1.runtime'.cni]
      bin_dirs = ['{cni}']
      conf_dir = '{dir}/cni.d'
"
    )
}

/// Lets containerd pull from the host's registry without TLS.
pub(crate) fn registry_hosts() -> String {
    format!(
        "server = 'http://{REGISTRY}'\n[host.'http://{REGISTRY}']\n  capabilities = ['pull', 'resolve']\n"
    )
}

/// The kubelet's configuration.
///
/// Images are never collected, since they were loaded by hand and no registry has them. A lost node is found in
/// seconds: the lease and the status are renewed far more often than by default.
pub(crate) fn kubelet(n: u8, dir: &Path, pki: &Path, resolv_conf: &Path) -> String {
    let node = node_name(n);
    pretty(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup::root_of(n)),
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": false,
        "containerRuntimeEndpoint": format!("unix://{}/containerd.sock", dir.display()),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "30s"},
            "x509": {"clientCAFile": pki.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("{node}.crt")),
        "tlsPrivateKeyFile": pki.join(format!("{node}.key")),
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": resolv_conf,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": dir.join("volplugins"),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "maxPods": 200,
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusUpdateFrequency": "4s",
    }))
}

/// kube-proxy's configuration. A zero leaves a conntrack sysctl alone: in a network namespace it can't be written.
pub(crate) fn proxy(n: u8, kubeconfig: &Path) -> String {
    pretty(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": node_name(n),
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn each_node_has_its_own_pods_cgroups_and_certificate() {
        let kubelet = |n| parsed(&kubelet(n, Path::new("/d"), Path::new("/pki"), Path::new("/r")));
        assert_eq!(kubelet(2)["cgroupRoot"], "/kube-node2");
        assert_eq!(kubelet(2)["tlsCertFile"], "/pki/node2.crt");
        assert_ne!(kubelet(1)["cgroupRoot"], kubelet(2)["cgroupRoot"]);
        assert_eq!(parsed(&cni(2))["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.2.0/24");
    }

    #[test]
    fn hand_loaded_images_are_never_collected() {
        let kubelet = parsed(&kubelet(1, Path::new("/d"), Path::new("/pki"), Path::new("/r")));
        assert_eq!(kubelet["imageGCHighThresholdPercent"], 100);
    }

    #[test]
    fn containerd_uses_what_the_machine_has() {
        let installed = Installed { runc: "/opt/runc".into(), cni: "/opt/cni/bin".into() };
        let text = containerd(Path::new("/var/lib/graceful/node1"), &installed);
        assert!(text.contains("BinaryName = '/opt/runc'"));
        assert!(text.contains("bin_dirs = ['/opt/cni/bin']"));
        assert!(text.contains("address = '/var/lib/graceful/node1/containerd.sock'"));
    }

    #[test]
    fn a_kubeconfig_names_one_client() {
        let config = parsed(&kubeconfig("https://127.0.0.1:6443", Path::new("/pki"), "scheduler"));
        assert_eq!(config["users"][0]["user"]["client-certificate"], "/pki/scheduler.crt");
        assert_eq!(config["contexts"][0]["context"]["user"], "scheduler");
    }
}
