//! `[nova]`.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::spec::{BOOL, STR, choice, float, options};
use crate::error::Error;
use crate::resolve::Resolver;

options! {
    /// `[nova]`: who asks Nova for snapshots of volumes that are in use, and where Nova is (`cinder/compute/nova.py`,
    /// `keystoneauth1/loading`).
    pub struct NovaOptions in "nova" => {
        /// How Scoria shows Nova who it is: `password` or `v3password`, `v3applicationcredential`, or `none` for a Nova that wants no
        /// token. Unset: Nova is not asked, and volumes in use have no snapshots on back ends that need Nova for them.
        auth_type: Option<String> = STR.deprecated(&[("", "auth_plugin")]);
        /// Keystone's URL, with or without `/v3`.
        auth_url: Option<String> = STR;
        /// The user's name.
        username: Option<String> = STR.deprecated(&[("", "user-name")]);
        /// The user's id, in place of name and domain.
        user_id: Option<String> = STR;
        /// The user's domain by name.
        user_domain_name: Option<String> = STR;
        /// The user's domain by id.
        user_domain_id: Option<String> = STR;
        /// The user's password.
        password: Option<SecretString> = STR.secret();
        /// The project by name.
        project_name: Option<String> = STR.deprecated(&[("", "tenant-name")]);
        /// The project by id.
        project_id: Option<String> = STR.deprecated(&[("", "tenant-id")]);
        /// The project's domain by name.
        project_domain_name: Option<String> = STR;
        /// The project's domain by id.
        project_domain_id: Option<String> = STR;
        /// The domain of user and project, by name, where they have none of their own; for `auth_type = password`.
        default_domain_name: Option<String> = STR;
        /// The same by id. It goes before names.
        default_domain_id: Option<String> = STR;
        /// In place of a project: `all`, the whole system.
        system_scope: Option<String> = STR;
        /// In place of a project: a domain by name.
        domain_name: Option<String> = STR;
        /// In place of a project: a domain by id.
        domain_id: Option<String> = STR;
        /// The application credential by id.
        application_credential_id: Option<String> = STR;
        /// The application credential by name; it needs the user.
        application_credential_name: Option<String> = STR;
        /// The application credential's secret.
        application_credential_secret: Option<SecretString> = STR.secret();
        /// Nova's URL, for `auth_type = none`.
        endpoint: Option<String> = STR;
        /// The same by the name that it has elsewhere.
        endpoint_override: Option<String> = STR;
        /// The region whose Nova is asked. Unset: the first one that the catalog names.
        region_name: Option<String> = STR;
        /// Which of Nova's endpoints is taken from the catalog.
        interface: String = choice(&["public", "admin", "internal"]).default("public");
        /// The authorities that may sign the certificates of Keystone and Nova. Unset: those of the system.
        cafile: Option<String> = STR;
        /// The certificate to present, with its key when there is no `keyfile`.
        certfile: Option<String> = STR;
        /// The key of that certificate.
        keyfile: Option<String> = STR;
        /// Whether certificates are taken unseen.
        insecure: bool = BOOL.default("false");
        /// Seconds that one request may take. Unset: 60.
        timeout: Option<Duration> = float(0.001, f64::INFINITY);
    }
}

/// An empty text is none to keystoneauth.
fn is_set(option: &Option<String>) -> bool {
    option.as_ref().is_some_and(|text| !text.is_empty())
}

fn is_set_secretly(option: &Option<SecretString>) -> bool {
    option.as_ref().is_some_and(|text| !text.expose_secret().is_empty())
}

impl NovaOptions {
    /// What the types of single options do not show: whether an authentication type has what it needs.
    pub(crate) fn check(&self, resolver: &Resolver) -> Result<(), Error> {
        let wrong = |option: &str, why: &str| Err(resolver.complaint("nova", option, why.to_owned()));
        let user = is_set(&self.user_id) || is_set(&self.username);
        let credential = is_set(&self.application_credential_id) || is_set(&self.application_credential_name);
        let needs = match self.auth_type.as_deref().unwrap_or_default() {
            "" => return Ok(()),
            "none" if is_set(&self.endpoint) || is_set(&self.endpoint_override) => return Ok(()),
            "none" => "endpoint, Nova's URL",
            "password" | "v3password" | "v3applicationcredential" if !is_set(&self.auth_url) => {
                "auth_url, Keystone's URL"
            }
            "password" | "v3password" if !user => "username (or user_id)",
            "password" | "v3password" if !is_set_secretly(&self.password) => "password",
            "v3applicationcredential" if !credential => "application_credential_id (or application_credential_name)",
            "v3applicationcredential" if !is_set_secretly(&self.application_credential_secret) => {
                "application_credential_secret"
            }
            "v3applicationcredential" if !user && !is_set(&self.application_credential_id) => {
                "username (or user_id), as the credential is given by its name"
            }
            "password" | "v3password" | "v3applicationcredential" => return self.check_names(wrong),
            _ => {
                let known = "must be one of 'password', 'v3password', 'v3applicationcredential', 'none'";
                return wrong("auth_type", known);
            }
        };
        wrong("auth_type", &format!("needs {needs}"))
    }

