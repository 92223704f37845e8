//! What a first start shows: a line for each step of the story, then lines to copy.

use std::{net::SocketAddr, path::Path, time::Duration};

use jeton_core::Identity;
use jeton_sandbox::Description;

use crate::output;

/// Shown line by line while things happen; later starts only say where things are.
#[derive(Default)]
pub(super) struct Tour {
    begun: bool,
}

impl Tour {
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
        address: Option<SocketAddr>,
        sandbox: &Description,
    ) -> anyhow::Result<()> {
        let (data, scope) = (data_dir.display(), &sandbox.vault.scope);
        let tcp = address.map(|a| a.to_string()).unwrap_or_default();
        let mut text = format!("\nready: gRPC on {tcp} and {data}/data.sock, admin on {data}/admin.sock\n");
        if self.begun {
            text += &format!(
                r#"
try, in another terminal:

  jeton token get --data-dir {data} --identity identities/billing --scope {scope}

  grpcurl -plaintext -d '{{"identity":"identities/billing","scopes":["{scope}"]}}' {tcp} jeton.v1.TokenService/GetToken

  # Python, with stubs made by grpcio-tools from proto/
  import grpc
  from jeton.v1 import token_pb2, token_pb2_grpc
  tokens = token_pb2_grpc.TokenServiceStub(grpc.insecure_channel("{tcp}"))
  print(tokens.GetToken(token_pb2.GetTokenRequest(identity="identities/billing", scopes=["{scope}"])).token.expires_at)

Ctrl-C stops it; the next start finds everything again.
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
