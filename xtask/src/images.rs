//! `cargo xtask images`: static binaries, each alone in an image, for the cluster's nodes or for a registry.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use graceful_cluster::{Cluster, prerequisites};
use graceful_process::{output, run as run_command};
use serde_json::Value;

use crate::run::{cargo, root};

/// Static, so that it runs in an image with nothing else in it; musl, since a static glibc still looks names up
/// through libraries that are not there.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";

/// In the image, where nobody can compile it in; off until a collector is named. Whatever else is compiled for the same target names it too, or
/// cargo would compile kube, hyper and tokio again.
pub(crate) const FEATURES: [&str; 2] = ["--features", "graceful-server/otlp"];

/// An image: what it is called, the binary, the package it comes from, the folder of its Containerfile.
struct Image {
    name: &'static str,
    binary: &'static str,
    package: &'static str,
    folder: &'static str,
}

const IMAGES: [Image; 4] = [
    Image { name: "operator", binary: "operator", package: "graceful-operator", folder: "operator" },
    Image { name: "server", binary: "server", package: "graceful-server", folder: "server" },
    Image { name: "gate", binary: "graceful-gate", package: "graceful-gate", folder: "server/gate" },
    Image { name: "loadgen", binary: "loadgen", package: "graceful-e2e", folder: "e2e" },
];

/// What to do with them.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Loads them on every node of this machine's cluster.
    #[arg(long)]
    load: bool,
    /// Pushes them to this registry too, such as 10.250.0.254:5000 or ghcr.io/me. Plain HTTP is tried where the
    /// registry is a bare address.
    #[arg(long, value_name = "HOST/PATH")]
    registry: Option<String>,
    /// Makes images of these alone (operator, server, gate, loadgen); all binaries are compiled anyhow.
    #[arg(value_name = "IMAGE")]
    only: Vec<String>,
}

/// Builds all images and loads them on the nodes: what the demo and the tests need.
pub(crate) fn build_and_load() -> anyhow::Result<()> {
    run(&Options { load: true, ..Options::default() })
}

/// Builds all images and pushes them to a registry that another cluster pulls from.
pub(crate) fn build_and_push(registry: &str) -> anyhow::Result<()> {
    run(&Options { registry: Some(registry.to_owned()), ..Options::default() })
}

