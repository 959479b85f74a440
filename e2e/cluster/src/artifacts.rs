//! What a cluster is made of, built from Go modules once and kept outside the repo under a hash of its sources.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::command::Progress;
use crate::layout::{cache, sources};
use crate::lock::Lock;
use crate::state::State;
use crate::{archive, prerequisites};

/// How long a build may be silent.
const SILENCE: Duration = Duration::from_secs(15);

/// One run of the go command.
struct Step {
    /// For the reader.
    name: &'static str,
    /// The folder of the sources, beside this crate's own; none for a module that is installed as it is.
    folder: Option<&'static str>,
    /// The words after `go`. `BIN` stands for the folder of the programs.
    words: &'static [&'static str],
}

/// `-trimpath`, no version control stamp and no cgo: the same sources give the same bytes on every machine.
const STEPS: [Step; 5] = [
    Step {
        name: "pause",
        folder: Some("pause"),
        words: &["build", "-ldflags", "-s -w", "-o", "BIN/pause", "."],
    },
    Step {
        name: "Kubernetes 1.37.2 with etcd 3.7.0",
        folder: Some("kube"),
        words: &["build", "-ldflags", KUBE_LDFLAGS, "-o", "BIN/kube", "."],
    },
    Step {
        name: "containerd 2.4.2",
        folder: Some("containerd"),
        words: &[
            "build",
            "-tags",
            "osusergo netgo static_build urfave_cli_no_docs no_btrfs no_devmapper no_zfs",
            "-ldflags",
            "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2 \
             -X github.com/containerd/containerd/v2/version.Revision=go-modules",
            "-o",
            "BIN/",
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
    },
    Step {
        name: "CoreDNS 1.15.0",
        folder: Some("coredns"),
        words: &["build", "-ldflags", "-s -w", "-o", "BIN/coredns", "."],
    },
    Step {
        name: "helm 3.22.0",
        folder: None,
        words: &["install", "-ldflags", "-s -w", "helm.sh/helm/v3/cmd/helm@v3.22.0"],
    },
];

/// Clients and servers compare these versions; without them all is v0.0.0.
const KUBE_LDFLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean \
    -X k8s.io/component-base/version.gitCommit=go-modules \
    -X k8s.io/component-base/version.buildDate=1970-01-01T00:00:00Z \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.37.2 -X k8s.io/client-go/pkg/version.gitMajor=1 \
    -X k8s.io/client-go/pkg/version.gitMinor=37 -X k8s.io/client-go/pkg/version.gitTreeState=clean \
    -X k8s.io/client-go/pkg/version.gitCommit=go-modules \
    -X k8s.io/client-go/pkg/version.buildDate=1970-01-01T00:00:00Z";

/// The parts that `kube` plays, each by a link of its name.
const KUBE_PARTS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// The images that every node starts with.
const BASE_IMAGES: [(&str, &str); 2] = [("graceful/pause:1", "pause"), ("graceful/coredns:1", "coredns")];

/// The built programs and images.
#[derive(Clone, Debug)]
pub(crate) struct Artifacts {
    folder: PathBuf,
}

impl Artifacts {
    /// The artifacts of a build that is there.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The images that every node starts with, as docker archives.
    pub(crate) fn images(&self) -> Vec<PathBuf> {
        BASE_IMAGES
            .iter()
            .map(|(_, program)| self.folder.join("images").join(format!("{program}.tar")))
            .collect()
    }

    /// Builds them, unless a build of the same sources is there. Of two processes at once one builds, one waits.
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        let hash = hash(&inputs()?);
        let built = Self::at(cache().join(format!("cluster-{hash}")));
        if built.folder.exists() {
            return Ok(built);
        }
        fs::create_dir_all(cache())?;
        let _lock = Lock::take(&cache().join("build.lock"), "another build")?;
        if !built.folder.exists() {
            let unfinished = Self::at(cache().join(format!("cluster-{hash}.new")));
            unfinished.build().context("cannot build the cluster's programs")?;
            fs::rename(&unfinished.folder, &built.folder)?;
            prune(&built.folder);
        }
        Ok(built)
    }

    fn build(&self) -> anyhow::Result<()> {
        prerequisites::require_go()?;
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(self.folder.join("bin"))?;
        fs::create_dir_all(self.folder.join("images"))?;
        let progress = Progress::start();
        progress.say("building Kubernetes from its Go modules: once, about 12 minutes on two cores");
        for step in &STEPS {
            step.run(&self.folder.join("bin"), &progress)?;
        }
        for part in KUBE_PARTS {
            std::os::unix::fs::symlink("kube", self.program(part))?;
        }
        for (image, tar) in BASE_IMAGES.iter().zip(self.images()) {
            archive::write(image.0, &self.program(image.1), &tar)?;
        }
        progress.say(format!("built: {}", self.folder.display()));
        Ok(())
    }
}

