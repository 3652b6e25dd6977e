//! How the fields of versioned objects are described (`oslo_versionedobjects/fields.py`).

/// One class of versioned objects in its newest version that we know.
#[derive(Debug, PartialEq, Eq)]
pub struct Schema {
    /// Class name on the wire.
    pub name: &'static str,
    /// Version, `major.minor`: its own in object history 1.39.
    pub version: &'static str,
    /// Its version in object history 1.38.
    pub version_1_38: &'static str,
    /// Whether it has the four fields of a database row (`cinder/objects/base.py: CinderPersistentObject`).
    pub(super) persistent: bool,
    pub(super) own_fields: &'static [Field],
}

/// One field.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: &'static str,
    pub(super) kind: Kind,
    pub(super) null: Null,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text; an id is not checked any further, as in the original.
    Text,
    Int,
    Bool,
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// Text to text.
    TextMap,
    /// Text to text or null.
    NullableTextMap,
    /// Text to anything.
    AnyMap,
    /// An object of this class.
    Object(&'static str),
    /// A list of objects of this class.
    Objects(&'static str),
}

/// What null does to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    Allowed,
    Refused,
    /// It stands for this.
    Means(Fallback),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    Yes,
    No,
    Zero,
    Text(&'static str),
}

/// The fields of every database row.
const PERSISTENT: &[Field] = &[time("created_at"), time("updated_at"), time("deleted_at"), boolean("deleted")];

impl Schema {
    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> {
        let row = if self.persistent { PERSISTENT } else { &[] };
        self.own_fields.iter().chain(row)
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, null: Null::Allowed }
    }

    pub(super) const fn required(self) -> Self {
        Self { null: Null::Refused, ..self }
    }

    pub(super) const fn null_means(self, fallback: Fallback) -> Self {
        Self { null: Null::Means(fallback), ..self }
    }
}

pub(super) const fn text(name: &'static str) -> Field {
    Field::new(name, Kind::Text)
}

pub(super) const fn int(name: &'static str) -> Field {
    Field::new(name, Kind::Int)
}

pub(super) const fn boolean(name: &'static str) -> Field {
    Field::new(name, Kind::Bool)
}

pub(super) const fn time(name: &'static str) -> Field {
    Field::new(name, Kind::Time)
}

pub(super) const fn word(name: &'static str, words: &'static [&'static str]) -> Field {
    Field::new(name, Kind::Word(words))
}

pub(super) const fn texts(name: &'static str) -> Field {
    Field::new(name, Kind::Texts)
}

pub(super) const fn text_map(name: &'static str) -> Field {
    Field::new(name, Kind::TextMap)
}

pub(super) const fn nullable_text_map(name: &'static str) -> Field {
    Field::new(name, Kind::NullableTextMap)
}

pub(super) const fn any_map(name: &'static str) -> Field {
    Field::new(name, Kind::AnyMap)
}

pub(super) const fn object(name: &'static str, class: &'static str) -> Field {
    Field::new(name, Kind::Object(class))
}

pub(super) const fn objects(name: &'static str, class: &'static str) -> Field {
    Field::new(name, Kind::Objects(class))
}
