//! Who may call what on the admin plane: one table, looked at before any service sees a request.
//!
//! What takes everything, and what takes nothing in particular, is decided here. Where the request names something, the service decides by
//! the [`AdminCall`] that it gets from here, so that a refusal says on what the permission is missing.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{Extensions, Response};
use jeton_access::AdminCall;
use jeton_core::{Identity, IdentityName, Object, Permission, ScopeName, WorkloadName};
use tonic::{Request, Status, service::Routes};
use tower::{Layer, Service};

use super::{
    error::{Failure, Reason},
    routes::Broker,
};
use crate::{correlation, door::Caller};

/// An RPC of the admin plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// `Service/Method`.
    pub name: &'static str,
    /// What its caller needs.
    pub permission: Permission,
    /// Where.
    pub on: On,
}

/// Where a permission is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// On something; the answer tells of that alone.
    Something,
    /// On what the request names.
    Named,
    /// On everything.
    All,
}

const fn list(name: &'static str, permission: Permission) -> Method {
    Method { name, permission, on: On::Something }
}

const fn on(name: &'static str, permission: Permission) -> Method {
    Method { name, permission, on: On::Named }
}

const fn on_all(name: &'static str, permission: Permission) -> Method {
    Method { name, permission, on: On::All }
}

/// Every RPC of the admin plane, as `docs/roles.md` shows them.
pub const METHODS: &[Method] = &[
    on("IdentityService/CreateIdentity", Permission::ChangeIdentities),
    on("IdentityService/AttachIdentity", Permission::ChangeIdentities),
    on("IdentityService/GetIdentity", Permission::ReadIdentities),
    list("IdentityService/ListIdentities", Permission::ReadIdentities),
    on("IdentityService/UpdateIdentity", Permission::ChangeIdentities),
    on("IdentityService/DeleteIdentity", Permission::ChangeIdentities),
    on("IdentityService/RotateCredential", Permission::ChangeIdentities),
    on("IdentityService/DisableIdentity", Permission::ChangeIdentities),
    on("IdentityService/EnableIdentity", Permission::ChangeIdentities),
    on("IdentityService/RefreshTokens", Permission::ChangeIdentities),
    on("WorkloadService/CreateWorkload", Permission::ChangeWorkloads),
    on("WorkloadService/GetWorkload", Permission::ReadWorkloads),
    list("WorkloadService/ListWorkloads", Permission::ReadWorkloads),
    on("WorkloadService/UpdateWorkload", Permission::ChangeWorkloads),
    on("WorkloadService/DeleteWorkload", Permission::ChangeWorkloads),
    on("WorkloadService/EnableSystemIdentity", Permission::ChangeIdentities),
    on("WorkloadService/DisableSystemIdentity", Permission::ChangeIdentities),
    on("WorkloadService/RotateSecret", Permission::ChangeWorkloads),
    on("WorkloadService/RevokeSecret", Permission::ChangeWorkloads),
    on_all("AuthorityService/CreateAuthority", Permission::ChangeAuthorities),
    list("AuthorityService/GetAuthority", Permission::ReadAuthorities),
    list("AuthorityService/ListAuthorities", Permission::ReadAuthorities),
    on_all("AuthorityService/UpdateAuthority", Permission::ChangeAuthorities),
    on_all("AuthorityService/DeleteAuthority", Permission::ChangeAuthorities),
    on_all("AuthorityService/TestAuthority", Permission::ChangeAuthorities),
    on("AccessService/CreateRoleAssignment", Permission::ChangeAssignments),
    list("AccessService/ListRoleAssignments", Permission::ReadAssignments),
    on("AccessService/DeleteRoleAssignment", Permission::ChangeAssignments),
    on("AccessService/Explain", Permission::ReadAssignments),
    on("AccessService/RevokeTokens", Permission::ChangeIdentities),
    on_all("SealingService/RotateSealingKey", Permission::ChangeAuthorities),
    list("StatusService/Status", Permission::ReadStatus),
    list("StatusService/ListTokens", Permission::ReadIdentities),
    list("StatusService/ListIdentityStatuses", Permission::ReadIdentities),
    list("StatusService/GetHistory", Permission::ReadStatus),
    list("StatusService/WhoAmI", Permission::ReadStatus),
    list("EventService/ListEvents", Permission::ReadIdentities),
    list("EventService/WatchEvents", Permission::ReadIdentities),
];

const PACKAGE: &str = "/jeton.v1.";

/// Puts the table before the services.
pub(super) fn guarded(broker: &Broker, routes: Routes) -> Routes {
    routes.into_axum_router().layer(Guard(broker.clone())).into()
}

