//! docs/locks.md says what the code answers: what each lock service can do, and which options its URL has.

mod common {
    pub(crate) mod log;
}

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::log::Log;
use scoria_coordination::{Features, Listing, Options, Order, Provider, Scope, providers};
use scoria_model::{LockAnswer, LockLease, LockRow, LockTable, LockTableError, LockWatch, LockWish};

/// What the page's table says of a scheme, and the code.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    scope: &'static str,
    token: bool,
    order: &'static str,
    shared: bool,
    listing: &'static str,
}

impl Row {
    fn of_page(cells: &[String]) -> Self {
        // `node; cluster on …`, `yes, in …`: what comes first is what holds without further conditions.
        let first = |cell: &str| cell.split([';', ',', ' ']).next().unwrap_or_default().to_owned();
        let one_of = |cell: &str, known: &[&'static str]| {
            let said = first(cell);
            *known.iter().find(|known| **known == said).unwrap_or_else(|| panic!("'{cell}' is none of {known:?}"))
        };
        let yes = |cell: &str| one_of(cell, &["yes", "no"]) == "yes";
        Self {
            scope: one_of(&cells[1], &["node", "cluster"]),
            token: yes(&cells[2]),
            order: one_of(&cells[3], &["own", "all"]),
            shared: yes(&cells[4]),
            listing: one_of(&cells[5], &["all", "holders", "own"]),
        }
    }

