//! Which volumes a list is of (`etc/cinder/resource_filters.json`, `cinder/volume/api.py: API.check_volume_filters`).
//!
//! What the database can tell apart by a column goes into its query. The rest, which few ask for, is looked at here; then the
//! page is cut here too.

use std::fmt;

use scoria_db::{SortDirection, VolumeFilter};
use scoria_model::{Fault, Metadata, Timestamp, Volume, VolumeStatus};
use serde_json::Value;

use super::body::parse_boolean;
use super::errors::{ApiError, ApiResult};
use super::paging::{Page, Query, time_filter};
use super::request::Caller;

type TextOf = fn(&Volume) -> Option<&str>;
type FlagOf = fn(&Volume) -> bool;
type TimeOf = fn(&Volume) -> Option<Timestamp>;

/// A condition that the database does not know.
type Condition = Box<dyn Fn(&Volume) -> bool + Send + Sync>;

/// What the database sorts by; of several keys the first one counts.
const SORT_KEYS: [&str; 7] = ["created_at", "updated_at", "display_name", "size", "status", "host", "id"];

/// What to look for.
#[derive(Default)]
pub(crate) struct Wanted {
    filter: VolumeFilter,
    rest: Vec<Condition>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("filter", &self.filter).field("rest", &self.rest.len()).finish()
    }
}

impl Wanted {
    /// Reads what is left of a query after its paging was taken out; a filter that nobody knows is refused.
    pub(crate) fn read(caller: &Caller, mut query: Query) -> ApiResult<Self> {
        let mut filter = VolumeFilter { project_id: project(caller, &mut query)?, ..VolumeFilter::default() };
        filter.all_tenants = filter.project_id.is_none();
        filter.name = query.take("name").or_else(|| query.take("display_name"));
        filter.status = query.take("status").map(VolumeStatus::from).into_iter().collect();
        filter.host = query.take("host");
        filter.cluster_name = query.take("cluster_name");
        filter.snapshot_id = query.take("snapshot_id");
        filter.source_volid = query.take("source_volid");
        filter.ids = query.take("id").map(|id| id.parse()).transpose()?.into_iter().collect();
        filter.bootable = query.take("bootable").map(|text| strict_boolean("bootable", &text)).transpose()?;
        filter.metadata = query.take("metadata").map(|text| parse_metadata(&text)).transpose()?.unwrap_or_default();
        let rest = Self::read_rest(&mut query)?;
        query.done()?;
        Ok(Self { filter, rest })
    }

    fn read_rest(query: &mut Query) -> ApiResult<Vec<Condition>> {
        let mut rest: Vec<Condition> = Vec::new();
        if let Some(part) = query.take("name~") {
            rest.push(Box::new(move |volume| contains(volume.display_name.as_deref(), &part)));
        }
        if let Some(part) = query.take("description~") {
            rest.push(Box::new(move |volume| contains(volume.display_description.as_deref(), &part)));
        }
        if let Some(size) = query.take("size") {
            rest.push(Box::new(move |volume| volume.size.to_string() == size));
        }
        let text: [(&str, TextOf); 6] = [
            ("availability_zone", |volume| volume.availability_zone.as_deref()),
            ("migration_status", |volume| volume.migration_status.as_deref()),
            ("user_id", |volume| volume.user_id.as_deref()),
            ("volume_type_id", |volume| volume.volume_type_id.as_ref().map(|id| id.as_str())),
            ("group_id", |volume| volume.group_id.as_ref().map(|id| id.as_str())),
            ("attach_status", |volume| Some(volume.attach_status.as_str())),
        ];
        for (key, field) in text {
            if let Some(wanted) = query.take(key) {
                rest.push(Box::new(move |volume| field(volume) == Some(wanted.as_str())));
            }
        }
        let flags: [(&str, FlagOf); 2] =
            [("multiattach", |volume| volume.multiattach), ("consumes_quota", |volume| volume.use_quota)];
        for (key, field) in flags {
            if let Some(text) = query.take(key) {
                let wanted = strict_boolean(key, &text)?;
                rest.push(Box::new(move |volume| field(volume) == wanted));
            }
        }
        let times: [(&str, TimeOf); 2] =
            [("created_at", |volume| volume.created_at), ("updated_at", |volume| volume.updated_at)];
        for (key, field) in times {
            if let Some(text) = query.take(key) {
                let comparisons = time_filter(key, &text)?;
                rest.push(Box::new(move |volume| {
                    let at = field(volume);
                    comparisons.iter().all(|(operator, time)| at.is_some_and(|at| compare(at, operator, *time)))
                }));
            }
        }
        Ok(rest)
    }

    /// The database's part, without a page.
    pub(crate) fn unpaged(&self) -> VolumeFilter {
        self.filter.clone()
    }

