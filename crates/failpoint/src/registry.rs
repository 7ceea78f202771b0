//! The names and what each is set to.
//!
//! Locks, in order: `quiet` (a request is being answered; a panic waits for it) → a slot → the slot's terms → `dice`.
//! As in gofail the terms stay locked while their action runs: others that hit the same name wait out a sleep.

use crate::act;
use crate::names::{Kind, Point};
use crate::term::{Terms, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Why a name could not be set or asked for; the texts are gofail's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Unknown,
    Disabled,
    BadTerm,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Unknown => "failpoint: failpoint does not exist",
            Refusal::Disabled => "failpoint: failpoint is disabled",
            Refusal::BadTerm => "failpoint: could not parse terms",
        })
    }
}

/// All failpoints of a process.
pub struct Registry {
    slots: BTreeMap<&'static str, Slot>,
    dice: Mutex<u64>,
    quiet: Mutex<()>,
}

struct Slot {
    point: &'static Point,
    armed: RwLock<Option<Arc<Armed>>>,
}

struct Armed {
    text: String,
    /// Evaluations in which a term was allowed, `off` too.
    count: AtomicU64,
    terms: Mutex<Terms>,
}

impl Registry {
    /// All names off; `seed` decides what percentages throw.
    pub fn new(points: &'static [Point], seed: u64) -> Registry {
        let slots = points.iter().map(|point| (point.name, Slot { point, armed: RwLock::new(None) })).collect();
        Registry { slots, dice: Mutex::new(seed), quiet: Mutex::new(()) }
    }

    /// A name stands alone, as gofail has it since 0.1.0, or behind its Go package's path, as before.
    fn slot(&self, name: &str) -> Result<&Slot, Refusal> {
        let (package, bare) = name.rsplit_once('/').map_or((None, name), |(package, bare)| (Some(package), bare));
        let slot = self.slots.get(bare).ok_or(Refusal::Unknown)?;
        if package.is_none_or(|p| p == slot.point.package) { Ok(slot) } else { Err(Refusal::Unknown) }
    }