    fn of_code(provider: &dyn Provider) -> Self {
        let Features { token, order, shared, listing } = provider.features();
        let scope = match provider.scope() {
            Scope::Node => "node",
            Scope::Cluster => "cluster",
        };
        let listing = match listing {
            Listing::All => "all",
            Listing::Holders => "holders",
            Listing::Own => "own",
        };
        let order = match order {
            Order::Own => "own",
            Order::All => "all",
        };
        Self { scope, token, order, shared, listing }
    }
}

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/locks.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of all tables with this first column, each as its cells.
fn rows(text: &str, first_column: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let Some(line) = line.strip_prefix('|') else {
            inside = false;
            continue;
        };
        let cells: Vec<_> = line.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        if cells[0] == first_column {
            inside = true;
        } else if inside && !cells[0].starts_with("---") {
            rows.push(cells);
        }
    }
    rows
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `x` of every `x://`.
fn schemes(text: &str) -> BTreeSet<String> {
    let before = text.split("://").collect::<Vec<_>>();
    let ends = before[..before.len() - 1].iter();
    ends.filter_map(|text| text.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+').next())
        .map(str::to_owned)
        .collect()
}

fn matrix() -> BTreeMap<String, Row> {
    // The first table with this column; the next one is about times.
    let page = page();
    let (matrix, _) = page.split_once("\n## What all of them do").expect("the section after the table");
    let mut found = BTreeMap::new();
    for cells in rows(matrix, "URL") {
        for scheme in schemes(&cells[0]) {
            assert!(found.insert(scheme.clone(), Row::of_page(&cells)).is_none(), "{scheme}:// stands there twice");
        }
    }
    found
}

/// Every scheme with the options that its section lists.
fn documented_options() -> BTreeMap<String, BTreeSet<String>> {
    let page = page();
    let mut found = BTreeMap::new();
    for section in page.split("\n## ").filter(|section| section.starts_with('`')) {
        let (heading, text) = section.split_once('\n').expect("a section has text");
        let mut options = BTreeSet::new();
        for cells in rows(text, "option") {
            for option in quoted(&cells[0]) {
                assert!(options.insert(option.to_owned()), "{heading}: {option} stands there twice");
            }
        }
        found.extend(schemes(heading).into_iter().map(|scheme| (scheme, options.clone())));
    }
    found
}

/// A table of the test's own: it is there, and nothing is ever done with it.
#[derive(Debug)]
struct Unused {
    local: bool,
}

fn nothing<T>() -> Result<T, LockTableError> {
    Err(LockTableError::Refused("there is only an empty table here".to_owned()))
}

#[async_trait]
impl LockTable for Unused {
    fn hands_on(&self) -> bool {
        true
    }

    fn wakes_within(&self) -> Duration {
        Duration::ZERO
    }

    fn is_local(&self) -> bool {
        self.local
    }
    async fn check(&self) -> Result<(), LockTableError> {
        Ok(())
    }
    async fn take(&self, _: &LockWish, _: Duration, _: bool) -> Result<LockAnswer, LockTableError> {
        nothing()
    }
    async fn extend(&self, _: &[(&str, &str)], _: Duration) -> Result<Vec<bool>, LockTableError> {
        nothing()
    }
    async fn find(&self, _: &str, _: &str) -> Result<Option<LockLease>, LockTableError> {
        nothing()
    }
    async fn give_back(&self, _: &str, _: &str) -> Result<bool, LockTableError> {
        nothing()
    }
    async fn watch(&self, _: &str, _: &str) -> Result<Box<dyn LockWatch>, LockTableError> {
        nothing()
    }
    async fn list(&self) -> Result<Vec<LockRow>, LockTableError> {
        Ok(Vec::new())
    }
    async fn break_lock(&self, _: &str) -> Result<bool, LockTableError> {
        nothing()
    }
    async fn sweep(&self) -> Result<(), LockTableError> {
        Ok(())
    }
    fn renew(&self) {}
    async fn close(&self) {}
}

/// Opens the lock service of a scheme without its server: no service listens on the port.
async fn open(scheme: &str, query: &str, directory: &tempfile::TempDir, local: bool) -> Arc<dyn Provider> {
    let rest = match scheme {
        "file" => directory.path().display().to_string(),
        "database" | "memory" => String::new(),
        _ => "127.0.0.1:1".to_owned(),
    };
    let options = Options { lock_table: Some(Arc::new(Unused { local })), ..Options::default() };
    let url = format!("{scheme}://{rest}{query}");
    providers::open(&url, &options).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// The schemes of which the code says that it knows them.
async fn known() -> BTreeSet<String> {
    let error = providers::open("nonsense://", &Options::default()).await.unwrap_err().to_string();
    let (_, known) = error.split_once("known are ").unwrap_or_else(|| panic!("it does not say what is known: {error}"));
    schemes(known)
}

#[tokio::test]
async fn the_page_says_of_each_lock_service_what_the_code_answers() {
    let (matrix, directory) = (matrix(), tempfile::tempdir().unwrap());
    assert_eq!(matrix.keys().cloned().collect::<BTreeSet<_>>(), known().await, "the page, and what the code knows");
    for (scheme, row) in &matrix {
        let provider = open(scheme, "", &directory, false).await;
        assert_eq!(*row, Row::of_code(&*provider), "{scheme}://: the page, and the code");
    }
    // The second half of that row.
    assert_eq!(open("database", "", &directory, true).await.scope(), Scope::Node);
}

/// The options that a lock service names when it is given one that it does not know.
async fn known_options(scheme: &str, directory: &tempfile::TempDir) -> BTreeSet<String> {
    let (log, logging) = Log::begin();
    open(scheme, "?nonsense=1", directory, false).await;
    drop(logging);
    let log = log.said();
    let said = format!("{scheme}:// has no option 'nonsense', it is ignored; known are ");
    let known = log.lines().find_map(|line| line.split_once(&said)).map(|(_, known)| known);
    let known = known.unwrap_or_else(|| panic!("{scheme}:// does not say which options it knows: {log}"));
    known.split(", ").map(|option| option.trim().to_owned()).collect()
}

#[tokio::test]
async fn each_option_of_a_url_is_documented_and_no_other() {
    let (documented, directory) = (documented_options(), tempfile::tempdir().unwrap());
    for scheme in matrix().keys().filter(|scheme| *scheme != "memory") {
        let page = documented.get(scheme).unwrap_or_else(|| panic!("{scheme}:// has no section"));
        assert_eq!(*page, known_options(scheme, &directory).await, "{scheme}://: the page, and the code");
    }
}