impl Broker {
    /// A call that goes on to its service, which gets the method again by [`Broker::admin_call`].
    fn admit(&self, path: &str, extensions: &Extensions) -> Result<&'static Method, Failure> {
        let named = |method: &&Method| path.strip_prefix(PACKAGE) == Some(method.name);
        // One that is there and not in the table would be a bug, and stays shut.
        let method = METHODS.iter().find(named).ok_or_else(Failure::unknown_method)?;
        let call = self.call(extensions, method)?;
        match method.on {
            On::Something => call.must(Object::Something, "anything")?,
            On::All => call.must(Object::All, "*")?,
            // A test calls each of these without a role, and with all roles elsewhere.
            On::Named => {}
        }
        Ok(method)
    }

    /// The call that a request is, with what its caller may do now.
    pub(super) fn admin_call<T>(&self, request: &Request<T>) -> Result<AdminCall, Failure> {
        self.admin_call_of(request.extensions())
    }

    /// The same later, while its stream goes on.
    pub(super) fn admin_call_of(&self, extensions: &Extensions) -> Result<AdminCall, Failure> {
        let method = extensions.get::<&'static Method>().copied();
        let method =
            method.ok_or_else(|| Failure::new(Reason::Internal, "the request came past the guard"))?;
        self.call(extensions, method)
    }

    fn call(&self, extensions: &Extensions, method: &'static Method) -> Result<AdminCall, Failure> {
        let principal = extensions.get::<Arc<Caller>>().map(|caller| &caller.principal);
        let principal = principal.ok_or_else(|| {
            Failure::new(Reason::Unauthenticated, "the connection has no authenticated caller")
        })?;
        let root = self.root.as_ref() == Some(principal);
        Ok(self
            .access
            .admin_call(principal, root, method.name, method.permission)
            .under(correlation::current()))
    }

    /// The caller must be allowed this with an identity, whether it is there or not.
    pub(super) fn must_on_identity(&self, call: &AdminCall, name: &IdentityName) -> Result<(), Failure> {
        let directory = self.lifecycle.directory();
        let found = directory.identity_named(name).map(|identity| identity.uid);
        Ok(call.must(Object::Identity(name, found), name.as_str())?)
    }

    /// The same with what an assignment is on, as it is written.
    pub(super) fn must_on_scope(&self, call: &AdminCall, text: &str) -> Result<(), Failure> {
        let scope: ScopeName = text.parse().map_err(|e| Failure::field("identity", e))?;
        let directory = self.lifecycle.directory();
        let found = match &scope {
            ScopeName::Identity(name) => directory.identity_named(name).map(AsRef::as_ref),
            _ => None,
        };
        Ok(call.must(scope.object(found), text)?)
    }
}

/// The same with a workload.
pub(super) fn must_on_workload(call: &AdminCall, name: &WorkloadName) -> Result<(), Failure> {
    Ok(call.must(Object::Workload(name), name.as_str())?)
}

/// An identity that is there, as something that administrators act on.
pub(super) fn object(identity: &Identity) -> Object<'_> {
    Object::Identity(&identity.name, Some(identity.uid))
}

#[derive(Clone)]
struct Guard(Broker);

#[derive(Clone)]
struct Guarded<S> {
    broker: Broker,
    inner: S,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { broker: self.0.clone(), inner }
    }
}

