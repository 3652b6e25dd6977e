//! The request context that travels with every message (`cinder/context.py: RequestContext`).

use serde_json::{Map, Value};

/// Whether soft-deleted rows are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadDeleted {
    /// Only live rows.
    #[default]
    No,
    /// All rows.
    Yes,
    /// Only deleted rows.
    Only,
}

/// Who asked for what. Keys that we do not read are kept in [`RequestContext::raw`] and travel on unchanged: a cast to the
/// scheduler must carry the user's own context.
#[derive(Clone, PartialEq, Default)]
pub struct RequestContext {
    /// `req-…`.
    pub request_id: Option<String>,
    /// The caller's caller.
    pub global_request_id: Option<String>,
    /// User.
    pub user_id: Option<String>,
    /// Project.
    pub project_id: Option<String>,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// Roles.
    pub roles: Vec<String>,
    /// Whether soft-deleted rows are seen.
    pub read_deleted: ReadDeleted,
    /// Every key as it came, without the `_context_` prefix.
    pub raw: Map<String, Value>,
}

/// The token is in `raw`, so the derived form would put it into logs.
impl std::fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestContext")
            .field("request_id", &self.request_id)
            .field("user_id", &self.user_id)
            .field("project_id", &self.project_id)
            .field("is_admin", &self.is_admin)
            .finish_non_exhaustive()
    }
}

impl RequestContext {
    /// The context of our own work: an administrator without user and project.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            request_id: Some(format!("req-{}", uuid::Uuid::new_v4())),
            is_admin: true,
            roles: vec!["admin".to_owned()],
            ..Self::default()
        }
    }

    /// A user's context.
    #[must_use]
    pub fn user(user_id: &str, project_id: &str) -> Self {
        Self {
            user_id: Some(user_id.to_owned()),
            project_id: Some(project_id.to_owned()),
            is_admin: false,
            roles: Vec::new(),
            ..Self::admin()
        }
    }

    /// Reads the flattened keys of a message. Unknown keys are kept, ill-typed ones count as absent.
    #[must_use]
    pub fn from_map(raw: Map<String, Value>) -> Self {
        let text = |key: &str| raw.get(key).and_then(Value::as_str).map(str::to_owned);
        let roles: Vec<String> = raw
            .get("roles")
            .and_then(Value::as_array)
            .map(|roles| roles.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        Self {
            request_id: text("request_id"),
            global_request_id: text("global_request_id"),
            user_id: text("user_id").or_else(|| text("user")),
            project_id: text("project_id").or_else(|| text("project")).or_else(|| text("tenant")),
            is_admin: raw
                .get("is_admin")
                .and_then(Value::as_bool)
                .unwrap_or_else(|| roles.iter().any(|role| role == "admin")),
            read_deleted: match raw.get("read_deleted").and_then(Value::as_str) {
                Some("yes") => ReadDeleted::Yes,
                Some("only") => ReadDeleted::Only,
                _ => ReadDeleted::No,
            },
            roles,
            raw,
        }
    }

    /// All keys for a message, without the `_context_` prefix: what came, overlaid with what we know.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = self.raw.clone();
        let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
        set("request_id", self.request_id.clone().into());
        set("global_request_id", self.global_request_id.clone().into());
        set("user_id", self.user_id.clone().into());
        set("user", self.user_id.clone().into());
        set("project_id", self.project_id.clone().into());
        set("project", self.project_id.clone().into());
        set("is_admin", self.is_admin.into());
        set("roles", self.roles.clone().into());
        let read_deleted = match self.read_deleted {
            ReadDeleted::No => "no",
            ReadDeleted::Yes => "yes",
            ReadDeleted::Only => "only",
        };
        set("read_deleted", read_deleted.into());
        map.entry("timestamp").or_insert_with(|| crate::Timestamp::now_precise().to_iso_micros().into());
        map.entry("service_catalog").or_insert_with(|| Value::Array(Vec::new()));
        map
    }

    /// The same request with an administrator's rights (`RequestContext.elevated`).
    #[must_use]
    pub fn elevated(&self) -> Self {
        let mut elevated = self.clone();
        elevated.is_admin = true;
        if !elevated.roles.iter().any(|role| role == "admin") {
            elevated.roles.push("admin".to_owned());
        }
        elevated
    }
}
