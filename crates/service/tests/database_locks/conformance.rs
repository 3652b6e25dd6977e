//! The suite that every lock service passes.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_coordination::Provider;
use scoria_coordination::conformance::Subject;

use scoria_model::LockTable;

use crate::place::{Place, table};
use crate::provider;

/// How many names the suite uses at most in one case.
const NAMES: u32 = 96;

struct Table(Place);

#[async_trait]
impl Subject for Table {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        provider(&self.0.url, name, "database://").await
    }

    async fn lose(&self, name: &str) {
        assert!(table(&self.0.url).break_lock(&format!("cinder-{name}")).await.unwrap());
    }

    /// Rows of freed locks go a while later; there is one for each name.
    async fn leftovers(&self) -> Vec<String> {
        let rows = self.0.sql("SELECT COUNT(*) FROM scoria_locks").map(|count| count.trim().parse::<u32>().unwrap());
        assert!(rows.is_none_or(|rows| rows <= NAMES), "one row per name");
        table(&self.0.url).list().await.unwrap().into_iter().map(|row| row.wish.name).collect()
    }
}

mod sqlite {
    use super::*;

    // All but the ten thousand pairs: each is two writes that wait for the disk. It is done with fewer below.
    scoria_coordination::conformance_suite!(Table(Place::sqlite().await); exclusive_excludes shared_goes_beside_shared
        sets_are_all_or_none crossed_sets_do_not_deadlock waiting_ends_at_the_deadline waiting_ends_with_the_release
        waiters_are_served_in_order a_cancelled_wait_leaves_nothing release_is_awaited dropping_gives_back
        losses_are_told holders_and_waiters_are_listed tokens_rise bad_names_are_refused closing_gives_back
        a_broken_lock_is_lost_and_free never_two_inside
        no_waiter_gets_less_than_half_the_turns_of_another);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_left_after_many_pairs() {
        let place = Place::sqlite().await;
        let one = crate::coordinator(&place.url, "one", "database://").await;
        for round in 0..500 {
            crate::soon(&one, &format!("volume-{}", round % 10)).await.release().await.unwrap();
        }
        one.close().await;
        assert_eq!(Table(place).leftovers().await, Vec::<String>::new());
    }
}

mod mariadb {
    use super::*;

    scoria_coordination::conformance_suite!(Table(Place::mariadb().await));
}

mod postgresql {
    use super::*;

    scoria_coordination::conformance_suite!(Table(Place::postgresql().await));
}
