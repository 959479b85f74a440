//! The policies over an app's children, in force on a real API server: each refusal in words that help, and all who must pass.
//!
//! Two releases guard a namespace each. Both namespaces are exempt from an operator that is installed already, so that only what is
//! judged here answers. Pods never start: their template asks for a node that is not there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::api_server::{OPERATOR, Server};

/// The API server learns of a new policy within some seconds.
const IN_FORCE: Duration = Duration::from_secs(30);

/// Installs both releases' policies alone, tries everything, and takes them away again.
pub(crate) fn check(server: &Server) -> anyhow::Result<()> {
    let neighbour = format!("{}-b", server.namespace);
    server.kubectl(&["create", "namespace", &neighbour], None)?;
    let (ours, theirs) = (Release::new("charts-a", &server.namespace), Release::new("charts-b", &neighbour));
    let policies = [ours.policies(server)?, theirs.policies(server)?].join("\n---\n");
    let judged = server
        .kubectl(&["apply", "-f", "-"], Some(&policies))
        .and_then(|_| Judge { server, ours, theirs, deadline: Instant::now() + IN_FORCE }.everything());
    let removed = server.kubectl(&["delete", "--ignore-not-found", "-f", "-"], Some(&policies));
    if judged.is_err() {
        // It may have failed before it took its finalizer off; else both are gone already.
        let _ = server.kubectl(&["-n", &neighbour, "patch", HELD, "--type=merge", "-p", LET_GO], None);
        let _ = server.kubectl(&["delete", "namespace", &neighbour, "--wait=false"], None);
    }
    judged.and(removed.map(drop))
}

/// One release of the chart, which guards one namespace.
struct Release {
    name: &'static str,
    namespace: String,
}

impl Release {
    fn new(name: &'static str, namespace: &str) -> Self {
        Self { name, namespace: namespace.to_owned() }
    }

    fn account(&self) -> String {
        format!("system:serviceaccount:{}:{}-graceful-operator", self.namespace, self.name)
    }

    fn policies(&self, server: &Server) -> anyhow::Result<String> {
        let exempt = "graceful.dev/unguarded=";
        server.kubectl(&["label", "namespace", &self.namespace, exempt], None)?;
        let selector =
            json!({"matchExpressions": null, "matchLabels": {"kubernetes.io/metadata.name": self.namespace}});
        let selector = format!("admissionPolicy.namespaceSelector={selector}");
        let operators = format!("admissionPolicy.operators={}", json!(OPERATORS));
        let template =
            ["template", self.name, OPERATOR, "--validate", "--show-only", "templates/admission.yaml"];
        let values = ["-n", &self.namespace, "--set-json", &selector, "--set-json", &operators];
        server.helm(&[&template[..], &values].concat())
    }
}

/// A user, and a group. The quotes are there for those who write policies by templates.
const OPERATORS: [&str; 2] = ["o\"brien'", "platform\\team"];

/// Outlives its namespace's deletion, by a finalizer.
const HELD: &str = "deployment/last-r1";
const LET_GO: &str = r#"{"metadata":{"finalizers":null}}"#;

/// Who asks. All are of `system:masters` as well: what a role refuses says nothing about a policy.
#[derive(Clone, Copy)]
enum Who<'a> {
    /// An administrator at a keyboard.
    Person,
    /// The request comes from this user, of these further groups.
    User(&'a str, &'a [&'a str]),
}

struct Judge<'a> {
    server: &'a Server,
    ours: Release,
    theirs: Release,
    deadline: Instant,
}

