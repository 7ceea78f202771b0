//! Could one store, doing one thing at a time, have given these answers?
//!
//! A history holds concurrent [`Operation`]s on registers. [`check`] judges each key by itself (linearizability is
//! local, Herlihy & Wing 1990) with a search after Wing & Gong as Lowe improved it: at each return the returning
//! operation must have taken effect in some order of those that were under way; what was reached is a set of
//! configurations (content, operations under way that already took effect), and equal ones are visited once.
//!
//! Each write has a value of its own. So an operation without an answer is settled before the search:
//! * somebody saw its value: it happened, after it was asked and before the first that saw it returned;
//! * nobody did: whether it happened changes no answer, and it is left out. (A refused swap reports what it found, so it
//!   is a read; between a write that nobody saw and the next write there is no read.)
//!
//! etcd's revisions say more than answers do, and [`check`] uses them: a value has one revision (else a write was
//! applied twice), a revision one write, and what began after another ended has no lower revision, over all keys.
//! [`check_log`] compares a history with the events that the store kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// What a client asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Get,
    /// Writes a value that no other write of the history has.
    Put(u64),
    /// Writes if the key is as expected, else reads.
    Swap {
        expected: Expected,
        new: u64,
    },
}

/// What a swap compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The value; a key that is not there holds none.
    Value(Option<u64>),
    /// The modification revision; 0: not there.
    Revision(i64),
}

/// A key's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub value: u64,
    pub revision: i64,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer, or an error that leaves it open: never, or once at any later time.
    Unknown,
    /// A put, or a swap that found what it expected.
    Written { revision: i64 },
    /// A get, or a swap that did not; `revision` is the store's.
    Read { found: Option<Content>, revision: i64 },
}

/// A call on a key, and what came of it. Times are of one clock, from before the request to after the answer.
#[derive(Clone, Debug)]
pub struct Operation {
    pub key: String,
    pub call: Call,
    pub from: u64,
    pub till: u64,
    pub outcome: Outcome,
}

impl Operation {
    fn writes(&self) -> Option<u64> {
        match self.call {
            Call::Get => None,
            Call::Put(value) | Call::Swap { new: value, .. } => Some(value),
        }
    }
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub operations: usize,
    /// Writes that were acknowledged.
    pub written: usize,
    /// Operations without an answer, and how many of these happened.
    pub unknown: usize,
    pub unknown_seen: usize,
}

/// Judges a history.
///
/// # Errors
/// What no store can have answered.
pub fn check(history: &[Operation]) -> Result<Judged, String> {
    check_order(history)?;
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut judged = Judged { operations: history.len(), ..Judged::default() };
    let mut writers = BTreeMap::new();
    for (key, operations) in keys {
        let register = Register::new(&operations).map_err(|e| format!("key {key}: {e}"))?;
        for (value, revision) in &register.revisions {
            if let Some(other) = writers.insert(*revision, *value) {
                return Err(format!("key {key}: revision {revision} is of value {value} and of {other}"));
            }
        }
        judged.unknown_seen += register.unknown_seen;
        search(&register.steps).map_err(|e| format!("key {key}: {e}"))?;
    }
    judged.written = history.iter().filter(|o| matches!(o.outcome, Outcome::Written { .. })).count();
    judged.unknown = history.iter().filter(|o| o.outcome == Outcome::Unknown).count();
    Ok(judged)
}

/// Compares the acknowledged writes with all events of the store: `(revision, key, value)`.
///
/// # Errors
/// A write that is lost, and an event that nobody asked for or that happened twice.
pub fn check_log(history: &[Operation], events: &[(i64, String, u64)]) -> Result<(), String> {
    let asked: BTreeSet<(&str, u64)> =
        history.iter().filter_map(|o| o.writes().map(|value| (o.key.as_str(), value))).collect();
    let mut happened = BTreeMap::new();
    for (revision, key, value) in events {
        if !asked.contains(&(key.as_str(), *value)) {
            return Err(format!("nobody asked for {key} = {value} of revision {revision}"));
        }
        if let Some(before) = happened.insert((key.as_str(), *value), *revision) {
            return Err(format!("{key} = {value} happened at {before} and at {revision}"));
        }
    }
    for operation in history {
        let (Outcome::Written { revision }, Some(value)) = (operation.outcome, operation.writes()) else { continue };
        let found = happened.get(&(operation.key.as_str(), value));
        if found != Some(&revision) {
            return Err(format!("an acknowledged write is lost (the store has it at {found:?}): {operation:?}"));
        }
    }
    Ok(())
}

