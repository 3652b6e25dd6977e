//! One suite for the repositories, run on SQLite, MariaDB and PostgreSQL, on our own tables and on those that the real
//! `cinder-manage db sync` makes. Set INSTA_UPDATE=always to accept changed statements.

mod attachments;
mod faults;
mod metadata;
mod place;
mod python;
mod quotas;
mod schema;
mod services;
mod snapshots;
mod tables;
mod volumes;
mod workers;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use place::{Origin, Place, Server};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// Everything, on one server. The cases share the tables; each makes its own rows.
async fn suite(place: &Place) {
    volumes::a_fresh_database_is_empty(place).await;
    tables::the_origin_is_told(place).await;
    tables::types_and_qos_specs_are_read(place).await;
    services::a_service_registers_once(place).await;
    services::clusters_are_made_and_joined(place).await;
    services::volumes_follow_a_service_made_anew(place).await;
    services::changes_and_filters(place).await;
    volumes::a_volume_comes_back_as_it_was_made(place).await;
    volumes::a_swap_tells_why_it_did_nothing(place).await;
    volumes::the_end_of_work_is_one_transaction(place).await;
    volumes::destroying_takes_everything_along_in_six_round_trips(place).await;
    volumes::lists_are_filtered_and_paged(place).await;
    volumes::a_service_finds_its_own(place).await;
    volumes::nonsense_in_a_row_is_named(place).await;
    workers::a_claim_is_one_round_trip_and_fences(place).await;
    workers::of_many_claimers_one_wins(place).await;
    workers::a_sender_takes_the_row_away(place).await;
    workers::rows_left_behind_are_found(place).await;
    snapshots::a_snapshot_lives_and_dies(place).await;
    snapshots::snapshots_are_listed(place).await;
    attachments::an_attachment_lives_and_dies(place).await;
    attachments::the_rest_decides_after_a_detach(place).await;
    metadata::pairs_are_merged_and_replaced(place).await;
    metadata::image_properties_are_copied(place).await;
    metadata::a_message_is_written(place).await;
    quotas::reservations_are_committed_and_rolled_back(place).await;
    quotas::what_is_over_is_refused(place).await;
    quotas::missing_usages_are_counted(place).await;
    quotas::a_project_has_limits_of_its_own(place).await;
    quotas::fifty_at_once_are_exact(place).await;
}

/// Runs the suite on our own tables and pins the text of every statement that it made.
async fn suite_with_statements(server: Server, name: &str) {
    let seen = Statements::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(seen.clone()));
    let place = Place::new(server, Origin::Scoria).await;
    suite(&place).await;
    drop(guard);
    let mut text = String::new();
    for sql in seen.0.lock().unwrap().iter() {
        writeln!(text, "{sql}").unwrap();
    }
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[tokio::test]
async fn sqlite_with_our_tables() {
    suite_with_statements(Server::Sqlite, "sqlite").await;
}

#[tokio::test]
async fn sqlite_with_cinders_tables() {
    suite(&Place::new(Server::Sqlite, Origin::Cinder).await).await;
}

#[tokio::test]
async fn mariadb_with_our_tables() {
    suite_with_statements(Server::MariaDb, "mariadb").await;
}

#[tokio::test]
async fn mariadb_with_cinders_tables() {
    suite(&Place::new(Server::MariaDb, Origin::Cinder).await).await;
}

#[tokio::test]
async fn postgresql_with_our_tables() {
    suite_with_statements(Server::Postgres, "postgresql").await;
}

#[tokio::test]
async fn postgresql_with_cinders_tables() {
    suite(&Place::new(Server::Postgres, Origin::Cinder).await).await;
}

/// Collects the text of every statement: all go through one place, which traces them.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Sql<'a>(&'a Statements);
        impl Visit for Sql<'_> {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "sql" {
                    self.0.0.lock().unwrap().insert(value.to_owned());
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        if event.metadata().target() == "scoria_db::sql" {
            event.record(&mut Sql(self));
        }
    }
}
