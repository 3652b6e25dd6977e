//! What is known of an option, and the macro that declares a group of them.

use crate::error::Error;
use crate::resolve::Reader;
use crate::types::Kind;

/// The group whose options each back end's section may repeat.
pub const BACKEND_DEFAULTS: &str = "backend_defaults";

/// What an option is worth when nobody sets it.
#[derive(Debug, Clone, Copy)]
pub enum DefaultText {
    /// Nothing.
    None,
    /// This text, with `$names`, read like one from a file.
    Text(&'static str),
    /// Found out at start; the first part says how, for the documentation.
    Computed(&'static str, fn() -> String),
}

/// An option.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Its group; [`BACKEND_DEFAULTS`] for those that each back end's section may set.
    pub group: &'static str,
    /// Its name in files.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default.
    pub default: DefaultText,
    /// What it does, in one or more lines.
    pub help: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Whether a reload changes it.
    pub mutable: bool,
    /// Of a back end's option: whether only the back end's own section counts, not `[backend_defaults]`.
    pub own_section_only: bool,
    /// Earlier names, as group and name; an empty group is the option's own.
    pub deprecated: &'static [(&'static str, &'static str)],
    /// The release that has it.
    pub since: &'static str,
}

impl OptionSpec {
    /// An option of this type, still without a name.
    pub(super) const fn of(kind: Kind) -> Self {
        Self {
            group: "",
            name: "",
            kind,
            default: DefaultText::None,
            help: "",
            secret: false,
            mutable: false,
            own_section_only: false,
            deprecated: &[],
            since: "Cinder 29.0.0",
        }
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.default = DefaultText::Text(text);
        self
    }

    pub(super) const fn computed(mut self, how: &'static str, value: fn() -> String) -> Self {
        self.default = DefaultText::Computed(how, value);
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) const fn mutable(mut self) -> Self {
        self.mutable = true;
        self
    }

    pub(super) const fn own_section_only(mut self) -> Self {
        self.own_section_only = true;
        self
    }

    pub(super) const fn deprecated(mut self, names: &'static [(&'static str, &'static str)]) -> Self {
        self.deprecated = names;
        self
    }

    pub(super) const fn since(mut self, release: &'static str) -> Self {
        self.since = release;
        self
    }

    pub(super) const fn named(mut self, group: &'static str, name: &'static str, help: &'static str) -> Self {
        self.group = group;
        self.name = name;
        self.help = help;
        self
    }
}

pub(super) const STR: OptionSpec = OptionSpec::of(Kind::Str);
pub(super) const BOOL: OptionSpec = OptionSpec::of(Kind::Bool);
pub(super) const INT: OptionSpec = OptionSpec::of(Kind::INT);
pub(super) const PORT: OptionSpec = OptionSpec::of(Kind::Port);
pub(super) const LIST: OptionSpec = OptionSpec::of(Kind::List);
pub(super) const MULTI_STR: OptionSpec = OptionSpec::of(Kind::MultiStr);
pub(super) const HOST_ADDRESS: OptionSpec = OptionSpec::of(Kind::HostAddress);

pub(super) const fn int(min: i64, max: i64) -> OptionSpec {
    OptionSpec::of(Kind::Int { min, max })
}

pub(super) const fn at_least(min: i64) -> OptionSpec {
    OptionSpec::of(Kind::at_least(min))
}

pub(super) const fn float(min: f64, max: f64) -> OptionSpec {
    OptionSpec::of(Kind::Float { min, max })
}

pub(super) const fn choice(choices: &'static [&'static str]) -> OptionSpec {
    OptionSpec::of(Kind::Choice(choices))
}

/// A struct made by `options!`.
pub trait OptionGroup: Sized {
    /// Its options.
    fn specs() -> &'static [OptionSpec];

    /// Reads every one of them.
    ///
    /// # Errors
    /// [`Error::Value`] for the first one that is wrong.
    #[doc(hidden)]
    fn read(reader: &Reader<'_>) -> Result<Self, Error>;

    /// Everything that keeps [`OptionGroup::read`] from working.
    #[doc(hidden)]
    fn problems(reader: &Reader<'_>) -> Vec<Error>;
}

/// Declares a group of options: each field is an option of the same name, its doc comment is the option's help.
///
/// ```text
/// options! {
///     /// `[example]`.
///     pub struct ExampleOptions in "example" => {
///         /// Seconds between two looks.
///         interval: Duration = at_least(1).default("60");
///     }
/// }
/// ```
macro_rules! options {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident in $group:expr => {
            $( $(#[doc = $help:literal])+ $field:ident: $type:ty = $spec:expr; )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $help])+ pub $field: $type, )*
        }

        impl $crate::options::OptionGroup for $name {
            fn specs() -> &'static [$crate::options::OptionSpec] {
                static SPECS: &[$crate::options::OptionSpec] =
                    &[$( $spec.named($group, stringify!($field), concat!($($help, "\n"),+)) ),*];
                SPECS
            }

            fn read(reader: &$crate::resolve::Reader<'_>) -> Result<Self, $crate::Error> {
                let mut specs = <Self as $crate::options::OptionGroup>::specs().iter();
                // Fields are read in the order of their declaration, which is that of the specs.
                Ok(Self { $( $field: reader.read(specs.next().expect("one spec for each field"))?, )* })
            }

            fn problems(reader: &$crate::resolve::Reader<'_>) -> Vec<$crate::Error> {
                let mut specs = <Self as $crate::options::OptionGroup>::specs().iter();
                let read = [$( reader.read::<$type>(specs.next().expect("one spec for each field")).err(), )*];
                read.into_iter().flatten().collect()
            }
        }
    };
}
pub(super) use options;
