//! What is refused before anything is written, and what may be changed.

use jeton_core::{
    Profile, Registrar, SigningAlgorithm,
    profile::{IssuedAt, KeyKind, RegistrationStyle},
};
use jeton_lifecycle::{
    AttachIdentity, AttachMaterial, AuthorityPatch, CreateAuthority, LifecycleError, RegistrarMaterial,
};

use crate::world::{World, create};

fn profile(world: &World, of: &str) -> Profile {
    let name = format!("authorities/{of}").parse().unwrap();
    world.lifecycle.directory().authority_named(&name).unwrap().profile.as_ref().clone()
}

async fn made(
    world: &World,
    name: &str,
    profile: Profile,
    registrar: RegistrarMaterial,
) -> Result<(), LifecycleError> {
    let request = CreateAuthority {
        name: format!("authorities/{name}").parse().unwrap(),
        display_name: String::new(),
        profile,
        ca_file: None,
        registrar,
        request_id: String::new(),
    };
    world.lifecycle.create_authority(request).await.map(drop)
}

fn certificate() -> RegistrarMaterial {
    RegistrarMaterial::Certificate {
        client_id: "registrar".into(),
        certificate_pem: "certificate".into(),
        private_key_pem: "key".into(),
    }
}

fn field(refused: Result<(), LifecycleError>) -> &'static str {
    match refused {
        Err(LifecycleError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_registrar_must_be_able_to_ask_as_its_authority_registers() {
    let world = World::new().await;
    let (graph, dynamic) = (profile(&world, "entra"), profile(&world, "oidc"));
    let token = || RegistrarMaterial::InitialAccessToken("token".to_owned().into());
    made(&world, "a", graph.clone(), certificate()).await.unwrap();
    made(&world, "b", dynamic.clone(), token()).await.unwrap();
    made(&world, "c", dynamic.clone(), RegistrarMaterial::None).await.unwrap();
    let mut other_key = graph.clone();
    (other_key.key, other_key.assertion.algorithm) = (KeyKind::Rsa2048, SigningAlgorithm::Ps256);
    for (profile, registrar) in [
        (other_key.clone(), certificate()),
        (graph.clone(), token()),
        (dynamic.clone(), certificate()),
        (Profile { registration: RegistrationStyle::None, ..dynamic }, token()),
    ] {
        assert_eq!(field(made(&world, "d", profile, registrar).await), "registrar");
    }
    let patch = AuthorityPatch { profile: Some(other_key), ..AuthorityPatch::default() };
    let changed = world.lifecycle.update_authority(&"authorities/a".parse().unwrap(), patch, "").await;
    assert_eq!(field(changed.map(drop)), "registrar");
    let never = world.create("identities/never", "c").await;
    assert!(matches!(never, Err(LifecycleError::Precondition(_))), "only attached: {never:?}");
    let cut = RegistrarMaterial::InitialAccessToken("x".repeat(100_000).into());
    assert_eq!(field(made(&world, "e", profile(&world, "oidc"), cut).await), "initial_access_token");
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_could_not_work_is_refused() {
    let world = World::new().await;
    let base = profile(&world, "oidc");
    let assertion = |lifetime_seconds, ago: Option<u32>| {
        let mut profile = base.clone();
        profile.assertion.lifetime_seconds = lifetime_seconds;
        profile.assertion.issued_at = ago.map_or(IssuedAt::Absent, IssuedAt::SecondsAgo);
        profile
    };
    for (n, fits) in [(600, Some(595)), (600, None), (10, Some(5))].into_iter().enumerate() {
        let fits = assertion(fits.0, fits.1);
        made(&world, &format!("fits-{n}"), fits, RegistrarMaterial::None).await.unwrap();
    }
    let mut keys = base.clone();
    if let RegistrationStyle::Dynamic { metadata, .. } = &mut keys.registration {
        metadata.insert("jwks".into(), Default::default());
    }
    let wrong = [
        assertion(601, Some(5)),
        assertion(9, None),
        assertion(600, Some(700)),
        assertion(600, Some(596)),
        assertion(600, Some(u32::MAX)),
        keys,
    ];
    for profile in wrong {
        assert_eq!(field(made(&world, "wrong", profile, RegistrarMaterial::None).await), "profile");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_attached_has_a_client_id_and_a_secret_of_their_kind() {
    let world = World::new().await;
    let attach = async |client_id: &str, secret: String| {
        let request = AttachIdentity {
            create: create("identities/a", "entra", ""),
            client_id: client_id.into(),
            material: AttachMaterial::Secret { secret: secret.into(), expires_at: None },
        };
        world.lifecycle.attach_identity(request).await.map(drop)
    };
    for client_id in ["", "two\nlines", "caf\u{e9}", &"x".repeat(513)] {
        assert_eq!(field(attach(client_id, "secret".into()).await), "client_id");
    }
    for secret in [String::new(), "x".repeat(95_000)] {
        assert_eq!(field(attach("client", secret).await), "client_secret");
    }
    attach("client", "secret".into()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_id_covers_labels_and_certificates_too() {
    let world = World::new().await;
    let labelled = |label: &str| {
        let mut request = create("identities/a", "entra", "one");
        request.labels.insert("team".into(), label.into());
        request
    };
    world.lifecycle.create_identity(labelled("x")).await.unwrap();
    world.lifecycle.create_identity(labelled("x")).await.unwrap();
    let other = world.lifecycle.create_identity(labelled("y")).await;
    assert!(matches!(other, Err(LifecycleError::RequestIdReused(_))), "{other:?}");
    let attached = async |certificate: &str| {
        let request = AttachIdentity {
            create: create("identities/b", "entra", "two"),
            client_id: "client".into(),
            material: AttachMaterial::Certificate {
                certificate_pem: certificate.into(),
                private_key_pem: "key".into(),
            },
        };
        world.lifecycle.attach_identity(request).await
    };
    attached("one").await.unwrap();
    attached("one").await.unwrap();
    let other = attached("another").await;
    assert!(matches!(other, Err(LifecycleError::RequestIdReused(_))), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registrars_certificate_is_replaced_and_the_one_before_is_forgotten() {
    let world = World::new().await;
    made(&world, "a", profile(&world, "entra"), certificate()).await.unwrap();
    let name = "authorities/a".parse().unwrap();
    let registrar = || world.lifecycle.directory().authority_named(&name).unwrap().registrar.clone();
    let (before, secrets) = (registrar(), world.store.secrets());
    let material = RegistrarMaterial::Certificate {
        client_id: "another".into(),
        certificate_pem: "renewed".into(),
        private_key_pem: "key".into(),
    };
    let patch = AuthorityPatch { registrar: Some(material), ..AuthorityPatch::default() };
    world.lifecycle.update_authority(&name, patch, "").await.unwrap();
    let Registrar::Certificate { client_id, credential } = registrar() else { panic!("{:?}", registrar()) };
    assert_eq!(
        (&*client_id, credential.certificate().unwrap().references.kid.as_ref()),
        ("another", "renewed")
    );
    assert_ne!(registrar(), before);
    assert_eq!(world.store.secrets(), secrets, "one came and one went");
}

#[tokio::test(start_paused = true)]
async fn what_a_terminal_would_obey_is_nobodys_display_name() {
    let (world, name) = (World::new().await, "\u{1b}[31mred");
    let patch = AuthorityPatch { display_name: Some(name.into()), ..AuthorityPatch::default() };
    let changed = world.lifecycle.update_authority(&"authorities/entra".parse().unwrap(), patch, "").await;
    assert_eq!(field(changed.map(drop)), "display_name");
    let request = CreateAuthority {
        name: "authorities/new".parse().unwrap(),
        display_name: name.into(),
        profile: profile(&world, "oidc"),
        ca_file: None,
        registrar: RegistrarMaterial::None,
        request_id: String::new(),
    };
    assert_eq!(field(world.lifecycle.create_authority(request).await.map(drop)), "display_name");
}
