//! The body of `POST /v3/auth/tokens`, as keystoneauth sends it (`keystoneauth1/identity/v3`).

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::options::{Credential, Domain, Scope, User};

/// A user with a password.
pub(crate) fn by_password(user: &User, password: &SecretString, scope: Option<&Scope>) -> Value {
    let mut user = of_user(user);
    user["password"] = json!(password.expose_secret());
    let mut auth = json!({ "identity": { "methods": ["password"], "password": { "user": user } } });
    if let Some(scope) = scope {
        auth["scope"] = of_scope(scope);
    }
    json!({ "auth": auth })
}

/// An application credential. Keystone refuses a scope beside it.
pub(crate) fn by_application_credential(credential: &Credential, secret: &SecretString) -> Value {
    let mut credential = match credential {
        Credential::Id(id) => json!({ "id": id }),
        Credential::Named { name, user } => json!({ "name": name, "user": of_user(user) }),
    };
    credential["secret"] = json!(secret.expose_secret());
    json!({ "auth": { "identity": { "methods": ["application_credential"], "application_credential": credential } } })
}

fn of_user(user: &User) -> Value {
    match user {
        User::Id(id) => json!({ "id": id }),
        User::Named { name, domain } => json!({ "name": name, "domain": of_domain(domain) }),
    }
}

fn of_domain(domain: &Domain) -> Value {
    match domain {
        Domain::Id(id) => json!({ "id": id }),
        Domain::Name(name) => json!({ "name": name }),
    }
}

fn of_scope(scope: &Scope) -> Value {
    match scope {
        Scope::ProjectId(id) => json!({ "project": { "id": id } }),
        Scope::Project { name, domain } => json!({ "project": { "name": name, "domain": of_domain(domain) } }),
        Scope::Domain(domain) => json!({ "domain": of_domain(domain) }),
        Scope::System => json!({ "system": { "all": true } }),
    }
}
