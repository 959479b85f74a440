//! The app under test as a manifest: a GracefulApp, or a plain Deployment of the same pods to compare with.

use serde_json::{Value, json};

use super::world::World;

/// The name of the app in every test.
pub const NAME: &str = "tasks";

/// A GracefulApp's spec, changed step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec(pub Value);

impl AppSpec {
    /// The task server: tasks of 2–8 s, a grace of 6 s that would not save the longer ones, a linger of 2 s. Its queue is
    /// SQLite in an emptyDir volume.
    pub fn tasks(world: &World) -> Self {
        Self(json!({
            "replicas": 3,
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "terminationGracePeriodSeconds": 6,
                    // The image's user; the volume is its group's.
                    "securityContext": {"fsGroup": 65532},
                    "volumes": [{"name": "data", "emptyDir": {}}],
                    "containers": [{
                        "name": "server",
                        "image": world.image("server"),
                        "imagePullPolicy": world.pull_policy(),
                        "env": [
                            {"name": "GRACEFUL_TASK_SECONDS", "value": "2-8"},
                            {"name": "GRACEFUL_CONCURRENCY", "value": "64"},
                            {"name": "GRACEFUL_LINGER_SECONDS", "value": "2"},
                            {"name": "GRACEFUL_DATA", "value": "/data"},
                            {"name": "GRACEFUL_REPORT_URL", "value": "http://loadgen:8080/report"},
                        ],
                        "ports": [
                            {"name": "http", "containerPort": 8000},
                            {"name": "admin", "containerPort": 9808},
                        ],
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 1},
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                },
            },
            "service": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
            "drain": {"lingerSeconds": 2, "deadlineSeconds": 60, "preStopCommand": ["/server", "pre-stop"]},
            "rollout": {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 15},
        }))
    }

    /// The same pods on a shared queue, and without a volume.
    pub fn postgres(mut self, url: &str) -> Self {
        self.0["template"]["spec"]["volumes"] = json!([]);
        self.0["template"]["spec"]["containers"][0]["volumeMounts"] = json!([]);
        self.env("GRACEFUL_STORE", "postgres").env("GRACEFUL_STORE_URL", url)
    }

    /// Sets what `pointer` (RFC 6901, parents must exist) names.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(parent) = self.0.pointer_mut(parent) {
            parent[key] = value.into();
        }
        self
    }

    /// How many pods serve.
    pub fn replicas(self, replicas: u32) -> Self {
        self.set("/replicas", replicas)
    }

    /// How long a task takes, as the server's flag has it.
    pub fn task_seconds(self, range: &str) -> Self {
        self.env("GRACEFUL_TASK_SECONDS", range)
    }

    /// Sets an environment variable of the container: another template, hence another revision.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let container = &mut self.0["template"]["spec"]["containers"][0];
        if !container["env"].is_array() {
            container["env"] = json!([]);
        }
        if let Some(env) = container["env"].as_array_mut() {
            env.retain(|e| e["name"] != name);
            env.push(json!({"name": name, "value": value}));
        }
        self
    }

    /// The image of the container.
    pub fn image(self, image: &str) -> Self {
        self.set("/template/spec/containers/0/image", image)
    }

    /// The template's grace period.
    pub fn grace(self, seconds: u32) -> Self {
        self.set("/template/spec/terminationGracePeriodSeconds", seconds)
    }

    /// One field of `drain`.
    pub fn drain(self, field: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("/drain/{field}"), value)
    }

    /// One field of `rollout`.
    pub fn rollout(self, field: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("/rollout/{field}"), value)
    }

    /// The GracefulApp.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "graceful.dev/v1alpha1",
            "kind": "GracefulApp",
            "metadata": {"name": NAME},
            "spec": self.0,
        })
    }

    /// The same pods as a plain Deployment with a plain Service, as if Graceful did not exist. `pre_stop_sleep` is what
    /// a careful user adds.
    pub fn plain(&self, grace: u32, pre_stop_sleep: Option<u32>) -> [Value; 2] {
        let mut template = self.0["template"].clone();
        template["metadata"]["labels"]["app"] = json!(NAME);
        template["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        let container = &mut template["spec"]["containers"][0];
        if let Some(seconds) = pre_stop_sleep {
            container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": seconds}}});
        }
        if let Some(env) = container["env"].as_array_mut() {
            // What the operator would inject, so that the reports name their pod.
            for (name, path) in [("GRACEFUL_POD_NAME", "metadata.name"), ("GRACEFUL_POD_UID", "metadata.uid")]
            {
                env.push(json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
            }
        }
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": NAME},
            "spec": {
                "replicas": self.0["replicas"],
                "selector": {"matchLabels": {"app": NAME}},
                "strategy": {"rollingUpdate": {
                    "maxSurge": self.0["rollout"]["maxSurge"],
                    "maxUnavailable": self.0["rollout"]["maxUnavailable"],
                }},
                "template": template,
            },
        });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        });
        [deployment, service]
    }

    /// The budget of this spec, worked out apart from the operator's own arithmetic.
    pub fn limits(&self) -> Limits {
        let replicas = self.0["replicas"].as_u64().unwrap_or(1);
        let share = |field: &str, default: &str, up: bool| {
            let value = self.0["rollout"].get(field).cloned().unwrap_or_else(|| json!(default));
            match value.as_u64() {
                Some(n) => n,
                None => {
                    let text = value.as_str().unwrap_or("0").trim_end_matches('%');
                    let product = replicas * text.parse::<u64>().unwrap_or(0);
                    if up { product.div_ceil(100) } else { product / 100 }
                }
            }
        };
        let surge = share("maxSurge", "25%", true);
        let unavailable = share("maxUnavailable", "0", false);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Limits { most: replicas + surge, fewest: replicas.saturating_sub(unavailable) }
    }
}

/// What P3 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Non-terminating pods, draining ones too, when one is created.
    pub most: u64,
    /// Serving, Ready pods that must remain when a drain starts.
    pub fewest: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(replicas: u32, surge: &Value, unavailable: &Value) -> Limits {
        AppSpec(json!({"replicas": replicas, "rollout": {"maxSurge": surge, "maxUnavailable": unavailable}}))
            .limits()
    }

    #[test]
    fn percentages_round_surge_up_and_unavailable_down() {
        assert_eq!(spec(3, &json!("25%"), &json!("25%")), Limits { most: 4, fewest: 3 });
        assert_eq!(spec(4, &json!(0), &json!("50%")), Limits { most: 4, fewest: 2 });
        assert_eq!(spec(3, &json!(0), &json!("25%")), Limits { most: 3, fewest: 2 });
    }
}