impl Step {
    fn run(&self, bin: &Path, progress: &Progress) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut go = Command::new("go");
        let folder = self.folder.map_or(cache(), |folder| sources().join(folder));
        go.current_dir(folder)
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .env("GOBIN", bin)
            .env("GOFLAGS", "");
        let (verb, rest) = self.words.split_first().context("a step without words")?;
        go.args([verb, "-v", "-trimpath", "-buildvcs=false"]);
        go.args(rest.iter().map(|word| word.replace("BIN/", &format!("{}/", bin.display()))));
        // -v names each package as it is compiled, on stderr.
        let mut child = go.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("no stderr")?;
        let (count, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let reader = std::thread::spawn({
            let (count, last) = (count.clone(), last.clone());
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    count.fetch_add(1, Ordering::Relaxed);
                    if let Ok(mut last) = last.lock() {
                        let lines: &mut Vec<String> = &mut last;
                        lines.push(line);
                        let keep_from = lines.len().saturating_sub(20);
                        lines.drain(..keep_from);
                    }
                }
            }
        });
        let mut spoke = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if spoke.elapsed() >= SILENCE {
                spoke = Instant::now();
                let packages = count.load(Ordering::Relaxed);
                progress.say(format!("{}: {packages} packages compiled or fetched", self.name));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let _ = reader.join();
        if !status.success() {
            let said = last.lock().map(|lines| lines.join("\n")).unwrap_or_default();
            bail!("{}: {status}\n{said}", self.name);
        }
        progress.say(format!("{}: built in {:.0} s", self.name, start.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// Removes old builds, 0.4 GB each: all but the newest three, `new` among them, and what a running cluster uses.
fn prune(new: &Path) {
    let used = State::read().map(|state| state.programs);
    let is_build =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cluster-"));
    let entries = fs::read_dir(cache()).into_iter().flatten().flatten();
    let mut builds: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_build).collect();
    builds.retain(|path| path != new && Some(path) != used.as_ref());
    builds.sort_by_key(|path| fs::metadata(path).and_then(|of| of.modified()).ok());
    for old in builds.iter().rev().skip(2) {
        let _ = fs::remove_dir_all(old);
    }
}

/// All that decides what is built: the sources, and the words of each step.
fn inputs() -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut inputs = BTreeMap::new();
    for step in &STEPS {
        inputs.insert(format!("step {}", step.name), step.words.join("\0").into_bytes());
        let Some(folder) = step.folder else { continue };
        for entry in fs::read_dir(sources().join(folder))? {
            let path = entry?.path();
            let name = path.strip_prefix(sources())?.display().to_string();
            inputs.insert(name, fs::read(&path).with_context(|| path.display().to_string())?);
        }
    }
    inputs.insert("images".into(), format!("{BASE_IMAGES:?} {}", archive::FORMAT).into_bytes());
    Ok(inputs)
}

/// Each name and text goes in with its length, so that moving a byte from one to the next changes the hash.
fn hash(inputs: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hasher = Sha256::new();
    for (name, text) in inputs {
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    hex::encode(hasher.finalize())[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> String {
        hash(&pairs.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect())
    }

    #[test]
    fn any_changed_byte_is_another_build() {
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        assert_ne!(of(&[("a", "1")]), of(&[("a", "2")]));
        assert_ne!(of(&[("a", "1")]), of(&[("b", "1")]));
        assert_ne!(of(&[("a", "12"), ("b", "3")]), of(&[("a", "1"), ("b", "23")]));
    }

    #[test]
    fn every_source_counts() {
        let inputs = inputs().unwrap();
        for name in ["kube/main.go", "kube/go.sum", "containerd/go.mod", "coredns/main.go", "pause/main.go"] {
            assert!(inputs.contains_key(name), "{name}");
        }
        assert!(inputs.contains_key("step helm 3.22.0"));
    }
}
