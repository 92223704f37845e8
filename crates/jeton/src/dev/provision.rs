//! The demo: authorities, a workload with its own identity, three more identities, and who may use them.
//!
//! All of it goes through the same lifecycle as anything else. What is there already is left alone, so a start that was cut off
//! is finished by the next one. The last thing written is a mark, which spares later starts every question.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jeton_access::CreateAssignment;
use jeton_authority::{Discovery, Shape};
use jeton_core::{
    AssertionRequest, Assertions, Authority, AuthorityName, Identity, IdentityName, IdentityState, KeyKind,
    Principal, TargetRequest, WorkloadName, pem,
};
use jeton_engine::{Ask, Hit};
use jeton_lifecycle::{
    CreateAuthority, CreateIdentity, CreateWorkload, KeyRequest, KeyRing, RegistrarMaterial, WorkloadPatch,
};
use jeton_sandbox::Description;
use secrecy::{ExposeSecret, SecretString};

use super::{administrator::Administrator, tour::Tour};
use crate::{
    broker::Running,
    data_dir::{DataDir, write_private},
    endpoints::{DevIdentity, DevWorkload},
};

const ENTRA: &str = "authorities/entra";
const OIDC: &str = "authorities/oidc";
const WORKLOAD: &str = "workloads/demo";
const SYSTEM: &str = "identities/demo-system";
const BILLING: &str = "identities/billing";
const REPORTS: &str = "identities/reports";
const ORDERS: &str = "identities/orders";
const MARK: &str = "provisioned";
const REGISTRAR_VALIDITY: Duration = Duration::from_secs(730 * 86_400);
const PATIENCE: Duration = Duration::from_secs(120);

/// What `endpoints.json` says of the demo.
pub(super) struct Demo {
    pub(super) workloads: Vec<DevWorkload>,
    pub(super) identities: Vec<DevIdentity>,
}

/// Makes what is missing. `also`: what else the demo workload is known as.
pub(super) async fn provision(
    running: &Running,
    data_dir: &DataDir,
    sandbox: &Description,
    also: &[Principal],
    tour: &mut Tour,
) -> anyhow::Result<Demo> {
    let directory = running.broker.lifecycle.directory();
    let entra: AuthorityName = ENTRA.parse()?;
    if let Some(known) = directory.authority_named(&entra)
        && known.profile.token_endpoint != sandbox.entra.token_endpoint
    {
        anyhow::bail!(
            "{} was made with the sandbox at {}, and this one is {}: start with the same ports (or --free-ports, if it was made with it), the same --sandbox, or choose another --data-dir",
            data_dir.path().display(),
            known.profile.token_endpoint,
            sandbox.entra.token_endpoint
        );
    }
    // The mark alone says nothing if the registry was lost.
    if !data_dir.join(MARK).exists() || directory.authority_named(&entra).is_none() {
        Provisioner { running, sandbox, tour }.all().await?;
        write_private(&data_dir.join(MARK), b"")?;
    }
    known_as(running, also).await?;
    described(running)
}

async fn known_as(running: &Running, also: &[Principal]) -> anyhow::Result<()> {
    let (lifecycle, name) = (&running.broker.lifecycle, WORKLOAD.parse()?);
    let Some(workload) = lifecycle.directory().workload_named(&name).cloned() else { return Ok(()) };
    let mut principals = workload.principals.clone();
    principals.extend(also.iter().filter(|new| !workload.principals.contains(new)).cloned());
    if principals != workload.principals {
        let patch = WorkloadPatch { principals: Some(principals), ..WorkloadPatch::default() };
        lifecycle.update_workload(&name, patch, "").await?;
    }
    Ok(())
}

