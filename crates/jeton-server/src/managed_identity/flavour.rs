//! In what the endpoints differ.

use std::time::Duration;

/// An endpoint that SDKs know, named as `jeton env --flavour` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// Azure App Service and Functions, of 2019-08-01 and of 2017-09-01.
    AppService,
    /// The instance metadata service of Azure's virtual machines.
    Imds,
    /// Azure Arc: a caller shows that it can read a file.
    Arc,
    /// Azure Service Fabric, over TLS.
    ServiceFabric,
    /// Azure Machine Learning: App Service of 2017-09-01.
    AzureMl,
    /// Azure Cloud Shell.
    CloudShell,
    /// The metadata server of Google's Compute Engine.
    Gce,
}

/// What a request shows beside its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A workload's secret, in one of these headers. It says who asks.
    Secret(&'static [&'static str]),
    /// A header that no browser and no simple redirect sends. Who asks is known by the place.
    Header(&'static str, &'static str),
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AppService,
        Self::Imds,
        Self::Arc,
        Self::ServiceFabric,
        Self::AzureMl,
        Self::CloudShell,
        Self::Gce,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppService => "app-service",
            Self::Imds => "imds",
            Self::Arc => "arc",
            Self::ServiceFabric => "service-fabric",
            Self::AzureMl => "azure-ml",
            Self::CloudShell => "cloud-shell",
            Self::Gce => "gce",
        }
    }

    /// Its name in the configuration and in `endpoints.json`.
    pub fn key(self) -> &'static str {
        match self {
            Self::AppService => "app_service",
            Self::ServiceFabric => "service_fabric",
            Self::AzureMl => "azure_ml",
            Self::CloudShell => "cloud_shell",
            Self::Imds | Self::Arc | Self::Gce => self.name(),
        }
    }

    /// What the door is called in the log.
    pub fn door(self) -> &'static str {
        match self {
            Self::AppService => "managed identity (app-service)",
            Self::Imds => "managed identity (imds)",
            Self::Arc => "managed identity (arc)",
            Self::ServiceFabric => "managed identity (service-fabric)",
            Self::AzureMl => "managed identity (azure-ml)",
            Self::CloudShell => "managed identity (cloud-shell)",
            Self::Gce => "managed identity (gce)",
        }
    }

    /// The path under which clients ask for a token; Compute Engine has many.
    pub fn path(self) -> &'static str {
        match self {
            Self::AppService | Self::AzureMl => "/msi/token",
            Self::Imds | Self::Arc | Self::ServiceFabric => "/metadata/identity/oauth2/token",
            Self::CloudShell => "/oauth2/token",
            Self::Gce => "/computeMetadata/v1/",
        }
    }

    /// Whether a request says by a secret who it is from. At the others the place must.
    pub fn by_secret(self) -> bool {
        matches!(self.proof(), Proof::Secret(_))
    }

    pub(super) fn proof(self) -> Proof {
        match self {
            Self::AppService | Self::AzureMl => Proof::Secret(&["x-identity-header", "secret"]),
            Self::ServiceFabric => Proof::Secret(&["secret"]),
            Self::Imds | Self::Arc | Self::CloudShell => Proof::Header("metadata", "true"),
            Self::Gce => Proof::Header("metadata-flavor", "Google"),
        }
    }

    /// How long an authority is waited for. Clients of Compute Engine give a try three seconds, the others a minute and more.
    pub(super) fn longest_wait(self) -> Duration {
        match self {
            Self::Gce => Duration::from_millis(2_500),
            _ => Duration::from_secs(9),
        }
    }

    /// Names under which it is known beside its own address: clients reach it by a proxy setting, or by these addresses themselves.
    pub(super) fn known_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Imds => &["169.254.169.254"],
            Self::Gce => &["169.254.169.254", "metadata.google.internal"],
            _ => &[],
        }
    }
}
