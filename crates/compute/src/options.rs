//! Where Nova is and who asks, as Cinder's `[nova]` has it (`keystoneauth1/loading`).

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// How Nova is reached. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who asks.
    pub auth: Auth,
    /// The region of the endpoint. `None`: the first one of the catalog.
    pub region_name: Option<String>,
    /// Which of Nova's endpoints is taken.
    pub interface: Interface,
    /// The authorities that may sign the servers' certificates, in PEM format. `None`: those of the system.
    pub cafile: Option<PathBuf>,
    /// The certificate to present, in PEM format; with its key when there is no `keyfile`.
    pub certfile: Option<PathBuf>,
    /// Its key, in PEM format.
    pub keyfile: Option<PathBuf>,
    /// Whether the servers' certificates are taken unseen.
    pub insecure: bool,
    /// How long one request may take. `None`: a minute.
    pub timeout: Option<Duration>,
}

/// Who asks: keystoneauth's plug-in of that name.
#[derive(Debug, Clone)]
pub enum Auth {
    /// `password` and `v3password`.
    Password {
        /// Keystone's URL, with or without `/v3`.
        auth_url: String,
        /// The user.
        user: User,
        /// The user's password.
        password: SecretString,
        /// What the token is for. `None`: the user's default project.
        scope: Option<Scope>,
    },
    /// `v3applicationcredential`. It is bound to a project of its own.
    ApplicationCredential {
        /// Keystone's URL, with or without `/v3`.
        auth_url: String,
        /// The credential.
        credential: Credential,
        /// Its secret.
        secret: SecretString,
    },
    /// `none`: no token, for a Nova that wants none.
    None {
        /// Nova's URL.
        endpoint: String,
    },
}

/// A user.
#[derive(Debug, Clone)]
pub enum User {
    /// By id.
    Id(String),
    /// By name.
    Named {
        /// The name.
        name: String,
        /// In which domain.
        domain: Domain,
    },
}

/// A domain.
#[derive(Debug, Clone)]
pub enum Domain {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// An application credential.
#[derive(Debug, Clone)]
pub enum Credential {
    /// By id.
    Id(String),
    /// By name.
    Named {
        /// The name.
        name: String,
        /// Of which user.
        user: User,
    },
}

/// What a token is for.
#[derive(Debug, Clone)]
pub enum Scope {
    /// A project by id.
    ProjectId(String),
    /// A project by name.
    Project {
        /// The name.
        name: String,
        /// In which domain.
        domain: Domain,
    },
    /// A domain.
    Domain(Domain),
    /// The whole system: keystoneauth's `system_scope = all`.
    System,
}

/// For whom an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interface {
    /// Everybody.
    #[default]
    Public,
    /// Services.
    Internal,
    /// Administrators.
    Admin,
}

impl Interface {
    /// The catalog's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}
