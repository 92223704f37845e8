//! Generates the API from `proto/`. No protoc is needed: protox compiles the definitions.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

/// Messages that hold secrets: prost must not derive a `Debug` that prints them. Each has one by hand in `src/redacted.rs`.
const SECRET_MESSAGES: &[&str] = &[
    ".jeton.v1.Token",
    ".jeton.v1.AttachCertificate",
    ".jeton.v1.AttachSecret",
    ".jeton.v1.RegistrarCertificate",
    ".jeton.v1.RegistrarInitialAccessToken",
    ".jeton.v1.RotateSecretResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let names =
        ["access", "authority", "event", "identity", "revocation", "sealing", "status", "token", "workload"];
    let files = names.map(|name| format!("jeton/v1/{name}.proto"));
    let descriptors = protox::Compiler::new([&root])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(files)?
        .file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure().build_transport(false);
    for message in SECRET_MESSAGES {
        builder = builder.skip_debug([*message]);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
