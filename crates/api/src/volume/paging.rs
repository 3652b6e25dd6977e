//! Lists: limit, marker, offset, sorting, and the link to the next page (`cinder/api/common.py`).

use axum::http::StatusCode;
use scoria_model::Timestamp;

use super::body::parse_boolean;
use super::errors::{ApiError, ApiResult};

/// The query of a list request, key by key; what is left after paging and sorting were taken out is filters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query(Vec<(String, String)>);

/// Which part of a list, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// How many at most; 0 gives none.
    pub(crate) limit: u64,
    /// Id after which the page begins.
    pub(crate) marker: Option<String>,
    /// How many to leave out.
    pub(crate) offset: u64,
    /// Field names as the caller wrote them, and whether descending.
    pub(crate) sort: Vec<(String, bool)>,
}

impl Page {
    /// This page of a whole list that is already in order.
    pub(crate) fn cut<T>(&self, items: Vec<T>, id: impl Fn(&T) -> &str) -> ApiResult<Vec<T>> {
        let after = match &self.marker {
            None => 0,
            Some(marker) => {
                1 + items.iter().position(|item| id(item) == marker).ok_or_else(|| marker_missing(marker))?
            }
        };
        let skipped = after.saturating_add(usize::try_from(self.offset).unwrap_or(usize::MAX));
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        Ok(items.into_iter().skip(skipped).take(limit).collect())
    }
}

fn marker_missing(marker: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("marker {marker} could not be found"))
}

impl Query {
    /// Reads `a=1&b=2`. Of a key given twice the last one counts, as in Cinder.
    pub(crate) fn parse(text: &str) -> Self {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()).into_owned() {
            pairs.retain(|(known, _)| *known != key);
            pairs.push((key, value));
        }
        Self(pairs)
    }

    /// Takes one key out.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    /// Takes a boolean out (`cinder/utils.py: get_bool_param`).
    pub(crate) fn take_flag(&mut self, key: &str) -> ApiResult<bool> {
        let Some(text) = self.take(key) else { return Ok(false) };
        parse_boolean(&text)
            .ok_or_else(|| ApiError::bad_request(format!("Value '{text}' for '{key}' is not a boolean.")))
    }

    /// Takes paging and sorting out.
    pub(crate) fn take_page(&mut self, max: u64) -> ApiResult<Page> {
        let limit = match self.take("limit") {
            None => max,
            Some(text) => text
                .parse::<i64>()
                .map_err(|_| ApiError::bad_request("limit param must be an integer"))
                .and_then(|limit| {
                    u64::try_from(limit).map_err(|_| ApiError::bad_request("limit param must be positive"))
                })?
                .min(max),
        };
        let offset = match self.take("offset") {
            None => 0,
            Some(text) => {
                text.parse::<u32>().ok().filter(|offset| i32::try_from(*offset).is_ok()).map(u64::from).ok_or_else(
                    || ApiError::bad_request(format!("offset must be an integer of 0 to {}: '{text}'", i32::MAX)),
                )?
            }
        };
        Ok(Page { limit, marker: self.take("marker"), offset, sort: self.take_sort()? })
    }

    /// `sort=key:dir,…`, or the older `sort_key` and `sort_dir`.
    fn take_sort(&mut self) -> ApiResult<Vec<(String, bool)>> {
        let (sort, key, dir) = (self.take("sort"), self.take("sort_key"), self.take("sort_dir"));
        if sort.is_some() && (key.is_some() || dir.is_some()) {
            return Err(ApiError::bad_request(
                "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
            ));
        }
        let keys = match sort {
            Some(sort) => sort
                .split(',')
                .map(|one| one.split_once(':').unwrap_or((one, "desc")))
                .map(|(key, dir)| (key.trim().to_owned(), dir.trim().to_owned()))
                .collect(),
            None => vec![(key.unwrap_or_else(|| "created_at".to_owned()), dir.unwrap_or_else(|| "desc".to_owned()))],
        };
        keys.into_iter()
            .map(|(key, dir)| match dir.as_str() {
                "" | "desc" => Ok((key, true)),
                "asc" => Ok((key, false)),
                _ => Err(ApiError::bad_request(
                    "Invalid input received: Unknown sort direction, must be one of: asc, desc.",
                )),
            })
            .collect()
    }

    /// Refuses what nobody has taken.
    pub(crate) fn done(self) -> ApiResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let keys = self.0.into_iter().map(|(key, _)| key).collect::<Vec<_>>().join(",");
        Err(ApiError::bad_request(format!("Invalid filters {keys} are found in query options.")))
    }
}

