//! How many holders a piece of work has brought down.
//!
//! A message that kills whoever takes it would otherwise go round for ever. The count has to outlive the holders and needs a
//! place that Cinder's schema has already: `workers.race_preventer`. Whoever takes a row may give it any higher number, so
//! ours carry the count in their lowest bits: `64 k + 32 + deaths`. Numbers of Python services, which count by one from zero,
//! do not look like that and stand for no deaths.
//!
//! * Taken for the first time, or from a holder that put the work down in order: the next number with 0 deaths.
//! * Taken from a holder that never put it down: one death more. It is known to have had the work because the row names it,
//!   and to have been unable to finish because the message came again, or because a sweep found the service dead.
//! * Put down in order (drain, lost lock, isolation): marked with [`PUT_DOWN`] in place of the count, so that rolling
//!   restarts do no harm. One that cannot be written, because the database is what is away, counts as a death.
//!
//! A message that kills before the row is taken is not counted: nothing but its decoding happens before.

use scoria_model::Worker;

/// Numbers come in rounds of this many.
const ROUND: i64 = 64;
/// From here on in a round they are ours.
const OURS: i64 = 32;
/// In place of the count: the holder put the work down in order.
const PUT_DOWN: i64 = 31;
/// So many holders may be brought down; then the work is put aside.
pub(crate) const LIMIT: i64 = 3;

/// How many deaths a row's number tells of.
pub(crate) fn told_by(number: i64) -> i64 {
    match number % ROUND - OURS {
        deaths @ 0..PUT_DOWN => deaths,
        _ => 0,
    }
}

/// Whether the last holder put the work down in order.
pub(crate) fn was_put_down(number: i64) -> bool {
    number % ROUND - OURS == PUT_DOWN
}

/// The number for whoever takes a row.
pub(crate) fn number_after(seen: &Worker, holder_died: bool) -> i64 {
    let deaths = if holder_died { told_by(seen.race_preventer) + 1 } else { 0 };
    above(seen.race_preventer, deaths)
}

/// The number that marks a row as put down in order.
pub(crate) fn number_put_down(number: i64) -> i64 {
    above(number, PUT_DOWN)
}

/// The next higher number that says so.
fn above(number: i64, low: i64) -> i64 {
    let next = number - number % ROUND + OURS + low;
    if next > number { next } else { next + ROUND }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: i64) -> Worker {
        Worker {
            id: 1,
            resource_type: "Volume".to_owned(),
            resource_id: String::new(),
            status: "deleting".to_owned(),
            service_id: Some(1),
            race_preventer: number,
            created_at: None,
            updated_at: None,
        }
    }

    #[test]
    fn deaths_add_up_until_the_work_is_put_down_in_order() {
        for first in [0, 1, 5, 31, 32, 40, 63, 64, 1000] {
            let fresh = number_after(&row(first), false);
            assert!(fresh > first && told_by(fresh) == 0, "{first} -> {fresh}");
            let mut number = fresh;
            for deaths in 1..=LIMIT {
                let next = number_after(&row(number), true);
                assert!(next > number);
                assert_eq!(told_by(next), deaths);
                number = next;
            }
            let put_down = number_put_down(number);
            assert!(put_down > number && was_put_down(put_down));
            assert_eq!(told_by(put_down), 0);
            assert_eq!(told_by(number_after(&row(put_down), false)), 0);
        }
    }

    #[test]
    fn a_python_holder_s_number_tells_of_no_deaths() {
        for number in [0, 1, 2, 7] {
            assert_eq!(told_by(number), 0);
            assert_eq!(told_by(number_after(&row(number), true)), 1);
        }
    }
}
