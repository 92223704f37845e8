//! Makes the stubs from the API's definitions. protox compiles them, so that no protoc is needed.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let definitions = protox::compile(["jeton/v1/token.proto"], [proto])?;
    tonic_prost_build::configure().build_server(false).compile_fds(definitions)?;
    Ok(())
}
