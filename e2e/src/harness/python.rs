//! Programs in the Python of the machine that the nodes run on. It is mounted from there, so that no image must be made of it, and any image will do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::scene::Scene;

/// The program, as the ConfigMap that [`Python::volumes`] mounts at /program.
pub async fn program(scene: &Scene, files: &[(&str, &str)]) -> anyhow::Result<()> {
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    let map = json!({"metadata": {"name": "program"}, "data": files});
    scene.api::<ConfigMap>().create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    Ok(())
}

/// What a pod mounts.
pub struct Python {
    /// A folder of packages, for /packages; an empty /tmp comes with it.
    packages: Option<PathBuf>,
}

impl Python {
    /// The interpreter and its own library alone.
    pub fn bare() -> Self {
        Self { packages: None }
    }

    /// With the packages in the folder that this variable names.
    pub fn with_packages(variable: &str) -> anyhow::Result<Self> {
        let packages = std::env::var_os(variable).map(PathBuf::from);
        let missing = || format!("{variable} names no folder of packages: run this by cargo xtask e2e");
        Ok(Self { packages: Some(packages.with_context(missing)?) })
    }

    /// A container's `volumeMounts`.
    pub fn mounts(&self) -> Value {
        let read = |volume: &str, path: &str| json!({"name": volume, "mountPath": path, "readOnly": true});
        let part = |path: &str, sub: &str| json!({"name": "usr", "mountPath": path, "subPath": sub, "readOnly": true});
        let mut mounts = vec![
            read("usr", "/usr"),
            part("/lib", "lib"),
            part("/lib64", "lib64"),
            read("program", "/program"),
        ];
        if self.packages.is_some() {
            mounts.extend([read("packages", "/packages"), json!({"name": "tmp", "mountPath": "/tmp"})]);
        }
        json!(mounts)
    }

    /// The pod's `volumes`.
    pub fn volumes(&self) -> Value {
        let folder =
            |name: &str, path: &Value| json!({"name": name, "hostPath": {"path": path, "type": "Directory"}});
        let mut volumes =
            vec![folder("usr", &json!("/usr")), json!({"name": "program", "configMap": {"name": "program"}})];
        if let Some(packages) = &self.packages {
            volumes.extend([folder("packages", &json!(packages)), json!({"name": "tmp", "emptyDir": {}})]);
        }
        json!(volumes)
    }
}