/// Builds the images that changed, then loads and pushes as asked.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(unknown) = options.only.iter().find(|name| IMAGES.iter().all(|image| image.name != **name)) {
        bail!("no image {unknown}: there are {}", IMAGES.map(|image| image.name).join(", "));
    }
    let wanted: Vec<&Image> = IMAGES
        .iter()
        .filter(|image| options.only.is_empty() || options.only.iter().any(|name| name == image.name))
        .collect();
    compile()?;
    // Held until the archives are loaded: of two at once, each loads what it built.
    let _lock = lock()?;
    let builder = Builder::find()?;
    for image in &wanted {
        image.build(&builder)?;
        if let Some(registry) = &options.registry {
            builder.push(image, registry)?;
        }
    }
    if options.load {
        let start = Instant::now();
        let tars: Vec<PathBuf> = wanted.iter().map(|image| image.tar()).collect();
        let taken = Cluster::open()?.load(&tars)?;
        eprintln!("loaded on the nodes: {taken} imports in {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// An image's binary, which is all that it has in it, built as for the image.
pub(crate) fn static_binary(name: &str) -> anyhow::Result<PathBuf> {
    compile()?;
    let image = IMAGES.iter().find(|image| image.name == name);
    image.with_context(|| format!("no image {name}"))?.compiled()
}

/// One run of cargo for all, whatever is wanted: cargo unifies features over what one run names, and another choice of
/// packages would compile kube, hyper and tokio again.
fn compile() -> anyhow::Result<()> {
    prerequisites::ensure(&prerequisites::MUSL)?;
    install_target()?;
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", TARGET]);
    build.args(FEATURES);
    for image in &IMAGES {
        build.args(["--package", image.package, "--bin", image.binary]);
    }
    run_command(&mut build)
}

fn lock() -> anyhow::Result<fs::File> {
    let folder = root().join("target/images");
    fs::create_dir_all(&folder)?;
    let file = fs::File::create(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// rust-toolchain.toml names the target, so rustup has installed it; a Rust of another kind is told.
fn install_target() -> anyhow::Result<()> {
    let print = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root())
        .output()?;
    let folder = String::from_utf8_lossy(&print.stdout).trim().to_owned();
    if Path::new(&folder).exists() {
        return Ok(());
    }
    run_command(Command::new("rustup").args(["target", "add", TARGET]).current_dir(root()))
        .with_context(|| format!("Rust has no {TARGET}: rustup target add {TARGET}"))
}

impl Image {
    /// As pods name it; the kubelet reads it as docker.io/graceful/….
    fn name(&self) -> String {
        format!("graceful/{}:dev", self.name)
    }

    fn compiled(&self) -> anyhow::Result<PathBuf> {
        Ok(target_folder()?.join(TARGET).join("release").join(self.binary))
    }

    fn containerfile(&self) -> PathBuf {
        root().join(self.folder).join("Containerfile")
    }

    fn tar(&self) -> PathBuf {
        root().join("target/images").join(format!("{}.tar", self.name))
    }

    /// Builds it unless its binary and its Containerfile are those of the archive that is there.
    fn build(&self, builder: &Builder) -> anyhow::Result<()> {
        let (start, tar, binary) = (Instant::now(), self.tar(), self.compiled()?);
        let made_of = digest(&[&binary, &self.containerfile()])?;
        let record = tar.with_extension("made-of");
        if tar.exists() && fs::read_to_string(&record).is_ok_and(|before| before == made_of) {
            eprintln!("{}: unchanged", self.name());
            return Ok(());
        }
        let context = tar.with_extension("context");
        let _ = fs::remove_dir_all(&context);
        fs::create_dir_all(&context)?;
        fs::copy(&binary, context.join(self.binary))?;
        let unfinished = tar.with_extension("new");
        let _ = fs::remove_file(&unfinished);
        builder.build(self, &context, &unfinished)?;
        fs::rename(unfinished, &tar)?;
        fs::write(record, made_of)?;
        fs::remove_dir_all(context)?;
        let mebibytes = fs::metadata(&tar)?.len() as f64 / f64::from(1 << 20);
        eprintln!("{}: built in {:.1} s, {mebibytes:.1} MiB", self.name(), start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// What makes images of Containerfiles here.
enum Builder {
    /// Where its daemon answers.
    Docker,
    /// Needs no daemon. Its store is ours, so that nothing is left on the machine.
    Buildah { store: PathBuf },
}

impl Builder {
    fn find() -> anyhow::Result<Self> {
        // A client may be there without a daemon.
        if Command::new("docker").arg("info").output().is_ok_and(|done| done.status.success()) {
            return Ok(Self::Docker);
        }
        prerequisites::ensure(&prerequisites::BUILDAH)?;
        Ok(Self::Buildah { store: root().join("target/images/store") })
    }

    fn build(&self, image: &Image, context: &Path, tar: &Path) -> anyhow::Result<()> {
        let (file, name) = (image.containerfile(), image.name());
        match self {
            Self::Docker => {
                output(
                    Command::new("docker")
                        .args(["build", "--file"])
                        .arg(file)
                        .args(["--tag", &name])
                        .arg(context),
                )?;
                output(Command::new("docker").args(["save", "--output"]).arg(tar).arg(&name)).map(drop)
            }
            Self::Buildah { .. } => {
                let mut build = self.buildah(&["bud", "--isolation", "chroot", "--file"]);
                output(build.arg(file).args(["--tag", &name]).arg(context))?;
                let to = format!("docker-archive:{}:{name}", tar.display());
                output(&mut self.buildah(&["push", &name, &to])).map(drop)
            }
        }
    }

    /// From the archive, since an unchanged image is not in the store.
    fn push(&self, image: &Image, registry: &str) -> anyhow::Result<()> {
        let (from, to) = (image.name(), format!("{}/{}", registry.trim_end_matches('/'), image.name()));
        match self {
            Self::Docker => {
                output(Command::new("docker").args(["load", "--input"]).arg(image.tar()))?;
                output(Command::new("docker").args(["tag", &from, &to]))?;
                output(Command::new("docker").args(["push", &to]))?;
            }
            Self::Buildah { .. } => {
                output(&mut self.buildah(&["pull", &format!("docker-archive:{}", image.tar().display())]))?;
                let verify = format!("--tls-verify={}", !is_bare_address(registry));
                output(&mut self.buildah(&["push", &verify, &from, &format!("docker://{to}")]))?;
            }
        }
        eprintln!("{to}: pushed");
        Ok(())
    }

    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        if let Self::Buildah { store } = self {
            command.arg("--root").arg(store).arg("--runroot").arg(store.with_extension("run"));
        }
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command
    }
}

/// Empties the store, however it ended: the archives are what stays.
impl Drop for Builder {
    fn drop(&mut self) {
        if let Self::Buildah { store } = self {
            let _ = fs::remove_dir_all(&*store);
            let _ = fs::remove_dir_all(store.with_extension("run"));
        }
    }
}

/// Whether a registry is named by an address or as this machine, where nobody has a certificate.
fn is_bare_address(registry: &str) -> bool {
    let host = registry.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// macOS has `shasum` for it.
const DIGEST: (&str, &[&str]) =
    if cfg!(target_os = "macos") { ("shasum", &["-a", "256"]) } else { ("sha256sum", &[]) };

/// The digests of files as one text. The program does in a tenth of a second what an unoptimised xtask does in five.
fn digest(files: &[&Path]) -> anyhow::Result<String> {
    let (program, flags) = DIGEST;
    let text = output(Command::new(program).args(flags).args(files))?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join("\n"))
}

/// Where cargo builds: CARGO_TARGET_DIR or a configuration may have moved it.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let done = cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]).output()?;
    let metadata: Value = serde_json::from_slice(&done.stdout).context("cargo metadata says nothing")?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target folder")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_bare_addresses_alone() {
        for bare in ["10.250.0.254:5000", "127.0.0.1:5000/x", "localhost:5000", "[::1]:5000"] {
            assert!(is_bare_address(bare), "{bare}");
        }
        for named in ["ghcr.io/me", "registry.example:5000", "docker.io"] {
            assert!(!is_bare_address(named), "{named}");
        }
    }

    #[test]
    fn every_image_has_its_containerfile() {
        for image in &IMAGES {
            let text = fs::read_to_string(image.containerfile()).unwrap();
            assert!(text.contains(&format!("COPY {0} /{0}", image.binary)), "{}", image.binary);
            assert!(text.contains("FROM scratch") && text.contains("USER 65532"), "{}", image.binary);
        }
    }
}