/// The query for the next page: the same one with another marker.
pub(crate) fn next_query(query: &str, marker: &str) -> String {
    let others = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key != "marker");
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(others).append_pair("marker", marker).finish()
}

/// A comparison of times: `gte:2026-01-01T00:00:00,lt:…` (since 3.60).
pub(crate) fn time_filter(key: &str, text: &str) -> ApiResult<Vec<(String, Timestamp)>> {
    text.split(',')
        .map(|part| {
            let (operator, time) = part.split_once(':').unwrap_or((part, ""));
            if !["gt", "gte", "eq", "neq", "lt", "lte"].contains(&operator) {
                return Err(ApiError::bad_request(format!("Invalid {operator} operator")));
            }
            let time = Timestamp::parse(time).ok_or_else(|| ApiError::bad_request(format!("Invalid {key} value")))?;
            Ok((operator.to_owned(), time))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Result<Page, String> {
        Query::parse(text).take_page(1000).map_err(|error| error.message)
    }

    #[test]
    fn a_page_has_cinder_s_defaults_and_bounds() {
        let newest_first = vec![("created_at".to_owned(), true)];
        assert_eq!(page(""), Ok(Page { limit: 1000, marker: None, offset: 0, sort: newest_first }));
        assert_eq!(page("limit=5000").unwrap().limit, 1000);
        assert_eq!(page("limit=0&limit=2").unwrap().limit, 2);
        assert_eq!(page("limit=x"), Err("limit param must be an integer".to_owned()));
        assert_eq!(page("limit=-1"), Err("limit param must be positive".to_owned()));
        assert!(page("offset=-1").is_err());
        assert!(page("offset=4000000000").is_err());
    }

    #[test]
    fn sorting_has_a_new_and_an_old_form() {
        let sort = |text| page(text).map(|page| page.sort);
        let expected = vec![("name".to_owned(), false), ("size".to_owned(), true)];
        assert_eq!(sort("sort=name%3Aasc,size"), Ok(expected));
        assert_eq!(sort("sort_key=name&sort_dir=asc"), Ok(vec![("name".to_owned(), false)]));
        assert!(sort("sort=name&sort_key=size").is_err());
        assert!(sort("sort=name:up").is_err());
    }

    #[test]
    fn what_nobody_knows_is_refused_by_name() {
        let mut query = Query::parse("status=error&colour=red");
        assert_eq!(query.take("status").as_deref(), Some("error"));
        assert_eq!(query.done().unwrap_err().message, "Invalid filters colour are found in query options.");
    }

    #[test]
    fn the_next_page_keeps_the_rest_of_the_query() {
        assert_eq!(next_query("limit=2&name=a%20b&marker=old", "new"), "limit=2&name=a+b&marker=new");
    }

    #[test]
    fn times_are_compared_by_word() {
        let filter = time_filter("created_at", "gte:2026-11-22T04:59:27,lt:2026-11-23T00:00:00").unwrap();
        assert_eq!(filter.iter().map(|(operator, _)| operator.as_str()).collect::<Vec<_>>(), ["gte", "lt"]);
        assert!(time_filter("created_at", "2026-11-22T04:59:27").is_err());
        assert!(time_filter("created_at", "gt:yesterday").is_err());
    }
}
