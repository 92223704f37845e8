//! What a new tenant holds: Graph itself, two APIs, and the administrator.

use uuid::Uuid;

use crate::{
    description::Description,
    model::{AppRole, Application, RoleGrant, Secret, ServicePrincipal},
    state::{Changes, Kind, State, sha256_hex},
};

pub(crate) const GRAPH_API: &str = "https://graph.microsoft.com";
pub(crate) const VAULT_API: &str = "https://vault.example";
pub(crate) const ORDERS_API: &str = "https://orders.example";
pub(crate) const VAULT_ROLE: &str = "Secrets.Read";
/// Microsoft Graph's application id and the ids of its app roles are the same in every tenant.
pub(super) const GRAPH_APP_ID: &str = "00000003-0000-0000-c000-000000000000";
const GRAPH_ROLES: [(&str, &str); 3] = [
    ("18a4783c-866b-4cc7-a460-3d5e5662c884", "Application.ReadWrite.OwnedBy"),
    ("1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9", "Application.ReadWrite.All"),
    ("06b708a9-e830-4db3-a914-8e69da51d44f", "AppRoleAssignment.ReadWrite.All"),
];

/// Puts in what is missing, in one transaction.
pub(crate) async fn furnish(state: &mut State, description: &Description) -> Result<(), sqlx::Error> {
    let administrator = &description.administrator;
    if state.application_by_app_id(&administrator.client_id).is_some() {
        return Ok(());
    }
    let roles = |all: &[(&str, &str)]| {
        all.iter().map(|(id, value)| AppRole { id: (*id).into(), value: (*value).into() }).collect()
    };
    let vault_role = Uuid::new_v4().to_string();
    let mut admin = application("Administrator", &administrator.client_id, &[], vec![]);
    admin.secrets = vec![Secret {
        key_id: Uuid::new_v4().to_string(),
        display_name: None,
        sha256: sha256_hex(&administrator.client_secret),
        hint: String::new(),
        not_before: 0,
        not_after: i64::MAX,
    }];
    let applications = [
        application("Microsoft Graph", GRAPH_APP_ID, &[GRAPH_API], roles(&GRAPH_ROLES)),
        application("Vault", &Uuid::new_v4().to_string(), &[VAULT_API], roles(&[(&vault_role, VAULT_ROLE)])),
        application("Orders", &Uuid::new_v4().to_string(), &[ORDERS_API], vec![]),
        admin,
    ];
    let principals = applications.clone().map(|a| ServicePrincipal {
        id: Uuid::new_v4().to_string(),
        app_id: a.app_id,
        enabled: true,
        assignment_required: false,
        created_ms: 0,
    });
    let grants = GRAPH_ROLES[1..].iter().map(|(role, _)| RoleGrant {
        id: Uuid::new_v4().simple().to_string(),
        principal: principals[3].id.clone(),
        resource: principals[0].id.clone(),
        role: (*role).into(),
        created_ms: 0,
    });
    let grants: Vec<_> = grants.collect();
    let mut changes = Changes::default();
    changes = applications.iter().fold(changes, |c, a| c.put(Kind::Application, &a.id, a));
    changes = principals.iter().fold(changes, |c, p| c.put(Kind::Principal, &p.id, p));
    changes = grants.iter().fold(changes, |c, g| c.put(Kind::Grant, &g.id, g));
    state.commit(changes).await?;
    state.applications.extend(applications.map(|a| (a.id.clone(), a)));
    state.principals.extend(principals.map(|p| (p.id.clone(), p)));
    state.grants.extend(grants.into_iter().map(|g| (g.id.clone(), g)));
    Ok(())
}

fn application(display_name: &str, app_id: &str, uris: &[&str], app_roles: Vec<AppRole>) -> Application {
    Application {
        id: Uuid::new_v4().to_string(),
        app_id: app_id.to_owned(),
        display_name: display_name.to_owned(),
        unique_name: None,
        identifier_uris: uris.iter().map(|u| (*u).to_owned()).collect(),
        app_roles,
        keys: vec![],
        secrets: vec![],
        owners: vec![],
        created_ms: 0,
        built_in: true,
    }
}
