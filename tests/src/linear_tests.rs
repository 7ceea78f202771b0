//! Histories that must pass, histories that must be refused, and all small ones against a search that tries everything.

use super::*;
use crate::rng::Rng;

fn operation(call: Call, from: u64, till: u64, outcome: Outcome) -> Operation {
    Operation { key: "k".to_owned(), call, from, till, outcome }
}

/// A put of `value` whose revision is ten times the value, so that both are easy to read.
fn put(value: u64, from: u64, till: u64) -> Operation {
    operation(Call::Put(value), from, till, Outcome::Written { revision: revision(value) })
}

fn lost_put(value: u64, from: u64) -> Operation {
    operation(Call::Put(value), from, from + 1, Outcome::Unknown)
}

fn revision(value: u64) -> i64 {
    10 * i64::try_from(value).expect("small")
}

/// A get that found `value` (0: nothing); its revision says nothing more than the content's.
fn get(value: u64, from: u64, till: u64) -> Operation {
    let found = (value != 0).then(|| Content { value, revision: revision(value) });
    operation(Call::Get, from, till, Outcome::Read { found, revision: revision(value) })
}

/// A swap by value that held.
fn swap(old: u64, new: u64, from: u64, till: u64) -> Operation {
    let expected = Expected::Value((old != 0).then_some(old));
    operation(Call::Swap { expected, new }, from, till, Outcome::Written { revision: revision(new) })
}

fn swap_at(old: i64, new: u64, from: u64, outcome: Outcome) -> Operation {
    operation(Call::Swap { expected: Expected::Revision(old), new }, from, from + 1, outcome)
}

/// The search alone, without what revisions tell.
fn ordered(history: &[Operation]) -> Result<(), String> {
    let all: Vec<&Operation> = history.iter().collect();
    search(&Register::new(&all)?.steps)
}

fn passes(history: &[Operation]) -> Judged {
    check(history).unwrap_or_else(|e| panic!("refused: {e}"))
}

fn refused(history: &[Operation], why: &str) {
    let error = check(history).expect_err("it must be refused");
    assert!(error.contains(why), "no {why:?} in {error}");
}

#[test]
fn one_after_another_passes() {
    passes(&[get(0, 0, 1), put(1, 2, 3), get(1, 4, 5), swap(1, 2, 6, 7), get(2, 8, 9)]);
}

#[test]
fn what_overlaps_may_have_either_order() {
    passes(&[put(1, 0, 10), put(2, 0, 10), get(2, 11, 12)]);
    passes(&[put(1, 0, 1), put(2, 2, 10), get(1, 3, 4), get(2, 5, 6)]);
    assert_eq!(ordered(&[put(1, 0, 10), put(2, 0, 10), get(1, 11, 12)]), Ok(()));
}

#[test]
fn a_stale_read_is_refused() {
    let history = [put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)];
    refused(&history, "revisions go back");
    assert!(ordered(&history).is_err());
}

#[test]
fn two_reads_see_one_order() {
    let history = [put(1, 0, 1), put(2, 2, 20), get(2, 3, 4), get(1, 5, 6)];
    assert!(ordered(&history).expect_err("new, then old").contains("no order explains"));
}

#[test]
fn a_lost_write_is_refused() {
    assert!(ordered(&[put(1, 0, 1), get(0, 2, 3)]).is_err());
    let events = [(10, "k".to_owned(), 1)];
    assert_eq!(check_log(&[put(1, 0, 1), lost_put(2, 3)], &events), Ok(()));
    assert!(check_log(&[put(1, 0, 1), put(2, 2, 3)], &events).is_err_and(|e| e.contains("lost")));
    assert!(check_log(&[put(2, 2, 3)], &events).is_err_and(|e| e.contains("nobody asked")));
    let twice = [(10, "k".to_owned(), 1), (20, "k".to_owned(), 1)];
    assert!(check_log(&[put(1, 0, 1)], &twice).is_err_and(|e| e.contains("happened at 10 and at 20")));
}

#[test]
fn a_write_without_an_answer_may_have_happened_late_or_never() {
    let judged = passes(&[put(1, 0, 1), lost_put(2, 2), get(1, 10, 11), get(2, 12, 13), lost_put(3, 14)]);
    assert_eq!(judged, Judged { operations: 5, written: 1, unknown: 2, unknown_seen: 1 });
}

#[test]
fn a_write_without_an_answer_happens_once() {
    let history = [put(1, 0, 1), lost_put(2, 2), get(2, 10, 11), put(3, 12, 13), get(2, 14, 15)];
    assert!(ordered(&history).is_err());
}

#[test]
fn nothing_is_seen_before_it_is_asked_for() {
    refused(&[get(2, 0, 1), lost_put(2, 2)], "before it was asked");
    assert!(ordered(&[get(2, 0, 1), put(2, 2, 3)]).is_err());
}

