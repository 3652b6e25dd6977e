//! The whole configuration, typed.

use std::path::Path;

use crate::error::Error;
use crate::ini;
use crate::options::{
    self, Backend, BackendOptions, ConcurrencyOptions, CoordinationOptions, DatabaseOptions, DefaultOptions,
    ImageOptions, LogOptions, Messaging, NotificationOptions, Notifications, NovaOptions, OptionGroup, QuotaOptions,
    RabbitOptions, RpcOptions, ScoriaOptions,
};
use crate::resolve::{Reader, Resolver};
use crate::source::{LoadArgs, Texts};

/// Everything the service reads, checked. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[DEFAULT]`: the service.
    pub default: DefaultOptions,
    /// `[DEFAULT]`: logging.
    pub log: LogOptions,
    /// `[DEFAULT]`: images.
    pub image: ImageOptions,
    /// `[DEFAULT]`: quota.
    pub quota: QuotaOptions,
    /// The back ends, in the order of `enabled_backends`. At least one.
    pub backends: Vec<Backend>,
    /// `[coordination]`.
    pub coordination: CoordinationOptions,
    /// `[database]`.
    pub database: DatabaseOptions,
    /// `transport_url` and `[oslo_messaging_rabbit]`.
    pub messaging: Messaging,
    /// `[oslo_messaging_notifications]`.
    pub notifications: Notifications,
    /// `[nova]`.
    pub nova: NovaOptions,
    /// `[oslo_concurrency]`.
    pub concurrency: ConcurrencyOptions,
    /// `[scoria]`.
    pub scoria: ScoriaOptions,
    /// What to log once logging works: options under earlier names.
    pub warnings: Vec<String>,
    pub(crate) args: LoadArgs,
    /// As it was at start.
    pub(crate) resolver: Resolver,
    /// As it was at the last reload: what mutable options are taken from.
    pub(crate) mutable: Resolver,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong. `scoria config check` names all of them ([`crate::check`]).
    pub fn load(args: &LoadArgs) -> Result<Self, Error> {
        let built_in = args.standalone.as_deref().map(standalone_texts).unwrap_or_default();
        let mut resolver = Resolver { texts: Texts::load(args, built_in)?, backends: Vec::new() };
        let mut default = DefaultOptions::read(&Reader::new(&resolver, None))?;
        default.enabled_backends.retain(|name| !name.is_empty());
        default.cluster = default.cluster.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        resolver.backends.clone_from(&default.enabled_backends);
        check_names(&default, &resolver)?;

        let backends = resolver.backends.iter().map(|name| Backend::read(name, &resolver, &default));
        let backends = backends.collect::<Result<Vec<_>, _>>()?;
        let reader = Reader::new(&resolver, None);
        let mut concurrency = ConcurrencyOptions::read(&reader)?;
        if concurrency.lock_path.is_none() {
            concurrency.lock_path = args.environment.get("OSLO_LOCK_PATH").map(Into::into);
        }
        let nova = NovaOptions::read(&reader)?;
        nova.check(&resolver)?;
        Ok(Self {
            default,
            log: LogOptions::read(&reader)?,
            image: ImageOptions::read(&reader)?,
            quota: QuotaOptions::read(&reader)?,
            backends,
            coordination: CoordinationOptions::read(&reader)?,
            database: DatabaseOptions::read(&reader)?,
            messaging: Messaging::read(&resolver)?,
            notifications: Notifications::read(&resolver)?,
            nova,
            concurrency,
            scoria: ScoriaOptions::read(&reader)?,
            warnings: resolver.deprecations(),
            args: args.clone(),
            mutable: resolver.clone(),
            resolver,
        })
    }

    /// Every reason for which [`Config::load`] would fail, once the files themselves can be read.
    pub(crate) fn problems(resolver: &Resolver, args: &LoadArgs) -> Vec<Error> {
        let reader = Reader::new(resolver, None);
        let mut problems = [
            DefaultOptions::problems(&reader),
            LogOptions::problems(&reader),
            ImageOptions::problems(&reader),
            QuotaOptions::problems(&reader),
            CoordinationOptions::problems(&reader),
            DatabaseOptions::problems(&reader),
            ConcurrencyOptions::problems(&reader),
            ScoriaOptions::problems(&reader),
            RpcOptions::problems(&reader),
            RabbitOptions::problems(&reader),
            NotificationOptions::problems(&reader),
            NovaOptions::problems(&reader),
        ]
        .concat();
        for name in &resolver.backends {
            problems.extend(BackendOptions::problems(&Reader::new(resolver, Some(name))));
        }
        problems.extend(Messaging::read(resolver).err());
        problems.extend(Notifications::read(resolver).err());
        problems.extend(Self::load(args).err());
        problems
    }

    /// What stand-alone mode is without any file: SQLite and file locks in `state_path`, messages within the process, one
    /// back end `local` in a directory, snapshots on.
    #[must_use]
    pub fn standalone(state_path: &Path) -> Self {
        let args = LoadArgs { standalone: Some(state_path.to_path_buf()), ..LoadArgs::default() };
        Self::load(&args).expect("the built-in values are valid, and nothing else is read")
    }
}

/// The lowest layer of stand-alone mode: group, name, text.
pub(crate) fn standalone_texts(state_path: &Path) -> Vec<(&'static str, &'static str, String)> {
    let path = crate::interpolate::escape(&state_path.to_string_lossy());
    vec![
        ("DEFAULT", "state_path", path),
        ("DEFAULT", "enabled_backends", "local".to_owned()),
        ("DEFAULT", "transport_url", "memory://".to_owned()),
        ("DEFAULT", "periodic_fuzzy_delay", "0".to_owned()),
        ("scoria", "standalone", "true".to_owned()),
        ("local", "volume_driver", "local".to_owned()),
        ("local", "volume_backend_name", "local".to_owned()),
        ("local", "nfs_snapshot_support", "true".to_owned()),
    ]
}

/// What the types of single options do not show. No service without a back end, no back end twice
/// (`cinder/cmd/volume.py: main` exits without one); names that would make two things look the same.
fn check_names(default: &DefaultOptions, resolver: &Resolver) -> Result<(), Error> {
    let wrong = |option: &str, problem: &str| Err(resolver.complaint("DEFAULT", option, problem.to_owned()));
    if default.host.is_empty() || default.host.contains('#') {
        return wrong("host", "must be a name without '#', which begins the name of a pool");
    }
    let names = &default.enabled_backends;
    if names.is_empty() {
        return wrong(
            "enabled_backends",
            "names no back end; set enabled_backends = NAME and write a section [NAME], or run alone with --standalone",
        );
    }
    for (index, name) in names.iter().enumerate() {
        let same = |other: &String| ini::normalized(other) == ini::normalized(name);
        if names[..index].iter().any(same) {
            return wrong("enabled_backends", &format!("names '{name}' twice"));
        }
        let group = ini::normalized(name);
        if options::known_names(&group).is_some() || options::all().any(|spec| spec.group == group) {
            return wrong(
                "enabled_backends",
                &format!("'{name}' is the name of a group of options; choose another name"),
            );
        }
        if name.contains(['#', '@']) {
            return wrong(
                "enabled_backends",
                &format!("'{name}' must not contain '#' or '@', which separate parts of names"),
            );
        }
    }
    Ok(())
}
