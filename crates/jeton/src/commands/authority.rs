//! `jeton authority`

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use jeton_proto::v1::{
    self, authority_service_client::AuthorityServiceClient, create_authority_request::Registrar,
};
use secrecy::ExposeSecret;
use tonic::transport::Channel;

use super::{Common, PAGE, absolute, full, id_of, read_secret, read_text, shown};
use crate::exit::Misuse;

const COLLECTION: &str = "authorities/";

/// `jeton authority`
#[derive(Debug, clap::Args)]
pub(crate) struct AuthorityArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Add one; its discovery document is read once
    Create(Box<Create>),
    /// Show one
    Get {
        /// The authority
        name: String,
    },
    /// Show all
    List,
    /// Change display name, profile or registrar
    Update {
        /// The authority
        name: String,
        /// For people
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        display_name: Option<String>,
        /// The whole profile (JSON file), as `get -o json` shows it
        #[arg(long, value_name = "FILE")]
        profile: Option<PathBuf>,
        #[command(flatten)]
        registrar: RegistrarFiles,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Remove one that no identity uses
    Delete {
        /// The authority
        name: String,
        /// Repeating a change with the same id changes nothing more
        #[arg(long, default_value = "")]
        request_id: String,
    },
    /// Try it: one real round trip, explained
    Test {
        /// The authority
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The authority: contoso, or authorities/contoso
    name: String,
    /// Its kind
    #[arg(long)]
    kind: Kind,
    /// Entra: the authority with its tenant; OIDC: the issuer
    #[arg(long)]
    url: String,
    /// Certificates to trust for it (PEM file); the system's if absent
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The base of Graph, if it is not Microsoft's
    #[arg(long, default_value = "")]
    graph_url: String,
    /// For people
    #[arg(long, default_value = "")]
    display_name: String,
    #[command(flatten)]
    registrar: RegistrarFiles,
    /// Members that replace those of the ready profile (JSON file)
    #[arg(long, value_name = "FILE")]
    profile_overrides: Option<PathBuf>,
    /// Repeating a change with the same id changes nothing more
    #[arg(long, default_value = "")]
    request_id: String,
}

/// The registrar's credential: a client with its certificate, or an initial access token.
#[derive(Debug, clap::Args)]
struct RegistrarFiles {
    /// The client that may register others
    #[arg(long, value_name = "ID", requires = "registrar_certificate", requires = "registrar_key")]
    registrar_client_id: Option<String>,
    /// Its certificate (PEM file)
    #[arg(long, value_name = "FILE", requires = "registrar_client_id")]
    registrar_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM file)
    #[arg(long, value_name = "FILE", requires = "registrar_client_id")]
    registrar_key: Option<PathBuf>,
    /// The initial access token for dynamic registration (file; RFC 7591)
    #[arg(long, value_name = "FILE", conflicts_with = "registrar_client_id")]
    initial_access_token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Microsoft Entra ID, or what speaks as it does
    Entra,
    /// An OpenID provider
    Oidc,
}

type Client = AuthorityServiceClient<Channel>;