/// Revisions follow real time, over all keys.
fn check_order(history: &[Operation]) -> Result<(), String> {
    let answered = || history.iter().filter(|o| o.outcome != Outcome::Unknown);
    let mut starts: Vec<_> = answered().collect();
    starts.sort_by_key(|o| o.from);
    let mut ends: Vec<_> = answered().collect();
    ends.sort_by_key(|o| o.till);
    let mut ends = ends.into_iter().peekable();
    // The newest that had been answered when the next one began.
    let mut newest: Option<(i64, &Operation)> = None;
    for operation in starts {
        while let Some(ended) = ends.next_if(|e| e.till < operation.from) {
            let revision = least(ended);
            if newest.is_none_or(|(n, _)| n < revision) {
                newest = Some((revision, ended));
            }
        }
        let Some((revision, before)) = newest else { continue };
        let behind = match operation.outcome {
            Outcome::Written { revision: own } => own <= revision,
            _ => least(operation) < revision,
        };
        if behind {
            return Err(format!("revisions go back: {operation:?} began after the end of {before:?}"));
        }
    }
    Ok(())
}

/// The store had reached this revision.
fn least(operation: &Operation) -> i64 {
    match operation.outcome {
        Outcome::Unknown => 0,
        Outcome::Written { revision } => revision,
        Outcome::Read { found, revision } => revision.max(found.map_or(0, |content| content.revision)),
    }
}

/// What a step does to a register.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Read(Option<u64>),
    Write(u64),
    /// From, to.
    Swap(Option<u64>, u64),
}

/// An operation that happened, with its effect for certain.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    effect: Effect,
    till: u64,
    of: &'a Operation,
}

/// All that happened to one key.
struct Register<'a> {
    /// Value → its revision, where anybody knows it.
    revisions: BTreeMap<u64, i64>,
    steps: Vec<Step<'a>>,
    /// Value → when the first that saw it returned.
    seen: BTreeMap<u64, u64>,
    unknown_seen: usize,
}