#[test]
fn what_nobody_wrote_is_refused() {
    refused(&[put(1, 0, 1), get(2, 2, 3)], "nobody wrote");
}

#[test]
fn one_of_two_swaps_from_the_same_content_holds() {
    let both = [put(1, 0, 1), swap(1, 2, 2, 5), swap(1, 3, 2, 5)];
    refused(&both, "no order explains");
    let by_revision =
        |second| [put(1, 0, 1), swap_at(10, 2, 2, Outcome::Written { revision: 20 }), swap_at(10, 3, 2, second)];
    refused(&by_revision(Outcome::Written { revision: 30 }), "no order explains");
    let found = Some(Content { value: 2, revision: 20 });
    passes(&by_revision(Outcome::Read { found, revision: 20 }));
    let found = Some(Content { value: 1, revision: 10 });
    refused(&by_revision(Outcome::Read { found, revision: 10 }), "found what it expected");
}

#[test]
fn a_swap_that_was_seen_has_seen_what_it_expected() {
    // Nobody read value 1, whose put has no answer; but value 2 came from it.
    let mut unanswered = swap(1, 2, 4, 5);
    unanswered.outcome = Outcome::Unknown;
    let judged = passes(&[lost_put(1, 0), unanswered.clone(), get(2, 8, 9)]);
    assert_eq!(judged.unknown_seen, 2);
    refused(&[unanswered, get(2, 8, 9), lost_put(1, 20)], "before it was asked");
}

#[test]
fn revisions_tell_of_writes_applied_twice_and_of_shared_ones() {
    let again = Some(Content { value: 1, revision: 30 });
    refused(
        &[put(1, 0, 1), operation(Call::Get, 2, 3, Outcome::Read { found: again, revision: 30 })],
        "has revision 10 too",
    );
    let mut elsewhere = put(2, 0, 9);
    elsewhere.key = "other".to_owned();
    elsewhere.outcome = Outcome::Written { revision: 10 };
    refused(&[put(1, 0, 9), elsewhere], "revision 10 is of value");
}

#[test]
fn revisions_follow_time_over_all_keys() {
    let mut elsewhere = put(1, 4, 5);
    elsewhere.key = "other".to_owned();
    refused(&[put(2, 0, 1), elsewhere.clone()], "revisions go back");
    elsewhere.from = 1;
    passes(&[put(2, 0, 1), elsewhere]);
}

/// Tries every order of all operations.
fn exists_order(history: &[Operation], taken: &mut Vec<usize>, content: Option<u64>) -> bool {
    if taken.len() == history.len() {
        return true;
    }
    (0..history.len()).any(|n| {
        // Nothing that has not been taken may have ended before this one began.
        let left = |m: usize| m != n && !taken.contains(&m);
        let early = (0..history.len()).any(|m| left(m) && history[m].till < history[n].from);
        if taken.contains(&n) || early {
            return false;
        }
        let effect = match (history[n].call, history[n].outcome) {
            (Call::Put(value), _) => Effect::Write(value),
            (Call::Swap { expected: Expected::Value(old), new }, Outcome::Written { .. }) => Effect::Swap(old, new),
            (_, Outcome::Read { found, .. }) => Effect::Read(found.map(|c| c.value)),
            other => panic!("not generated: {other:?}"),
        };
        after(content, effect).is_some_and(|content| {
            taken.push(n);
            let found = exists_order(history, taken, content);
            taken.pop();
            found
        })
    })
}

fn small_history(rng: &mut Rng) -> Vec<Operation> {
    let count = 2 + rng.below(5);
    let one = |rng: &mut Rng, value| {
        let from = rng.below(12);
        let till = from + rng.below(6);
        match rng.below(3) {
            0 => put(value, from, till),
            1 => swap(rng.below(count), value, from, till),
            _ => get(rng.below(count + 1), from, till),
        }
    };
    let history: Vec<Operation> = (1..=count).map(|value| one(rng, value)).collect();
    history
        .into_iter()
        .filter(|o| !matches!(o.call, Call::Swap { expected, new } if expected == Expected::Value(Some(new))))
        .collect()
}

#[test]
fn small_histories_are_judged_as_a_search_of_all_orders_judges_them() {
    let mut rng = Rng::new(7);
    let mut counts = [0, 0];
    for round in 0..20_000 {
        let history = small_history(&mut rng);
        let expected = exists_order(&history, &mut Vec::new(), None);
        let found = ordered(&history);
        assert_eq!(found.is_ok(), expected, "round {round}: {history:#?}\n{found:?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|n| *n > 1000), "both sorts were there: {counts:?}");
}
