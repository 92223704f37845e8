//! Which identity a selector means.

use std::sync::Arc;

use jeton_core::{AuditKind, AuditOutcome, Claims, Identity, IdentityName, TargetRequest};
use jeton_proto::v1;

use super::asked::{By, Selector};
use crate::{
    correlation,
    door::Caller,
    grpc::{Broker, Failure, Reason},
};

/// The last but one segment of a resource id at Azure.
const KIND: &str = "userAssignedIdentities";

/// The name of the identity, for `request`.
pub(super) fn chosen(
    broker: &Broker,
    caller: &Caller,
    selector: &Selector,
    request: &v1::GetTokenRequest,
) -> Result<String, Failure> {
    let directory = broker.lifecycle.directory();
    let value = selector.value.as_str();
    let found: Vec<_> = match selector.by {
        By::Client => spelt(value, |id| directory.identities_of_client(id).cloned().collect()),
        By::Object => spelt(value, |id| directory.identities_of_object(id).cloned().collect()),
        By::Resource => {
            let named = name(value).and_then(|name| directory.identity_named(&name).cloned());
            named.into_iter().collect()
        }
    };
    let target = TargetRequest { scopes: request.scopes.clone(), resources: request.resources.clone() };
    match found.as_slice() {
        [] => Err(unknown(broker, caller, &format!("{} {value}", selector.parameter), request)),
        [one] => Ok(one.name.to_string()),
        // One id at two authorities: it means the one that this caller may use.
        several => {
            let claims = Claims::parse(&request.claims)?;
            let may = |identity: &&Arc<Identity>| {
                let name = Some(&identity.name);
                broker.access.allowed(&caller.principal, name, &target, claims.clone()).is_some()
            };
            let allowed: Vec<_> = several.iter().filter(may).collect();
            match allowed.as_slice() {
                [_, _, ..] => {
                    let text = format!(
                        "{} {value} belongs to several identities, at different authorities: name the one that is meant by its resource id, such as msi_res_id=identities/NAME",
                        selector.parameter
                    );
                    Err(Failure::new(Reason::InvalidName, text))
                }
                [one] => Ok(one.name.to_string()),
                [] => Ok(several[0].name.to_string()),
            }
        }
    }
}

/// The refusal of one that names an identity by what none is called; the operator learns by what.
pub(super) fn unknown(
    broker: &Broker,
    caller: &Caller,
    asked: &str,
    request: &v1::GetTokenRequest,
) -> Failure {
    let asked: String = asked.chars().take(200).collect();
    let target = TargetRequest { scopes: request.scopes.clone(), resources: request.resources.clone() };
    let failure = Failure::from(broker.access.unknown_identity(
        &caller.principal,
        &asked,
        &target,
        correlation::current,
    ));
    broker.audit_refusal(caller, request, AuditKind::AccessDenied, AuditOutcome::Denied, &failure);
    failure
}

/// GUIDs are the same in capitals; other ids are not.
fn spelt(value: &str, find: impl Fn(&str) -> Vec<Arc<Identity>>) -> Vec<Arc<Identity>> {
    let found = find(value);
    if found.is_empty() { find(&value.to_ascii_lowercase()) } else { found }
}

/// `identities/billing`, or `/subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/billing`.
/// Subscription and resource group say nothing here: names are unique.
fn name(value: &str) -> Option<IdentityName> {
    if value.starts_with("identities/") {
        return value.parse().ok();
    }
    let mut segments = value.trim_matches('/').rsplit('/');
    let (last, kind) = (segments.next()?, segments.next()?);
    let lower = format!("identities/{}", last.to_ascii_lowercase());
    kind.eq_ignore_ascii_case(KIND).then(|| lower.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_id_is_azures_or_ours() {
        let found = |text: &str| name(text).map(|name| name.to_string());
        let azure = "/subscriptions/0/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Billing";
        for id in ["identities/billing", azure, &azure.to_lowercase(), &azure[1..]] {
            assert_eq!(found(id).as_deref(), Some("identities/billing"), "{id}");
        }
        for id in
            ["", "/", "billing", "identities/", "/a/userAssignedIdentities/", "/userAssignedIdentities/a b"]
        {
            assert_eq!(found(id), None, "{id}");
        }
    }
}
