//! The catalog of a token: which service is where (`GET /v3/auth/catalog` has the same form).

use serde::Deserialize;
use url::Url;

use crate::http::{parse, shown_text};
use crate::options::Interface;

/// Nova's type (service-types-authority); it has no other names.
const COMPUTE: &str = "compute";

/// One service and where it is.
#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    #[serde(rename = "type")]
    service_type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    interface: Option<String>,
    region_id: Option<String>,
    /// The same by the name of earlier versions.
    region: Option<String>,
    url: Option<String>,
}

impl Endpoint {
    fn region(&self) -> Option<&str> {
        let given = |region: &'_ Option<String>| region.as_deref().is_some_and(|region| !region.is_empty());
        if given(&self.region_id) { self.region_id.as_deref() } else { self.region.as_deref() }
    }
}

/// Nova's endpoint, the first one that fits (`keystoneauth1/access/service_catalog.py`). The error says what there is instead.
pub(crate) fn compute(catalog: &[Service], interface: Interface, region: Option<&str>) -> Result<Url, String> {
    let wanted = match region {
        Some(region) => format!("service type {COMPUTE}, interface {} and region {region}", interface.as_str()),
        None => format!("service type {COMPUTE} and interface {}", interface.as_str()),
    };
    let all =
        || catalog.iter().filter(|service| service.service_type == COMPUTE).flat_map(|service| &service.endpoints);
    let fits = |endpoint: &&Endpoint| {
        endpoint.interface.as_deref() == Some(interface.as_str())
            && region.is_none_or(|region| endpoint.region() == Some(region))
    };
    let urls = || all().filter(fits).filter_map(|endpoint| endpoint.url.as_deref()).filter(|url| !url.is_empty());
    if let Some(url) = urls().next() {
        return parse(url).map_err(|why| format!("its endpoint of {wanted} is '{}', which {why}", shown_text(url)));
    }
    let mut there: Vec<_> = all().map(described).collect();
    there.dedup();
    Err(if !there.is_empty() {
        format!(
            "its catalog has no endpoint of {wanted}, only {}: options interface and region_name choose",
            there.join(", ")
        )
    } else if catalog.is_empty() {
        "the token has no catalog: it wants a project, options project_name and project_domain_name".to_owned()
    } else {
        let types: Vec<_> = catalog.iter().map(|service| service.service_type.as_str()).collect();
        format!("its catalog has no service of type {COMPUTE}, only {}", types.join(", "))
    })
}

fn described(endpoint: &Endpoint) -> String {
    let (interface, region) = (endpoint.interface.as_deref(), endpoint.region());
    let url = shown_text(endpoint.url.as_deref().unwrap_or_default());
    format!("{} in {} at {url}", interface.unwrap_or("no interface"), region.unwrap_or("no region"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalog() -> Vec<Service> {
        let endpoint = |interface: &str, region: &str, url: &str| json!({ "interface": interface, "region_id": region, "region": "old", "url": url });
        serde_json::from_value(json!([
            { "type": "identity", "endpoints": [endpoint("public", "one", "http://keystone")] },
            { "type": "compute", "endpoints": [
                endpoint("admin", "one", "http://admin.one/v2.1"),
                endpoint("public", "one", ""),
                endpoint("public", "one", "http://public.one/v2.1"),
                endpoint("internal", "two", "http://internal.two/v2.1/"),
                { "interface": "public", "region_id": null, "region": "three", "url": "http://public.three" },
                { "interface": "internal", "region": "four", "url": "nova" },
                { "interface": "internal", "region": "five", "url": "http://user:s3cret@five" },
            ] },
        ]))
        .unwrap()
    }

    #[test]
    fn interface_and_region_choose_and_the_first_one_wins() {
        let found = |interface, region| compute(&catalog(), interface, region).unwrap().to_string();
        assert_eq!(found(Interface::Public, None), "http://public.one/v2.1");
        assert_eq!(found(Interface::Public, Some("three")), "http://public.three/");
        assert_eq!(found(Interface::Internal, None), "http://internal.two/v2.1/");
        assert_eq!(found(Interface::Admin, Some("one")), "http://admin.one/v2.1");
    }

    #[test]
    fn what_is_there_is_listed_when_nothing_fits() {
        let why = |catalog: &[Service], region| compute(catalog, Interface::Internal, Some(region)).unwrap_err();
        let text = why(&catalog(), "one");
        assert!(
            text.contains("no endpoint of service type compute, interface internal and region one, only "),
            "{text}"
        );
        assert!(text.contains("admin in one at http://admin.one/v2.1, "), "{text}");
        assert!(text.contains("public in three at http://public.three/"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        let text = why(&catalog(), "four");
        assert!(text.contains("is 'nova', which is no URL"), "{text}");
        assert!(why(&catalog(), "five").contains("is 'http://five/', which must not contain a user"));
        assert_eq!(why(&catalog()[..1], "one"), "its catalog has no service of type compute, only identity");
        assert!(why(&[], "one").contains("no catalog"));
    }
}
