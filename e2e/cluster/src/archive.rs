//! Container images of one file, as docker archives: what the cluster itself needs before any image builder is there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use graceful_process::{command, output};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Raised when what [`write()`] makes of the same program changes.
pub(crate) const FORMAT: u32 = 1;

/// Writes `tar`: an image called `reference` with `program` as its only file and its entry point.
pub(crate) fn write(reference: &str, program: &Path, tar: &Path) -> anyhow::Result<()> {
    let name = program.file_name().context("a program without a name")?.display().to_string();
    let folder = tar.with_extension("folder");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("root"))?;
    fs::copy(program, folder.join("root").join(&name))?;
    pack(&folder.join("root"), &[&name], &folder.join("layer.tar"))?;
    let layer = hex::encode(Sha256::digest(fs::read(folder.join("layer.tar"))?));
    let config = config(&name, &layer).to_string();
    let config_file = format!("{}.json", hex::encode(Sha256::digest(&config)));
    fs::write(folder.join(&config_file), config)?;
    let manifest = json!([{"Config": config_file, "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    pack(&folder, &[&config_file, "layer.tar", "manifest.json"], tar)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The names in an archive, and the digest of its configuration: that names its content.
pub(crate) fn identity(tar: &Path) -> anyhow::Result<(Vec<String>, String)> {
    let text = output(Command::new("tar").arg("-xOf").arg(tar).arg("manifest.json"))
        .with_context(|| format!("{} is no docker archive", tar.display()))?;
    parse_identity(&text).with_context(|| format!("{} is no docker archive", tar.display()))
}

fn parse_identity(manifest: &str) -> anyhow::Result<(Vec<String>, String)> {
    let manifest: Value = serde_json::from_str(manifest)?;
    let image = manifest.get(0).context("no image in it")?;
    let tags = image["RepoTags"].as_array().context("no RepoTags")?;
    let names = tags.iter().filter_map(|tag| Some(tag.as_str()?.to_owned())).collect();
    Ok((names, image["Config"].as_str().context("no Config")?.to_owned()))
}

fn config(name: &str, layer: &str) -> Value {
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "graceful-cluster"}],
    })
}

/// Owner, time and order are fixed: the same files give the same bytes.
fn pack(folder: &Path, files: &[&str], tar: &Path) -> anyhow::Result<()> {
    let fixed = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
    output(command("tar", &fixed).arg("-C").arg(folder).arg("-cf").arg(tar).args(files))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_tells_its_name_and_the_same_program_gives_the_same_bytes() {
        let folder = std::env::temp_dir().join(format!("graceful-archive-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("program"), "not really").unwrap();
        let (first, second) = (folder.join("1.tar"), folder.join("2.tar"));
        write("graceful/x:1", &folder.join("program"), &first).unwrap();
        write("graceful/x:1", &folder.join("program"), &second).unwrap();
        let same = fs::read(&first).unwrap() == fs::read(&second).unwrap();
        let (names, config) = identity(&first).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(same);
        assert_eq!(names, ["graceful/x:1"]);
        assert!(config.ends_with(".json") && config.len() == 69, "{config}");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(parse_identity("[]").is_err());
        assert!(parse_identity("{\"a\":1}").is_err());
        assert!(parse_identity("hello").is_err());
    }
}