impl<'a> Register<'a> {
    fn new(operations: &[&'a Operation]) -> Result<Register<'a>, String> {
        let mut register = Register {
            revisions: known_revisions(operations)?,
            steps: Vec::new(),
            seen: BTreeMap::new(),
            unknown_seen: 0,
        };
        let (answered, mut open): (Vec<_>, Vec<_>) =
            operations.iter().copied().partition(|o| o.outcome != Outcome::Unknown);
        for operation in answered {
            register.take(operation, operation.till)?;
        }
        // One that was seen may itself have seen another.
        while let Some((at, till)) = register.first_seen(&open) {
            register.take(open.swap_remove(at), till)?;
            register.unknown_seen += 1;
        }
        register.all_were_asked(operations)?;
        Ok(register)
    }

    fn take(&mut self, of: &'a Operation, till: u64) -> Result<(), String> {
        let effect = match (of.call, of.outcome) {
            (Call::Get | Call::Swap { .. }, Outcome::Read { found, .. }) => Effect::Read(found.map(|c| c.value)),
            (Call::Put(value), Outcome::Written { .. } | Outcome::Unknown) => Effect::Write(value),
            (Call::Swap { expected, new }, Outcome::Written { .. } | Outcome::Unknown) => {
                Effect::Swap(self.value_of(expected).ok_or_else(|| format!("who told of that revision? {of:?}"))?, new)
            }
            _ => return Err(format!("no answer to such a call: {of:?}")),
        };
        if let (Call::Swap { expected, .. }, Effect::Read(found)) = (of.call, effect)
            && self.value_of(expected) == Some(found)
        {
            return Err(format!("a swap was refused though it found what it expected: {of:?}"));
        }
        if let Effect::Read(Some(found)) | Effect::Swap(Some(found), _) = effect {
            let first = self.seen.entry(found).or_insert(till);
            *first = till.min(*first);
        }
        self.steps.push(Step { effect, till, of });
        Ok(())
    }

    fn value_of(&self, expected: Expected) -> Option<Option<u64>> {
        match expected {
            Expected::Value(value) => Some(value),
            Expected::Revision(0) => Some(None),
            Expected::Revision(revision) => {
                self.revisions.iter().find(|(_, r)| **r == revision).map(|(value, _)| Some(*value))
            }
        }
    }

    /// An open write that somebody saw, and when the first that saw it returned.
    fn first_seen(&self, open: &[&Operation]) -> Option<(usize, u64)> {
        open.iter().enumerate().find_map(|(at, o)| Some((at, *self.seen.get(&o.writes()?)?)))
    }

    fn all_were_asked(&self, operations: &[&Operation]) -> Result<(), String> {
        let asked: BTreeSet<u64> = operations.iter().filter_map(|o| o.writes()).collect();
        let odd = self.steps.iter().find(|step| match step.effect {
            Effect::Read(Some(found)) | Effect::Swap(Some(found), _) => !asked.contains(&found),
            _ => false,
        });
        odd.map_or(Ok(()), |step| Err(format!("nobody wrote what this found: {:?}", step.of)))
    }
}

/// One revision a value: a write that was applied twice shows here.
fn known_revisions(operations: &[&Operation]) -> Result<BTreeMap<u64, i64>, String> {
    let mut revisions = BTreeMap::new();
    let (mut writers, mut values) = (BTreeSet::new(), BTreeMap::new());
    for operation in operations {
        if operation.writes().is_some_and(|value| !writers.insert(value)) {
            return Err(format!("the test's own fault: two writes have one value: {operation:?}"));
        }
        let (value, revision) = match (operation.outcome, operation.writes()) {
            (Outcome::Written { revision }, Some(value)) => (value, revision),
            (Outcome::Read { found: Some(content), .. }, _) => (content.value, content.revision),
            _ => continue,
        };
        if *revisions.entry(value).or_insert(revision) != revision {
            return Err(format!("value {value} has revision {} too: {operation:?}", revisions[&value]));
        }
        if *values.entry(revision).or_insert(value) != value {
            return Err(format!("revision {revision} has value {} too: {operation:?}", values[&revision]));
        }
    }
    Ok(revisions)
}

/// A register's content, and which of the steps under way have taken effect.
type Configuration = (Option<u64>, BTreeSet<usize>);

/// Looks for an order that explains all steps.
fn search(steps: &[Step]) -> Result<(), String> {
    // Of two at the same instant the call comes first: they overlap.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
    for (n, step) in steps.iter().enumerate() {
        if step.till < step.of.from {
            return Err(format!("it was seen before it was asked for: {:?}", step.of));
        }
        events.extend([(step.of.from, false, n), (step.till, true, n)]);
    }
    events.sort_unstable();
    let mut open = BTreeSet::new();
    let mut reached: BTreeSet<Configuration> = [(None, BTreeSet::new())].into();
    for (_, returns, n) in events {
        if !returns {
            open.insert(n);
            continue;
        }
        let next = returned(steps, &open, &reached, n);
        if next.is_empty() {
            return Err(explain(steps, &open, &reached, n));
        }
        reached = next;
        open.remove(&n);
    }
    Ok(())
}

/// All configurations in which step `n` has taken effect.
fn returned(
    steps: &[Step],
    open: &BTreeSet<usize>,
    reached: &BTreeSet<Configuration>,
    n: usize,
) -> BTreeSet<Configuration> {
    let mut visited = reached.clone();
    let mut waiting: Vec<Configuration> = reached.iter().cloned().collect();
    let mut next = BTreeSet::new();
    while let Some((content, mut done)) = waiting.pop() {
        if done.remove(&n) {
            next.insert((content, done));
            continue;
        }
        for step in open.difference(&done) {
            let Some(content) = after(content, steps[*step].effect) else { continue };
            let mut done = done.clone();
            done.insert(*step);
            if visited.insert((content, done.clone())) {
                waiting.push((content, done));
            }
        }
    }
    next
}

/// The content after an effect, where it can have had it.
fn after(content: Option<u64>, effect: Effect) -> Option<Option<u64>> {
    match effect {
        Effect::Read(found) => (found == content).then_some(content),
        Effect::Write(value) => Some(Some(value)),
        Effect::Swap(from, to) => (from == content).then_some(Some(to)),
    }
}

fn explain(steps: &[Step], open: &BTreeSet<usize>, reached: &BTreeSet<Configuration>, n: usize) -> String {
    let contents: BTreeSet<_> = reached.iter().map(|(content, _)| *content).collect();
    let others: Vec<_> = open.iter().filter(|o| **o != n).map(|o| steps[*o].of).collect();
    let line = |d: &dyn Debug| format!("\n  {d:?}");
    let others: String = others.iter().map(|o| line(o)).collect();
    format!("no order explains {:?}\nthe key held one of {contents:?}; under way were {others}", steps[n].of)
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
