//! What a first start shows: a line for each step of the story, then lines to copy.

use std::{net::SocketAddr, path::Path, time::Duration};

use jeton_core::Identity;
use jeton_sandbox::Description;

use crate::{broker::Places, output};

/// Shown line by line while things happen; later starts only say where things are.
pub(super) struct Tour {
    begun: bool,
    ephemeral: bool,
}

impl Tour {
    pub(super) fn new(ephemeral: bool) -> Self {
        Self { begun: false, ephemeral }
    }

    pub(super) fn begin(&mut self, sandbox: &Description) {
        self.begun = true;
        self.say(&format!(
            "\nJeton enables a managed identity for a workload, and the code never sees a credential.\n\n  {:<17} {} (its CA: {})\n",
            "authority",
            sandbox.entra.authority,
            sandbox.ca_file.display()
        ));
    }

    pub(super) fn registered(&self, identity: &Identity, took: Duration) {
        let thumbprint =
            identity.current().and_then(|c| c.certificate()).map_or("", |facts| &facts.references.x5t_s256);
        let client_id = identity.client_id.as_deref().unwrap_or_default();
        self.step(
            "registered",
            &format!(
                "{}: client {client_id}, certificate x5t#S256 {thumbprint}, verified by a grant",
                identity.name
            ),
            took,
        );
    }

    pub(super) fn step(&self, name: &str, text: &str, took: Duration) {
        let took =
            if took.is_zero() { String::new() } else { format!(" ({:.1} ms)", took.as_secs_f64() * 1e3) };
        self.say(&format!("  {name:<17} {text}{took}\n"));
    }

    /// Everything listens.
    pub(super) fn finish(
        &self,
        data_dir: &Path,
        places: &Places,
        address: Option<SocketAddr>,
        sandbox: &Description,
    ) -> anyhow::Result<()> {
        let (socket, scope) = (places.data_socket.display(), &sandbox.vault.scope);
        let tcp = address.map(|a| format!("{a} and ")).unwrap_or_default();
        let mut text =
            format!("\nready: gRPC on {tcp}{socket}, admin on {}\n", places.admin_socket.display());
        if self.begun {
            // What `cargo run` starts is on no PATH.
            let jeton = std::env::current_exe().unwrap_or_else(|_| "jeton".into());
            let (jeton, data) = (quoted(&jeton), quoted(data_dir));
            let channel = address.map_or_else(|| format!("unix:{socket}"), |a| a.to_string());
            let plain =
                address.map_or_else(|| format!("-unix {}", quoted(&places.data_socket)), |a| a.to_string());
            let later =
                if self.ephemeral { "nothing of it stays" } else { "the next start finds everything again" };
            text += &format!(
                r#"
try, in another terminal:

  {jeton} token get --data-dir {data} --identity identities/billing --scope {scope}

  grpcurl -plaintext -d '{{"identity":"identities/billing","scopes":["{scope}"]}}' {plain} jeton.v1.TokenService/GetToken

  {jeton} run --workload demo --data-dir {data} -- env   # what SDKs of managed identities go by; put a program in the place of `env`

  # Python, with stubs made by grpcio-tools from proto/
  import grpc
  from jeton.v1 import token_pb2, token_pb2_grpc
  tokens = token_pb2_grpc.TokenServiceStub(grpc.insecure_channel("{channel}"))
  print(tokens.GetToken(token_pb2.GetTokenRequest(identity="identities/billing", scopes=["{scope}"])).token.expires_at)

Ctrl-C stops it; {later}.
"#
            );
        }
        output::text(&text)
    }

    fn say(&self, text: &str) {
        // A terminal that went away is no reason to stop.
        let _ = output::text(text);
    }
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_1")), "/tmp/a-b_1");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
