//! The cluster's own certificates: two authorities, and a leaf for each part that speaks or serves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use crate::layout::{API_SERVICE_IP, HOST_IP, node_ip, node_name, run};

/// A file of the certificates' folder: `ca.crt`, `admin.key`, ….
pub(crate) fn file(name: &str) -> PathBuf {
    run("pki").join(name)
}

/// Makes all of them, unless they are there. The folder appears whole or not at all.
pub(crate) fn ensure(nodes: u8) -> anyhow::Result<()> {
    let folder = run("pki");
    if folder.exists() {
        return Ok(());
    }
    let unfinished = run("pki.new");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    write_all(&unfinished, nodes).context("cannot make the certificates")?;
    fs::rename(unfinished, folder)?;
    Ok(())
}

fn write_all(folder: &Path, nodes: u8) -> anyhow::Result<()> {
    let cluster = authority(folder, "ca", "kubernetes")?;
    let front = authority(folder, "front", "front-proxy")?;

    let api_names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        HOST_IP,
        API_SERVICE_IP,
    ];
    leaf(folder, "apiserver", &cluster, "kube-apiserver", None, &api_names)?;
    leaf(folder, "admin", &cluster, "admin", Some("system:masters"), &[])?;
    leaf(folder, "apiserver-kubelet", &cluster, "apiserver-kubelet-client", Some("system:masters"), &[])?;
    leaf(folder, "front-client", &front, "front-proxy-client", None, &[])?;
    // The API server's own RBAC knows these names.
    leaf(folder, "controller-manager", &cluster, "system:kube-controller-manager", None, &[])?;
    leaf(folder, "scheduler", &cluster, "system:kube-scheduler", None, &[])?;
    leaf(folder, "proxy", &cluster, "system:kube-proxy", None, &[])?;
    for n in 1..=nodes {
        let (name, user) = (node_name(n), format!("system:node:{}", node_name(n)));
        leaf(folder, &name, &cluster, &user, Some("system:nodes"), &[&name, &node_ip(n)])?;
    }

    let accounts = KeyPair::generate()?;
    write_private(&folder.join("sa.key"), &accounts.serialize_pem())?;
    fs::write(folder.join("sa.pub"), accounts.public_key_pem())?;
    Ok(())
}

fn authority(folder: &Path, file: &str, name: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    fs::write(folder.join(format!("{file}.crt")), params.self_signed(&key)?.pem())?;
    write_private(&folder.join(format!("{file}.key")), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

/// A certificate that serves and speaks alike; `names` are the host names and addresses it serves.
fn leaf(
    folder: &Path,
    file: &str,
    issuer: &Issuer<'static, KeyPair>,
    user: &str,
    group: Option<&str>,
    names: &[&str],
) -> anyhow::Result<()> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = subject(user, group);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    fs::write(folder.join(format!("{file}.crt")), params.signed_by(&key, issuer)?.pem())?;
    write_private(&folder.join(format!("{file}.key")), &key.serialize_pem())
}

fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, user);
    subject
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
