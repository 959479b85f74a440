//! Virtual environments for the programs that we take from PyPI.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use graceful_process::run;

/// Sees that `environment` has the requirements as they are written down; it is made again when those change.
pub(crate) fn ensure(environment: &Path, requirements: &Path) -> anyhow::Result<()> {
    const HINT: &str = "this needs python3 with venv: apt-get install -y python3-venv";
    let (wanted, installed) = (fs::read_to_string(requirements)?, environment.join("installed.txt"));
    if fs::read_to_string(&installed).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    fs::create_dir_all(environment)?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment)).context(HINT)?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(install.arg(requirements))?;
    fs::write(installed, wanted)?;
    Ok(())
}
