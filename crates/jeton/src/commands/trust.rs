//! Whom a program has to trust beside the machine's own authorities, in the forms that its language takes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use aws_lc_rs::digest::{Context as Digest, SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::data_dir::write_private;

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The files.
pub(super) struct Trust {
    /// For Python, Go, Rust, Node and curl.
    pub(super) pem: PathBuf,
    /// For Java, which takes no PEM.
    pub(super) java: PathBuf,
}

/// Writes the machine's authorities and these: most clients take the file in the place of what they know.
pub(super) fn write(data_dir: &Path, authorities: &[PathBuf]) -> anyhow::Result<Trust> {
    let system = SYSTEM.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    let mut pem = system;
    for file in authorities {
        let own = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        pem.extend_from_slice(b"\n");
        pem.extend_from_slice(&own);
    }
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().context("the trusted certificates")?;
    let trust = Trust { pem: data_dir.join("trust.pem"), java: data_dir.join("trust.jks") };
    for (path, content) in [(&trust.pem, &pem), (&trust.java, &java(&certificates))] {
        // A program that starts now may be reading it.
        if fs::read(path).ok().as_ref() != Some(content) {
            write_private(path, content).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(trust)
}

/// The SHA-1 of the first certificate in a file, in capitals: what clients of Service Fabric pin.
pub(super) fn thumbprint(file: &Path) -> anyhow::Result<String> {
    let leaf = CertificateDer::from_pem_file(file).with_context(|| format!("reading {}", file.display()))?;
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &leaf);
    Ok(sum.as_ref().iter().map(|byte| format!("{byte:02X}")).collect())
}

/// A key store of the form JKS, which holds certificates and no secret; its sum is made with the usual password, `changeit`.
fn java(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut store = vec![];
    let count = u32::try_from(certificates.len()).unwrap_or(u32::MAX);
    for number in [0xfeed_feed_u32, 2, count] {
        store.extend_from_slice(&number.to_be_bytes());
    }
    for (n, certificate) in certificates.iter().enumerate() {
        store.extend_from_slice(&2_u32.to_be_bytes());
        put_text(&mut store, &format!("authority-{n}"));
        store.extend_from_slice(&0_u64.to_be_bytes());
        put_text(&mut store, "X.509");
        store.extend_from_slice(&u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_be_bytes());
        store.extend_from_slice(certificate);
    }
    let mut sum = Digest::new(&SHA1_FOR_LEGACY_USE_ONLY);
    "changeit".encode_utf16().for_each(|unit| sum.update(&unit.to_be_bytes()));
    sum.update(b"Mighty Aphrodite");
    sum.update(&store);
    store.extend_from_slice(sum.finish().as_ref());
    store
}

fn put_text(store: &mut Vec<u8>, text: &str) {
    store.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}