    fn check_names(&self, wrong: impl Fn(&str, &str) -> Result<(), Error>) -> Result<(), Error> {
        let auth_type = self.auth_type.as_deref();
        // The other plug-ins do not have these options.
        let default_domain =
            auth_type == Some("password") && (is_set(&self.default_domain_id) || is_set(&self.default_domain_name));
        let user_domain = is_set(&self.user_domain_id) || is_set(&self.user_domain_name) || default_domain;
        if is_set(&self.username) && !is_set(&self.user_id) && !user_domain {
            return wrong("username", "is a name within a domain: set user_domain_name or user_domain_id too");
        }
        let scopes = [
            ("system_scope", is_set(&self.system_scope)),
            ("domain_name", is_set(&self.domain_id) || is_set(&self.domain_name)),
            ("project_name", is_set(&self.project_id) || is_set(&self.project_name)),
        ];
        let scopes: Vec<_> = scopes.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        if !scopes.is_empty() && auth_type == Some("v3applicationcredential") {
            let clash = format!("does not go with {}: the credential is bound to a project of its own", scopes[0]);
            return wrong("auth_type", &clash);
        }
        if let [first, second, ..] = scopes[..] {
            return wrong("auth_type", &format!("takes {first} or {second}, not both: a token is for one thing"));
        }
        if is_set(&self.system_scope) && self.system_scope.as_deref() != Some("all") {
            return wrong("system_scope", "must be 'all'");
        }
        let project_domain = is_set(&self.project_domain_id) || is_set(&self.project_domain_name) || default_domain;
        if is_set(&self.project_name) && !is_set(&self.project_id) && !project_domain {
            return wrong(
                "project_name",
                "is a name within a domain: set project_domain_name or project_domain_id too",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, LoadArgs, Source};

    /// The error that these lines of `[nova]` give, the section's first line being line 5; empty: none.
    fn error(lines: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cinder.conf");
        let text = format!("[DEFAULT]\nenabled_backends = a\n[a]\nvolume_driver = local\n[nova]\n{lines}\n");
        std::fs::write(&file, text).unwrap();
        let args = LoadArgs { sources: vec![Source::File(file)], ..LoadArgs::default() };
        Config::load(&args).err().map(|error| error.to_string()).unwrap_or_default()
    }

    const USER: &str = "auth_url = http://h\nusername = cinder\npassword = s3cret\n";

    #[test]
    fn an_authentication_type_names_what_it_lacks() {
        let user = |more: &str| format!("auth_type = password\n{USER}{more}");
        let credential = "auth_type = v3applicationcredential\nauth_url = http://h\napplication_credential_";
        let cases = [
            (
                "auth_type = kerberos".to_owned(),
                ":6: [nova] auth_type = kerberos: must be one of 'password', 'v3password',",
            ),
            ("auth_type = none".to_owned(), ":6: [nova] auth_type = none: needs endpoint, Nova's URL"),
            ("auth_type = v3password".to_owned(), "v3password: needs auth_url"),
            ("auth_type = password\nauth_url = http://h".to_owned(), "needs username (or user_id)"),
            ("auth_type = password\nauth_url = http://h\nuser_id = u\npassword =".to_owned(), "needs password"),
            (user(""), ":8: [nova] username = cinder: is a name within a domain: set user_domain_name"),
            (user("user_domain_id = d\nproject_name = p"), "project_name = p: is a name within a domain"),
            (
                user("default_domain_id = d\nproject_id = p\nsystem_scope = all"),
                "takes system_scope or project_name, not both",
            ),
            (user("default_domain_id = d\nsystem_scope = one"), "system_scope = one: must be 'all'"),
            (format!("auth_type = v3password\n{USER}default_domain_id = d"), "username = cinder: is a name within"),
            (format!("{credential}secret = s"), "needs application_credential_id (or application_credential_name)"),
            (format!("{credential}id = c"), "needs application_credential_secret"),
            (format!("{credential}name = c\napplication_credential_secret = s"), "needs username (or user_id), as the"),
            (
                format!("{credential}id = c\napplication_credential_secret = s\nproject_name = p"),
                "does not go with project_name",
            ),
        ];
        for (lines, expected) in cases {
            let error = error(&lines);
            assert!(error.contains(expected), "{lines}\n{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_keystoneauth_takes_is_taken() {
        let credential =
            "auth_type = v3applicationcredential\nauth_url = http://h\napplication_credential_secret = s\n";
        for good in [
            // Nobody uses them.
            "auth_url = http://h\nproject_name = p".to_owned(),
            "auth_type =\npassword = x".to_owned(),
            "auth_type = none\nendpoint_override = http://h".to_owned(),
            format!("auth_plugin = password\n{USER}default_domain_name = d\ntenant-name = p"),
            format!(
                "auth_type = v3password\n{USER}user_domain_name = d\nproject_name = p\nproject_id = q\ndomain_id ="
            ),
            format!("{credential}application_credential_id = c"),
            format!("{credential}application_credential_name = c\nuser_id = u"),
        ] {
            assert_eq!(error(&good), "", "{good}");
        }
    }
}