impl<S, B, R: Default> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = Response<R>, Error = Infallible>,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<R>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // Health and reflection tell nothing of anybody.
        if !request.uri().path().starts_with(PACKAGE) {
            return Either::Left(self.inner.call(request));
        }
        match self.broker.admit(request.uri().path(), request.extensions()) {
            Ok(method) => {
                request.extensions_mut().insert(method);
                Either::Left(self.inner.call(request))
            }
            Err(failure) => Either::Right(ready(Ok(Status::from(failure).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jeton_core::Role;
    use jeton_proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    use super::*;

    fn files() -> Vec<FileDescriptorProto> {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        set.file.into_iter().filter(|file| file.package() == "jeton.v1").collect()
    }

    /// The RPCs of the admin plane: name, request and answer.
    fn rpcs() -> Vec<(String, String, String)> {
        let services = files().into_iter().flat_map(|file| file.service);
        let admin = services.filter(|service| service.name() != "TokenService");
        let rpcs = admin.flat_map(|service| {
            let name = service.name().to_owned();
            service.method.into_iter().map(move |m| {
                let full = |t: &str| t.trim_start_matches(".jeton.v1.").to_owned();
                (format!("{name}/{}", m.name()), full(m.input_type()), full(m.output_type()))
            })
        });
        rpcs.collect()
    }

    #[test]
    fn every_rpc_of_the_admin_plane_stands_in_the_table_once_and_nothing_else_does() {
        let there: BTreeSet<_> = rpcs().into_iter().map(|(name, ..)| name).collect();
        let table: BTreeSet<_> = METHODS.iter().map(|method| method.name.to_owned()).collect();
        assert_eq!(there, table);
        assert_eq!(METHODS.len(), table.len());
    }

    #[test]
    fn the_tables_in_the_documents_are_those_in_the_code() {
        let documented = include_str!("../../../../docs/roles.md");
        let administrative = || Role::ALL.into_iter().filter(|role| role.is_administrative());
        for method in METHODS {
            let how = if method.on == On::All { " on `*` |" } else { " in scope |" };
            let cell = |role: Role| if role.allows(method.permission) { how } else { " |" };
            let cells: String = administrative().map(cell).collect();
            let row = format!("| `{}` | `{}` |{cells}", method.name, method.permission);
            assert!(documented.contains(&row), "docs/roles.md lacks the row\n{row}");
        }
        let rows = documented.lines().filter(|line| line.contains("Service/")).count();
        assert_eq!(rows, METHODS.len(), "docs/roles.md has rows of RPCs that are not there");
        for role in Role::ALL {
            let permissions: Vec<_> = role.permissions().iter().map(|p| format!("`{p}`")).collect();
            let row = format!("| `{role}` | {} |", permissions.join(", "));
            assert!(documented.contains(&row), "docs/roles.md lacks the row\n{row}");
        }
    }

    /// Every field that messages of these types reach, as `Message.field`.
    fn fields(roots: impl Iterator<Item = String>) -> BTreeSet<String> {
        let messages: Vec<_> = files().into_iter().flat_map(|file| file.message_type).collect();
        let (mut open, mut seen, mut found) = (roots.collect::<Vec<_>>(), BTreeSet::new(), BTreeSet::new());
        while let Some(name) = open.pop() {
            let Some(message) = messages.iter().find(|m| m.name() == name && seen.insert(name.clone()))
            else {
                continue;
            };
            for field in &message.field {
                found.insert(format!("{name}.{}", field.name()));
                open.extend(field.type_name.iter().map(|t| t.trim_start_matches(".jeton.v1.").to_owned()));
            }
        }
        found
    }

    #[test]
    fn no_answer_of_the_admin_plane_has_a_field_for_a_private_key_a_secret_or_a_token() {
        let secret = |field: &String| {
            let name = field.split_once('.').map_or("", |(_, name)| name);
            ["key", "pem", "secret", "token", "password", "assertion", "private", "jwk"]
                .iter()
                .any(|word| name.contains(word))
                && !name.ends_with("page_token")
        };
        let told: Vec<_> =
            fields(rpcs().into_iter().map(|(.., answer)| answer)).into_iter().filter(secret).collect();
        // What only sounds like one: kinds and numbers and ids, public certificates, metadata of tokens. And a workload's own secret, which the
        // broker's own user makes for it.
        let harmless = [
            "CertificateCredential.certificate_pem",
            "CertificateCredential.jwk",
            "CertificateCredential.key",
            "Credential.secret",
            "IdentityStatus.tokens",
            "ListTokensResponse.tokens",
            "RoleAssignment.max_token_lifetime",
            "RotateSealingKeyResponse.data_keys",
            "RotateSealingKeyResponse.key_id",
            "RotateSealingKeyResponse.previous_key_id",
            "RotateSecretResponse.secret",
            "RotateSecretResponse.secret_uid",
            "StatusResponse.tokens",
            "Workload.secrets",
        ];
        assert_eq!(told, harmless);
        // A credential's secret is known to be there, and no more; and nobody sends a token's text.
        let secret_fields: Vec<_> = fields(["SecretCredential".to_owned()].into_iter()).into_iter().collect();
        assert_eq!(secret_fields, Vec::<String>::new());
        assert!(!fields(["TokenInfo".to_owned()].into_iter()).contains("TokenInfo.access_token"));
        let taken = fields(rpcs().into_iter().map(|(_, request, _)| request));
        let written: BTreeSet<_> = taken.into_iter().filter(secret).collect();
        let only_written = ["private_key_pem", "client_secret"];
        for name in only_written {
            assert!(written.iter().any(|field| field.ends_with(name)), "{name} is brought along");
            assert!(!told.iter().any(|field| field.ends_with(name)), "{name} is never told");
        }
    }
}