/// Runs the command.
pub(crate) async fn run(arguments: AuthorityArguments) -> anyhow::Result<()> {
    let output = arguments.common.output;
    let mut client = Client::new(arguments.common.broker.admin_plane().await?);
    let authority = match arguments.verb {
        Verb::List => {
            let shown: Vec<_> = list(&mut client).await?.iter().map(shown::authority).collect();
            return output.many(&shown, &["name", "issuer", "registrar"], |a| {
                let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
                vec![text(&a["name"]), text(&a["profile"]["issuer"]), text(&a["registrar"])]
            });
        }
        Verb::Get { name } => {
            client
                .get_authority(v1::GetAuthorityRequest { name: full(&name, COLLECTION) })
                .await?
                .into_inner()
                .authority
        }
        Verb::Create(create) => client.create_authority(request(*create)?).await?.into_inner().authority,
        Verb::Update { name, display_name, profile, registrar, request_id } => {
            use v1::update_authority_request::Registrar;
            let registrar = match registrar.read()? {
                (Some(certificate), _) => Some(Registrar::Certificate(certificate)),
                (None, token) => token.map(Registrar::InitialAccessToken),
            };
            if display_name.is_none() && profile.is_none() && registrar.is_none() {
                let text = "nothing to change: give --display-name, --profile or a registrar's files";
                return Err(Misuse(text.into()).into());
            }
            let request = v1::UpdateAuthorityRequest {
                name: full(&name, COLLECTION),
                display_name: display_name.unwrap_or_default(),
                profile_json: profile.map(|path| read_text(&path)).transpose()?.unwrap_or_default(),
                request_id,
                registrar,
            };
            client.update_authority(request).await?.into_inner().authority
        }
        Verb::Delete { name, request_id } => {
            client
                .delete_authority(v1::DeleteAuthorityRequest { name: full(&name, COLLECTION), request_id })
                .await?;
            return Ok(());
        }
        Verb::Test { name } => {
            let tested = client
                .test_authority(v1::TestAuthorityRequest { name: full(&name, COLLECTION) })
                .await?
                .into_inner();
            let steps: Vec<_> = tested
                .steps
                .iter()
                .map(|s| serde_json::json!({"name": s.name, "ok": s.ok, "detail": s.detail}))
                .collect();
            output.many(&steps, &["ok", "step", "seen"], |s| {
                let ok = if s["ok"] == true { "yes" } else { "no" };
                vec![
                    ok.into(),
                    s["name"].as_str().unwrap_or_default().into(),
                    s["detail"].as_str().unwrap_or_default().into(),
                ]
            })?;
            anyhow::ensure!(tested.ok, "the authority does not work as it is configured");
            return Ok(());
        }
    };
    output.one(&shown::authority(&authority.unwrap_or_default()), |a| {
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        let profile = &a["profile"];
        vec![
            ("name", text(&a["name"])),
            ("display name", text(&a["display_name"])),
            ("issuer", text(&profile["issuer"])),
            ("token endpoint", text(&profile["token_endpoint"])),
            ("profile version", a["profile_version"].to_string()),
            ("CA file", text(&a["ca_file"])),
            ("registrar", text(&a["registrar"])),
            ("registrar client", text(&a["registrar_client_id"])),
            ("uid", text(&a["uid"])),
        ]
    })
}

fn request(create: Create) -> anyhow::Result<v1::CreateAuthorityRequest> {
    let registrar = match create.registrar.read()? {
        (Some(certificate), _) => Some(Registrar::Certificate(certificate)),
        (None, token) => token.map(Registrar::InitialAccessToken),
    };
    let ca_file = create.ca_file.map(|path| absolute(&path)).transpose()?;
    Ok(v1::CreateAuthorityRequest {
        authority_id: id_of(&create.name, COLLECTION).into(),
        kind: match create.kind {
            Kind::Entra => v1::AuthorityKind::Entra,
            Kind::Oidc => v1::AuthorityKind::Oidc,
        }
        .into(),
        url: create.url,
        ca_file: ca_file.unwrap_or_default(),
        registrar,
        display_name: create.display_name,
        graph_url: create.graph_url,
        request_id: create.request_id,
        profile_overrides_json: create
            .profile_overrides
            .map(|path| read_text(&path))
            .transpose()?
            .unwrap_or_default(),
    })
}

impl RegistrarFiles {
    fn read(
        &self,
    ) -> anyhow::Result<(Option<v1::RegistrarCertificate>, Option<v1::RegistrarInitialAccessToken>)> {
        let certificate = match (&self.registrar_client_id, &self.registrar_certificate, &self.registrar_key)
        {
            (Some(client_id), Some(certificate), Some(key)) => Some(v1::RegistrarCertificate {
                client_id: client_id.clone(),
                certificate_pem: read_text(certificate)?,
                private_key_pem: read_text(key)?,
            }),
            _ => None,
        };
        let token = self.initial_access_token_file.as_deref().map(read_secret).transpose()?;
        let token = token.map(|t| v1::RegistrarInitialAccessToken { token: t.expose_secret().to_owned() });
        Ok((certificate, token))
    }
}

/// Every page.
pub(super) async fn list(client: &mut Client) -> anyhow::Result<Vec<v1::Authority>> {
    let (mut all, mut page_token) = (vec![], String::new());
    loop {
        let page = client
            .list_authorities(v1::ListAuthoritiesRequest { page_size: PAGE, page_token })
            .await?
            .into_inner();
        all.extend(page.authorities);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}