    /// Sets a name to a term; its count begins anew.
    pub fn enable(&self, name: &str, text: &str) -> Result<(), Refusal> {
        let slot = self.slot(name)?;
        let Some(terms) = Terms::parse(text) else {
            act::say(format_args!("failed to enable \"{name}={text}\" ({})", Refusal::BadTerm));
            return Err(Refusal::BadTerm);
        };
        let armed = Armed { text: text.to_owned(), count: AtomicU64::new(0), terms: Mutex::new(terms) };
        *slot.armed.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(armed));
        Ok(())
    }

    /// Turns a name off. An evaluation that is under way goes on.
    pub fn disable(&self, name: &str) -> Result<(), Refusal> {
        let mut armed = self.slot(name)?.armed.write().unwrap_or_else(PoisonError::into_inner);
        armed.take().map(drop).ok_or(Refusal::Disabled)
    }

    /// A name's term and count.
    pub fn status(&self, name: &str) -> Result<(String, u64), Refusal> {
        let armed = self.slot(name)?.armed().ok_or(Refusal::Disabled)?;
        Ok((armed.text.clone(), armed.count.load(Ordering::Relaxed)))
    }

    /// `name=term` lines of all names in order; the term is empty when the name is off.
    pub fn listing(&self) -> String {
        let line = |(name, slot): (&&str, &Slot)| {
            let text = slot.armed().map(|a| a.text.clone()).unwrap_or_default();
            format!("{name}={text}\n")
        };
        self.slots.iter().map(line).collect()
    }

    /// The code reached the name: does what it is set to. Answers the value of a `return` of the name's kind.
    pub fn hit(&self, name: &str) -> Option<Value> {
        let slot = self.slot(name).ok()?;
        let armed = slot.armed()?;
        let mut terms = armed.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let action = terms.evaluate(&mut || self.throw())?;
        armed.count.fetch_add(1, Ordering::Relaxed);
        let value = act::perform(self, slot.point, action)?;
        match (slot.point.kind, &value) {
            (Kind::Unit, Value::Unit) | (Kind::Text, Value::Text(_)) => Some(value),
            (kind, other) => {
                act::say_bad_type(name, other, kind);
                None
            }
        }
    }

    /// While it is held no failpoint ends the process.
    pub fn quiet(&self) -> MutexGuard<'_, ()> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From 0 up to 1 (splitmix64).
    fn throw(&self) -> f64 {
        let mut state = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Slot {
    fn armed(&self) -> Option<Arc<Armed>> {
        self.armed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Splits `name=term;name=term`; a later setting of a name wins.
///
/// # Errors
/// gofail's text. A term can hold neither `;` nor `=`, not even inside quotes.
pub fn split_settings(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut settings = BTreeMap::new();
    for setting in text.split(';').filter(|s| !s.is_empty()) {
        let parts = setting.split_once('=').filter(|(_, term)| !term.contains('='));
        let (name, term) = parts.ok_or_else(|| format!("bad failpoint {setting:?}"))?;
        settings.insert(name, term);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    static POINTS: [Point; 2] = [
        Point { package: "go/pkg", name: "unit", kind: Kind::Unit },
        Point { package: "go/pkg", name: "text", kind: Kind::Text },
    ];

    fn registry() -> Registry {
        Registry::new(&POINTS, 7)
    }

    #[test]
    fn a_name_is_known_alone_and_behind_its_package() {
        let r = registry();
        assert_eq!(r.enable("unit", "off"), Ok(()));
        assert_eq!(r.enable("go/pkg/unit", "print"), Ok(()));
        assert_eq!(r.status("unit"), Ok(("print".into(), 0)));
        for unknown in ["", "none", "pkg/unit", "go/pkg/none", "/unit", "unit/"] {
            assert_eq!(r.enable(unknown, "off"), Err(Refusal::Unknown), "{unknown}");
        }
    }

    #[test]
    fn setting_counting_and_turning_off() {
        let r = registry();
        assert_eq!(r.status("unit"), Err(Refusal::Disabled));
        assert_eq!(r.disable("unit"), Err(Refusal::Disabled));
        assert_eq!(r.hit("unit"), None);
        r.enable("unit", "2*return->1*off").expect("a term");
        let hits: Vec<_> = (0..4).map(|_| r.hit("unit")).collect();
        assert_eq!(hits, [Some(Value::Unit), Some(Value::Unit), None, None]);
        assert_eq!(r.status("unit"), Ok(("2*return->1*off".into(), 3)));
        assert_eq!(r.enable("unit", "nonsense"), Err(Refusal::BadTerm));
        assert_eq!(r.listing(), "text=\nunit=2*return->1*off\n");
        assert_eq!(r.enable("unit", "off"), Ok(()));
        assert_eq!(r.status("unit"), Ok(("off".into(), 0)));
        assert_eq!(r.disable("unit"), Ok(()));
        assert_eq!(r.listing(), "text=\nunit=\n");
    }

    #[test]
    fn only_a_value_of_the_names_kind_arrives() {
        let r = registry();
        for (name, term, expected) in [
            ("text", "return(\"no space\")", Some(Value::Text("no space".into()))),
            ("text", "return(1)", None),
            ("text", "return", None),
            ("unit", "return(\"x\")", None),
            ("unit", "return", Some(Value::Unit)),
            ("unit", "print", None),
        ] {
            r.enable(name, term).expect("a term");
            assert_eq!(r.hit(name), expected, "{name}={term}");
        }
    }

    #[test]
    fn a_sleep_takes_its_time_and_nonsense_none() {
        let r = registry();
        for (term, least_ms) in [("sleep(30)", 30), ("sleep(\"30ms\")", 30), ("sleep(\"x\")", 0), ("sleep", 0)] {
            r.enable("unit", term).expect("a term");
            let began = Instant::now();
            assert_eq!(r.hit("unit"), None);
            assert!(began.elapsed() >= Duration::from_millis(least_ms), "{term}");
        }
    }

    #[test]
    fn percentages_are_kept_and_repeat_with_the_seed() {
        let draw = || {
            let r = registry();
            r.enable("unit", "25%return").expect("a term");
            (0..4000).map(|_| r.hit("unit").is_some()).collect::<Vec<_>>()
        };
        let first = draw();
        assert_eq!(first, draw());
        let share = first.iter().filter(|h| **h).count();
        assert!((900..1100).contains(&share), "{share} of 4000");
    }

    #[test]
    fn settings_are_split_at_semicolons() {
        let split = |text| split_settings(text).map(|s| s.into_iter().collect::<Vec<_>>());
        assert_eq!(split("b=panic;;a=sleep(\"2s\");"), Ok(vec![("a", "sleep(\"2s\")"), ("b", "panic")]));
        assert_eq!(split(""), Ok(vec![]));
        assert_eq!(split("a=off;a=print"), Ok(vec![("a", "print")]));
        assert_eq!(split("a"), Err("bad failpoint \"a\"".into()));
        assert_eq!(split("a=b=c"), Err("bad failpoint \"a=b=c\"".into()));
    }
}