fn described(running: &Running) -> anyhow::Result<Demo> {
    let directory = running.broker.lifecycle.directory();
    let mut identities = vec![];
    for (name, kind, vault_access) in [
        (SYSTEM, "system-assigned", true),
        (BILLING, "user-assigned", true),
        (REPORTS, "user-assigned", false),
        (ORDERS, "user-assigned", false),
    ] {
        // Somebody may have deleted one; the demo goes on with the others.
        let Some(found) = directory.identity_named(&name.parse()?) else { continue };
        let client_id = found.client_id.as_deref().unwrap_or_default().to_owned();
        identities.push(DevIdentity { name: name.into(), client_id, kind: kind.into(), vault_access });
    }
    let workload = directory.workload_named(&WORKLOAD.parse()?);
    let workloads = workload.map(|found| {
        let own = found.system_identity.and_then(|uid| directory.identity(uid));
        let system_identity = own.map_or_else(String::new, |identity| identity.name.to_string());
        DevWorkload { name: WORKLOAD.into(), system_identity }
    });
    Ok(Demo { workloads: workloads.into_iter().collect(), identities })
}

struct Provisioner<'a> {
    running: &'a Running,
    sandbox: &'a Description,
    tour: &'a mut Tour,
}

impl Provisioner<'_> {
    async fn all(&mut self) -> anyhow::Result<()> {
        let broker = &self.running.broker;
        self.tour.begin(self.sandbox);
        let administrator = Administrator::sign_in(self.sandbox).await?;
        self.entra(&administrator).await?;
        self.oidc().await?;
        self.workload().await?;
        let system = self.system_identity().await?;
        let mut others = vec![];
        let start = Instant::now();
        for (name, authority) in [(BILLING, ENTRA), (REPORTS, ENTRA), (ORDERS, OIDC)] {
            others.push(self.identity(name, authority).await?);
        }
        for uid in others {
            let identity = self.active(uid).await?;
            self.tour.registered(&identity, start.elapsed());
        }
        let start = Instant::now();
        for name in [SYSTEM, BILLING] {
            let identity = broker
                .lifecycle
                .directory()
                .identity_named(&name.parse()?)
                .cloned()
                .context("it was made above")?;
            administrator.grant_vault(identity.client_id.as_deref().unwrap_or_default()).await?;
        }
        administrator.spread().await?;
        self.tour.step(
            "role granted",
            "the sandbox's administrator lets demo-system and billing read the vault's secrets",
            start.elapsed(),
        );
        self.assignments().await?;
        self.tour_of_a_token(&system).await?;
        for name in [BILLING, REPORTS] {
            self.token(&name.parse()?).await?;
        }
        Ok(())
    }

    async fn entra(&mut self, administrator: &Administrator<'_>) -> anyhow::Result<()> {
        let start = Instant::now();
        let name: AuthorityName = ENTRA.parse()?;
        if self.running.broker.lifecycle.directory().authority_named(&name).is_some() {
            return Ok(());
        }
        let request = KeyRequest {
            kind: KeyKind::Rsa2048,
            subject: "Jeton registrar".into(),
            not_before: self.running.broker.clock.now().wall,
            valid_for: REGISTRAR_VALIDITY,
        };
        let key = self.running.keys.make(request).await?;
        let client_id = administrator.registrar(&key.facts.certificate).await?;
        administrator.spread().await?;
        let thumbprint = Arc::clone(&key.facts.references.x5t_s256);
        let registrar = RegistrarMaterial::Certificate {
            client_id: client_id.clone(),
            certificate_pem: key.facts.certificate_pem(),
            private_key_pem: SecretString::from(pem(
                "PRIVATE KEY",
                &STANDARD.encode(key.private.expose_secret()),
            )),
        };
        let (url, graph) = (self.sandbox.entra.authority.clone(), Some(self.sandbox.entra.graph.clone()));
        self.authority(name, Shape::Entra, url, graph, registrar).await?;
        let text = format!(
            "client {client_id}, certificate x5t#S256 {thumbprint}, role Application.ReadWrite.OwnedBy"
        );
        self.tour.step("registrar", &text, start.elapsed());
        Ok(())
    }

    async fn oidc(&mut self) -> anyhow::Result<()> {
        let name: AuthorityName = OIDC.parse()?;
        if self.running.broker.lifecycle.directory().authority_named(&name).is_some() {
            return Ok(());
        }
        let registrar =
            RegistrarMaterial::InitialAccessToken(self.sandbox.initial_access_token.clone().into());
        let (start, issuer) = (Instant::now(), self.sandbox.oidc.issuer.clone());
        self.authority(name, Shape::Oidc, issuer.clone(), None, registrar).await?;
        let text = format!("{OIDC}: {issuer}, with dynamic registration (RFC 7591)");
        self.tour.step("authority", &text, start.elapsed());
        Ok(())
    }

    async fn authority(
        &self,
        name: AuthorityName,
        shape: Shape,
        url: String,
        graph: Option<String>,
        registrar: RegistrarMaterial,
    ) -> anyhow::Result<()> {
        let ca_file = Some(self.sandbox.ca_file.display().to_string());
        let wanted = Discovery { shape, url, ca_file: ca_file.clone(), graph, overrides: None };
        let mut profile = jeton_authority::discover(&wanted).await?;
        if shape == Shape::Entra {
            profile.resource_aliases.push(self.vault_alias());
        }
        let display_name = format!("Sandbox ({})", name.id());
        let create =
            CreateAuthority { name, display_name, profile, ca_file, registrar, request_id: String::new() };
        self.running.broker.lifecycle.create_authority(create).await?;
        Ok(())
    }

    /// The resource that the vault asks for by its other name is the same.
    fn vault_alias(&self) -> (String, String) {
        let vault = &self.sandbox.vault;
        (vault.named_resource.clone(), vault.scope.trim_end_matches("/.default").to_owned())
    }

    async fn workload(&mut self) -> anyhow::Result<()> {
        let broker = &self.running.broker;
        let name: WorkloadName = WORKLOAD.parse()?;
        if broker.lifecycle.directory().workload_named(&name).is_some() {
            return Ok(());
        }
        let local = Principal::unix_uid(&broker.node, rustix::process::getuid().as_raw())?;
        let principals = vec![local.clone(), Principal::loopback_dev()];
        let (display_name, labels, request_id) = ("Demo workload".into(), Default::default(), String::new());
        broker
            .lifecycle
            .create_workload(CreateWorkload { name, principals, display_name, labels, request_id })
            .await?;
        self.tour.step(
            "workload",
            &format!("{WORKLOAD}: known as {local} and loopback://dev"),
            Duration::ZERO,
        );
        Ok(())
    }

    async fn system_identity(&mut self) -> anyhow::Result<Arc<Identity>> {
        let start = Instant::now();
        let lifecycle = &self.running.broker.lifecycle;
        let name: IdentityName = SYSTEM.parse()?;
        if lifecycle.directory().identity_named(&name).is_none() {
            lifecycle.enable_system_identity(&WORKLOAD.parse()?, &ENTRA.parse()?, "").await?;
        }
        let made = lifecycle
            .directory()
            .identity_named(&name)
            .cloned()
            .context("the system-assigned identity is not there")?;
        let identity = self.active(made).await?;
        self.tour.registered(&identity, start.elapsed());
        Ok(identity)
    }

    async fn identity(&self, name: &str, authority: &str) -> anyhow::Result<Arc<Identity>> {
        let lifecycle = &self.running.broker.lifecycle;
        let name: IdentityName = name.parse()?;
        if let Some(known) = lifecycle.directory().identity_named(&name) {
            return Ok(Arc::clone(known));
        }
        let (display_name, labels, request_id) = (String::new(), Default::default(), String::new());
        let create = CreateIdentity { name, authority: authority.parse()?, display_name, labels, request_id };
        Ok(lifecycle.create_identity(create).await?)
    }

    async fn active(&self, made: Arc<Identity>) -> anyhow::Result<Arc<Identity>> {
        let settled = self.running.broker.lifecycle.settled(made.uid, PATIENCE).await;
        let identity = settled.with_context(|| format!("{} is gone", made.name))?;
        let error =
            identity.operation.as_ref().and_then(|o| o.last_error.as_deref()).unwrap_or("it took too long");
        anyhow::ensure!(
            identity.state == IdentityState::Active,
            "{} is {:?}: {error}",
            identity.name,
            identity.state
        );
        Ok(identity)
    }

    /// With each identity of the Entra-shaped tenant the demo may ask for each scope there; the first is kept warm.
    async fn assignments(&self) -> anyhow::Result<()> {
        let mut wanted = vec![("demo-orders".to_owned(), ORDERS, "*".to_owned(), false)];
        for identity in [SYSTEM, BILLING, REPORTS] {
            let id = identity.trim_start_matches("identities/").trim_start_matches("demo-");
            for (n, scope) in self.sandbox.entra.scopes.iter().enumerate() {
                wanted.push((format!("demo-{id}-{n}"), identity, scope.clone(), n == 0));
            }
        }
        let broker = &self.running.broker;
        for (id, identity, target, keep_warm) in wanted {
            if broker.access.snapshot().assignments().any(|a| a.name.id() == id) {
                continue;
            }
            let (member, identity, targets) = (WORKLOAD.into(), identity.into(), vec![target]);
            let create =
                CreateAssignment { id, member, identity, targets, keep_warm, ..CreateAssignment::default() };
            broker.keep_warm(&*broker.access.create_assignment(create).await?);
        }
        Ok(())
    }

    /// A token for the first scope, as the demo workload gets it.
    async fn token(&self, identity: &IdentityName) -> anyhow::Result<Hit> {
        let broker = &self.running.broker;
        let request = TargetRequest { scopes: vec![self.sandbox.vault.scope.clone()], resources: vec![] };
        let caller = Principal::loopback_dev();
        let authorized = broker.access.authorize(&caller, Some(identity), &request, None, || None);
        let authorized =
            authorized.map_err(|refused| anyhow::anyhow!("the demo workload is refused: {refused:?}"))?;
        Ok(broker
            .engine
            .token(&authorized.key, Ask { caller: caller.into(), wait: None, min_validity: None })
            .await?)
    }

    /// What happens behind a caller's back, step by step and timed.
    async fn tour_of_a_token(&mut self, identity: &Arc<Identity>) -> anyhow::Result<()> {
        let broker = &self.running.broker;
        let authority = broker
            .lifecycle
            .directory()
            .authority(identity.authority)
            .cloned()
            .context("its authority is not there")?;
        self.show_assertion(identity, &authority).await?;
        let start = Instant::now();
        let hit = self.token(&identity.name).await?;
        let text = format!(
            "for {}, valid for {} s, refreshed ahead of that",
            self.sandbox.vault.scope,
            hit.token.lifetime().as_secs()
        );
        self.tour.step("token issued", &text, start.elapsed());
        let start = Instant::now();
        let (status, value) =
            Administrator::vault(self.sandbox, hit.token.issued.access_token.expose_secret()).await?;
        anyhow::ensure!(status == 200, "the vault answered {status} to the demo workload's token");
        self.tour.step("vault answered", &format!("{status}: {value}"), start.elapsed());
        Ok(())
    }

    async fn show_assertion(&mut self, identity: &Identity, authority: &Authority) -> anyhow::Result<()> {
        let credential = identity.current().context("it has no credential")?;
        let facts = credential.certificate().context("it has no certificate")?;
        let start = Instant::now();
        let request = AssertionRequest {
            owner: identity.uid,
            credential: credential.uid,
            references: facts.references.clone(),
            client_id: identity.client_id.clone().context("it has no client id")?,
            profile: Arc::new(authority.profile.assertion.clone()),
            skew_millis: 0,
        };
        self.running.keys.take(request).await?;
        let profile = &authority.profile.assertion;
        let text = format!(
            "{} JWT, issuer and subject {}, valid for {} s",
            profile.algorithm.as_str(),
            identity.client_id.as_deref().unwrap_or_default(),
            profile.lifetime_seconds
        );
        self.tour.step("assertion signed", &text, start.elapsed());
        Ok(())
    }
}