impl Judge<'_> {
    fn everything(&self) -> anyhow::Result<()> {
        for release in [&self.ours, &self.theirs] {
            for child in ["tasks", "freed"] {
                self.make(&release.namespace, child, &[])?;
            }
        }
        self.make(&self.theirs.namespace, "last", &["graceful.dev/charts-check"])?;
        // First what is refused: then the policies are known to be in force, and what passes passes them.
        let set = self.replica_set(&self.ours.namespace, "tasks")?;
        self.refused_to_others(&set).context("others")?;
        self.refused_to_everybody(&set).context("everybody")?;
        self.passes(&set)?;
        self.releases_do_not_meet().context("two releases")?;
        self.break_glass().context("the label is gone")?;
        self.terminating().context("a terminating namespace")
    }

    /// A revision's Deployment of three pods, as the operator makes it.
    fn make(&self, namespace: &str, app: &str, finalizers: &[&str]) -> anyhow::Result<()> {
        let labels = json!({"graceful.dev/app": app, "graceful.dev/revision": "r1"});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": format!("{app}-r1"), "labels": labels, "finalizers": finalizers},
            "spec": {
                "replicas": 3, "revisionHistoryLimit": 0, "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "nodeSelector": {"graceful.dev/charts-check": "nowhere"},
                    "containers": [{"name": "web", "image": "x:1"}],
                }},
            },
        });
        self.server.kubectl(&["-n", namespace, "create", "-f", "-"], Some(&deployment.to_string()))?;
        Ok(())
    }

    fn refused_to_others(&self, set: &str) -> anyhow::Result<()> {
        let ns = &self.ours.namespace;
        let scale = format!("kubectl scale gracefulapp -n {ns} tasks --replicas=N");
        let delete = format!("kubectl delete gracefulapp -n {ns} tasks");
        let restart = format!("kubectl patch gracefulapp -n {ns} tasks --type merge -p");
        let way_out = format!("kubectl label deployment -n {ns} tasks-r1 graceful.dev/app-");
        let none = r#"{"spec":{"replicas":0}}"#;
        // A collection may meet another app first.
        let (collection, of_any) =
            (format!("delete --raw /apis/apps/v1/namespaces/{ns}"), format!("gracefulapp -n {ns}"));
        let tries = [
            ("scale deployment/tasks-r1 --replicas=0".to_owned(), [&scale, &way_out]),
            (format!("patch deployment/tasks-r1 -p {none}"), [&scale, &way_out]),
            ("delete deployment/tasks-r1".to_owned(), [&delete, &way_out]),
            ("delete deployment/tasks-r1 --cascade=orphan".to_owned(), [&delete, &way_out]),
            (format!("{collection}/deployments?dryRun=All"), [&of_any; 2]),
            ("label deployment/tasks-r1 --overwrite graceful.dev/app=other".to_owned(), [&way_out; 2]),
            ("label deployment/tasks-r1 graceful.dev/revision-".to_owned(), [&way_out; 2]),
            (format!("scale replicaset/{set} --replicas=0"), [&scale, &way_out]),
            (format!("patch replicaset/{set} -p {none}"), [&scale, &way_out]),
            (format!("delete replicaset/{set}"), [&restart, &way_out]),
            (format!("{collection}/replicasets?dryRun=All"), [&of_any; 2]),
            (format!("label replicaset/{set} graceful.dev/app-"), [&way_out; 2]),
            (format!("label replicaset/{set} --overwrite pod-template-hash=x"), [&way_out; 2]),
        ];
        let tools: [Who<'_>; 3] = [
            Who::Person,
            // A stray autoscaler, and a service account that is called as ours is.
            Who::User("system:serviceaccount:kube-system:horizontal-pod-autoscaler", &[]),
            Who::User("system:serviceaccount:default:charts-a-graceful-operator", &[]),
        ];
        for who in tools {
            for (command, words) in &tries {
                let refused = self.refused(ns, who, command)?;
                for said in words {
                    ensure!(
                        refused.contains(said.as_str()),
                        "{command:?} is refused without saying {said:?}:\n{refused}"
                    );
                }
            }
        }
        Ok(())
    }

    /// A template is written once, whoever asks: by the operator itself, or by those who may do all else.
    fn refused_to_everybody(&self, set: &str) -> anyhow::Result<()> {
        let image = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"x:2"}]}}}}"#;
        let account = self.ours.account();
        for who in [Who::Person, Who::User(&account, &[]), Who::User(OPERATORS[0], &[])] {
            for child in ["deployment/tasks-r1", &format!("replicaset/{set}")] {
                let refused =
                    self.refused(&self.ours.namespace, who, &format!("patch {child} -p {image}"))?;
                let edit = format!("kubectl edit gracefulapp -n {} tasks", self.ours.namespace);
                for said in [
                    "is one revision of GracefulApp tasks",
                    &edit,
                    "restartedAt",
                    "tasks-r1 graceful.dev/app-",
                ] {
                    ensure!(refused.contains(said), "{child}'s template without saying {said:?}:\n{refused}");
                }
            }
        }
        Ok(())
    }

    fn passes(&self, set: &str) -> anyhow::Result<()> {
        let ns = &self.ours.namespace;
        // What ends no pod is anybody's.
        for harmless in [
            "annotate deployment/tasks-r1 a=b".to_owned(),
            "label deployment/tasks-r1 team=a".to_owned(),
            r#"patch deployment/tasks-r1 -p {"spec":{"minReadySeconds":1}}"#.to_owned(),
            "scale deployment/tasks-r1 --replicas=3".to_owned(),
            "label deployment/tasks-r1 graceful.dev/app-".to_owned(),
            format!("annotate replicaset/{set} a=b"),
        ] {
            self.passed(ns, Who::Person, &harmless).context("what ends no pod")?;
        }
        let account = self.ours.account();
        for who in [
            Who::User(&account, &[]),
            Who::User(OPERATORS[0], &[]),
            Who::User("anybody", &["one", OPERATORS[1]]),
        ] {
            for command in [
                "scale deployment/tasks-r1 --replicas=0".to_owned(),
                r#"patch deployment/tasks-r1 -p {"spec":{"replicas":0}}"#.to_owned(),
                "delete deployment/tasks-r1".to_owned(),
                format!("scale replicaset/{set} --replicas=0"),
                format!("delete replicaset/{set}"),
            ] {
                self.passed(ns, who, &command).context("an operator")?;
            }
        }
        // For real, down to nothing: its controller must be able to follow, and the garbage collector to clear up.
        for (replicas, number) in [("--replicas=1", "1"), ("--replicas=0", "0"), ("--replicas=2", "2")] {
            self.really(ns, &account, &["scale", "deployment/tasks-r1", replicas])?;
            self.follows(ns, set, number).context("the Deployment's controller is refused")?;
        }
        // Many writers, of which Kubernetes forgets the first: the one that made it.
        let set_path = format!("replicaset/{set}");
        for writer in 1..=11 {
            let (note, manager) = (format!("note-{writer}=x"), format!("--field-manager=writer-{writer}"));
            self.really(ns, "anybody", &["annotate", &set_path, &note, &manager])?;
        }
        self.really(ns, &account, &["scale", "deployment/tasks-r1", "--replicas=1"])?;
        self.follows(ns, set, "1").context("the Deployment's controller is refused after many writers")?;
        self.really(ns, &account, &["delete", "deployment/tasks-r1"])?;
        self.goes(ns, "tasks").context("the garbage collector is refused")
    }

    fn releases_do_not_meet(&self) -> anyhow::Result<()> {
        let (scale, theirs) = ("scale deployment/freed-r1 --replicas=0", &self.theirs.namespace);
        self.refused(theirs, Who::User(&self.ours.account(), &[]), scale)?;
        self.passed(theirs, Who::User(&self.theirs.account(), &[]), scale)?;
        self.refused(&self.ours.namespace, Who::User(&self.theirs.account(), &[]), scale)?;
        Ok(())
    }

    /// A day without an operator: once the label is off, the Deployment is an ordinary one to people and controllers.
    fn break_glass(&self) -> anyhow::Result<()> {
        let ns = &self.ours.namespace;
        let old = self.replica_set(ns, "freed")?;
        self.really(ns, "anybody", &["label", "deployment/freed-r1", "graceful.dev/app-"])?;
        for command in [
            "delete deployment/freed-r1",
            r#"patch deployment/freed-r1 -p {"spec":{"replicas":0}}"#,
            "label deployment/freed-r1 graceful.dev/app=freed",
            "label deployment/freed-r1 graceful.dev/revision-",
        ] {
            self.passed(ns, Who::Person, command)?;
        }
        // Its Scale looks as before, so that the refusal names the way that does not go through it.
        let refused = self.refused(ns, Who::Person, "scale deployment/freed-r1 --replicas=0")?;
        let said = format!("kubectl patch deployment -n {ns} freed-r1 -p '{{\"spec\":{{\"replicas\":N}}}}'");
        ensure!(refused.contains(&said), "it does not say {said:?}:\n{refused}");
        // A native rollout takes both ReplicaSets through numbers that the Deployment does not ask for in the end.
        self.really(ns, "anybody", &["set", "image", "deployment/freed-r1", "web=x:2"])?;
        self.follows(ns, &old, "2").context("the Deployment's controller is refused in mid-rollout")?;
        self.really(ns, "anybody", &["delete", "deployment/freed-r1"])?;
        self.goes(ns, "freed").context("the garbage collector is refused")
    }

    /// Everything passes in a namespace that goes, and it goes.
    fn terminating(&self) -> anyhow::Result<()> {
        let ns = &self.theirs.namespace;
        self.server.kubectl(&["delete", "namespace", ns, "--wait=false"], None)?;
        self.goes(ns, "tasks").context("the namespace's own controller is refused")?;
        for command in [format!("scale {HELD} --replicas=0"), format!("delete {HELD}")] {
            self.passed(ns, Who::Person, &command)?;
        }
        self.really(ns, "anybody", &["patch", HELD, "--type=merge", "-p", LET_GO])?;
        self.server.kubectl(&["wait", "--for=delete", "--timeout=60s", "namespace", ns], None)?;
        Ok(())
    }

    /// Tries it dry, and again until the policies are in force; the words of the refusal.
    fn refused(&self, namespace: &str, who: Who<'_>, command: &str) -> anyhow::Result<String> {
        loop {
            match self.tried(namespace, who, command)? {
                Some(refused) => return Ok(refused),
                None if Instant::now() > self.deadline => bail!("no policy refuses {command:?}"),
                None => thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn passed(&self, namespace: &str, who: Who<'_>, command: &str) -> anyhow::Result<()> {
        match self.tried(namespace, who, command)? {
            Some(refused) => bail!("{command:?} is refused: {refused}"),
            None => Ok(()),
        }
    }

    /// The words in which a policy refuses it; anything else that goes wrong is an error.
    fn tried(&self, namespace: &str, who: Who<'_>, command: &str) -> anyhow::Result<Option<String>> {
        let mut words: Vec<&str> = command.split(' ').collect();
        if !words.contains(&"--raw") {
            words.extend(["-n", namespace, "--dry-run=server"]);
        }
        if let Who::User(user, groups) = who {
            words.extend(["--as", user, "--as-group=system:masters"]);
            words.extend(groups.iter().flat_map(|group| ["--as-group", group]));
        }
        match self.server.kubectl(&words, None) {
            Ok(_) => Ok(None),
            Err(error) => {
                let error = format!("{error:#}");
                ensure!(error.contains("denied request"), "{command:?} fails otherwise: {error}");
                Ok(Some(error))
            }
        }
    }

    fn really(&self, namespace: &str, user: &str, words: &[&str]) -> anyhow::Result<()> {
        let place = ["-n", namespace, "--as", user, "--as-group=system:masters"];
        self.server.kubectl(&[words, &place].concat(), None).map(drop)
    }

    /// The name of the app's only ReplicaSet, once it has three pods.
    fn replica_set(&self, namespace: &str, app: &str) -> anyhow::Result<String> {
        let deployment = format!("deployment/{app}-r1");
        let made = ["wait", "--for=jsonpath={.status.replicas}=3", "--timeout=30s", &deployment];
        self.server.kubectl(&[&made[..], &["-n", namespace]].concat(), None)?;
        let label = format!("graceful.dev/app={app}");
        let list = ["get", "replicasets", "-n", namespace, "-l", &label, "-o", "json"];
        let list: Value = serde_json::from_str(&self.server.kubectl(&list, None)?.stdout)?;
        let name = list["items"][0]["metadata"]["name"].as_str().context("no ReplicaSet")?;
        Ok(name.to_owned())
    }

    fn follows(&self, namespace: &str, set: &str, replicas: &str) -> anyhow::Result<()> {
        let (test, set) =
            (format!("--for=jsonpath={{.spec.replicas}}={replicas}"), format!("replicaset/{set}"));
        self.server.kubectl(&["wait", &test, "--timeout=30s", &set, "-n", namespace], None).map(drop)
    }

    /// Neither ReplicaSet nor pod of the app is left.
    fn goes(&self, namespace: &str, app: &str) -> anyhow::Result<()> {
        let label = format!("graceful.dev/app={app}");
        let gone =
            ["wait", "--for=delete", "--timeout=60s", "replicasets,pods", "-l", &label, "-n", namespace];
        self.server.kubectl(&gone, None).map(drop)
    }
}