    /// The database's part for one page. Where a part is looked at here, the page cannot be the database's.
    pub(crate) fn paged(&self, page: &Page) -> ApiResult<VolumeFilter> {
        let (key, descending) = page.sort.first().cloned().unwrap_or(("created_at".to_owned(), true));
        let key = if key == "name" { "display_name".to_owned() } else { key };
        if !SORT_KEYS.contains(&key.as_str()) {
            return Err(Fault::invalid_input("Invalid sort key").into());
        }
        let mut filter = self.unpaged();
        filter.sort_key = Some(key);
        filter.sort_dir = if descending { SortDirection::Descending } else { SortDirection::Ascending };
        if self.rest.is_empty() {
            filter.limit = Some(page.limit);
            filter.offset = Some(page.offset).filter(|offset| *offset > 0);
            filter.marker = page.marker.as_deref().map(str::parse).transpose()?;
        }
        Ok(filter)
    }

    /// What the conditions leave of the database's answer.
    pub(crate) fn select(&self, volumes: Vec<Volume>) -> Vec<Volume> {
        volumes.into_iter().filter(|volume| self.rest.iter().all(|condition| condition(volume))).collect()
    }

    /// The page of the database's answer to [`Wanted::paged`].
    pub(crate) fn cut(&self, volumes: Vec<Volume>, page: &Page) -> ApiResult<Vec<Volume>> {
        if self.rest.is_empty() {
            return Ok(volumes);
        }
        page.cut(self.select(volumes), |volume| volume.id.as_str())
    }
}

/// The caller's project; with `all_tenants` all of them, or the one that is named.
pub(crate) fn project(caller: &Caller, query: &mut Query) -> ApiResult<Option<String>> {
    let all = query.take_flag("all_tenants")?;
    let named = query.take("project_id").or_else(|| query.take("tenant_id"));
    Ok(if all { named } else { Some(caller.project.clone()) })
}

/// `{'key': 'value'}`, as Python or as JSON writes it.
pub(crate) fn parse_metadata(text: &str) -> ApiResult<Metadata> {
    let read = |text: &str| serde_json::from_str::<Metadata>(text).ok();
    // Python's quotes are single ones; a value that has quotes itself must come as JSON.
    read(text).or_else(|| read(&text.replace('\'', "\""))).ok_or_else(|| {
        let shown = super::body::python(&Value::from(text));
        ApiError::bad_request(format!("Invalid input received: metadata must be a dictionary of texts, not {shown}"))
    })
}

fn strict_boolean(key: &str, text: &str) -> ApiResult<bool> {
    parse_boolean(text).ok_or_else(|| ApiError::bad_request(format!("Invalid input received: '{key} = {text}'")))
}

fn contains(text: Option<&str>, part: &str) -> bool {
    text.is_some_and(|text| text.contains(part))
}

fn compare(at: Timestamp, operator: &str, time: Timestamp) -> bool {
    match operator {
        "gt" => at > time,
        "gte" => at >= time,
        "lt" => at < time,
        "lte" => at <= time,
        "neq" => at != time,
        _ => at == time,
    }
}

#[cfg(test)]
mod tests {
    use scoria_model::VolumeId;

    use super::*;

    fn volumes() -> Vec<Volume> {
        (1..=5).map(|size| Volume::new(VolumeId::random(), size)).collect()
    }

    fn rest(text: &str) -> Wanted {
        let mut query = Query::parse(text);
        let rest = Wanted::read_rest(&mut query).unwrap();
        query.done().unwrap();
        Wanted { rest, ..Wanted::default() }
    }

    #[test]
    fn metadata_come_as_python_or_as_json() {
        assert_eq!(parse_metadata("{'a': 'b'}").unwrap()["a"], "b");
        assert_eq!(parse_metadata(r#"{"a": "it's"}"#).unwrap()["a"], "it's");
        assert!(parse_metadata("a=b").is_err());
    }

    #[test]
    fn what_the_database_does_not_know_is_cut_here() {
        let wanted = rest("multiattach=false");
        let all = volumes();
        let marker = all[1].id.to_string();
        let page = Page { limit: 2, marker: Some(marker), offset: 1, sort: vec![] };
        assert_eq!(wanted.paged(&page).unwrap().limit, None);
        let sizes: Vec<u64> = wanted.cut(all, &page).unwrap().iter().map(|volume| volume.size).collect();
        assert_eq!(sizes, [4, 5]);
        assert_eq!(rest("size=3").select(volumes()).len(), 1);
    }

    #[test]
    fn a_volume_without_a_time_is_neither_before_nor_after() {
        assert_eq!(rest("updated_at=lt:2030-01-01T00:00:00").select(volumes()).len(), 0);
    }
}
