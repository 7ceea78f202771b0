//! The shortest story: when a seed fails, its world is made simpler and its life shorter for as long as the same check fails.
//!
//! Any change makes a seed another life. So a simpler world is tried with a few lives: with the seed that failed first, then
//! with others. What is found is a world of the first seed, bent, and a life in it, and is written as one line that runs again.

use super::plan::{FAULTS, Fault, Plan};
use super::{Tail, Trace, run_traced};
use crate::rng::Rng;
use std::cell::RefCell;
use std::rc::Rc;

/// Lives that a simpler world is tried with.
const LIVES: u64 = 4;

/// One way in which a world is simpler than the seed drew it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bend {
    Asks(u64),
    Members(u64),
    Without(Fault),
    /// What its name says; see [`PLAIN`].
    Plain(&'static str),
}

/// A change of a plan, by its name.
type Plainer = (&'static str, fn(&mut Plan));

const PLAIN: [Plainer; 14] = [
    ("same-members", |plan| plan.reconfigure = false),
    ("room-for-changes", |plan| plan.unwritten_bytes = usize::MAX),
    ("leaders-stay", |plan| plan.move_leader = false),
    ("no-defragment", |plan| plan.defragments = 0),
    ("no-images", |plan| plan.images = 0),
    ("nothing-lost", |plan| (plan.lost, plan.doubled) = (0, 0)),
    ("in-order", |plan| plan.reorder = false),
    ("clocks-agree", |plan| plan.drift_ppm = 0),
    ("time-of-day-known", |plan| plan.time_of_day_off_ms = 0),
    ("no-watches", |plan| plan.streams = 0),
    ("small-values", |plan| plan.big_values = false),
    ("no-quota", |plan| plan.quota = 0),
    ("fast-links", |plan| plan.delay_us = (50, 200)),
    ("fast-disks", |plan| (plan.sync_us, plan.job_delay_us) = ((50, 300), 10_000)),
];

impl Bend {
    fn apply(&self, plan: &mut Plan) {
        match self {
            Bend::Asks(asks) => plan.asks = *asks,
            Bend::Members(members) => plan.members = *members,
            Bend::Without(fault) => plan.faults.retain(|kept| kept != fault),
            Bend::Plain(name) => {
                if let Some((_, change)) = PLAIN.iter().find(|(known, _)| known == name) {
                    change(plan);
                }
            }
        }
    }

    fn parse(text: &str) -> Result<Bend, String> {
        let number = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
        if let Some(asks) = text.strip_prefix("asks=") {
            return Ok(Bend::Asks(number(asks)?));
        }
        if let Some(members) = text.strip_prefix("members=") {
            return Ok(Bend::Members(number(members)?));
        }
        if let Some(fault) = text.strip_prefix("without=") {
            let known = FAULTS.into_iter().find(|known| format!("{known:?}") == fault);
            return known.map(Bend::Without).ok_or(format!("there is no fault {fault}"));
        }
        let known = PLAIN.iter().find(|(name, _)| *name == text);
        known.map(|(name, _)| Bend::Plain(name)).ok_or(format!("{text} is no part of a story"))
    }
}

impl std::fmt::Display for Bend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bend::Asks(asks) => write!(f, "asks={asks}"),
            Bend::Members(members) => write!(f, "members={members}"),
            Bend::Without(fault) => write!(f, "without={fault:?}"),
            Bend::Plain(name) => f.write_str(name),
        }
    }
}

/// A world and a life in it. As text: `SEED LIFE BEND…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    seed: u64,
    life: u64,
    bends: Vec<Bend>,
}

impl std::str::FromStr for Story {
    type Err = String;

    fn from_str(text: &str) -> Result<Story, String> {
        let mut words = text.split_whitespace();
        let mut number = |what: &str| {
            let word = words.next().ok_or(format!("a story begins with {what}"))?;
            word.parse().map_err(|e| format!("{word}: {e}"))
        };
        let (seed, life) = (number("its seed")?, number("its seed and its life")?);
        Ok(Story { seed, life, bends: words.map(Bend::parse).collect::<Result<_, _>>()? })
    }
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.seed, self.life)?;
        self.bends.iter().try_for_each(|bend| write!(f, " {bend}"))
    }
}

/// How a story went.
struct Told {
    why: String,
    said: u64,
    now_us: u64,
    lines: Vec<String>,
}

impl Story {
    /// A seed as it is.
    fn of(seed: u64) -> Story {
        Story { seed, life: seed, bends: Vec::new() }
    }

    /// The world as this story has it.
    fn plan(&self) -> Plan {
        let mut plan = Plan::draw(&mut Rng::new(self.seed ^ super::world::SALT));
        self.bends.iter().for_each(|bend| bend.apply(&mut plan));
        plan
    }

    /// Runs it, and prints what happens if that is wanted.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn run(&self, verbose: bool) -> Result<super::Report, String> {
        run_traced(self.life, Trace::new(verbose, Rc::default()), |plan| *plan = self.plan())
    }

    /// Runs it; keeps the last lines. `None`: nothing went wrong.
    fn tell(&self, keep: usize) -> Option<Told> {
        let tail = Rc::new(RefCell::new(Tail { keep, ..Tail::default() }));
        let why = run_traced(self.life, Trace::new(false, tail.clone()), |plan| *plan = self.plan()).err()?;
        let tail = std::mem::take(&mut *tail.borrow_mut());
        Some(Told { why, said: tail.said, now_us: tail.now_us, lines: tail.lines.into() })
    }
}

/// What was found.
#[derive(Debug)]
pub struct Shortened {
    pub story: Story,
    /// What goes wrong in it.
    pub why: String,
    /// Lines of the seed's own story, and of this one; and how long both last, simulated.
    pub lines: (u64, u64),
    pub us: (u64, u64),
    /// The end of it.
    pub last: Vec<String>,
}

/// Looks for a shorter story than the seed's, until `enough` says that it has looked for long enough. `None` when the seed
/// does not fail.
pub fn shorten(seed: u64, keep: usize, mut enough: impl FnMut() -> bool) -> Option<Shortened> {
    let mut best = Story::of(seed);
    let first = best.tell(0)?;
    let check = check_of(&first.why);
    let mut said = first.said;
    let mut better = true;
    while std::mem::take(&mut better) {
        for bend in candidates(&best.plan(), &best.bends) {
            for life in lives(best.life) {
                if enough() {
                    return end(best, keep, &first);
                }
                let tried = Story { life, ..bent(&best, &bend) };
                let told = tried.tell(0).filter(|told| told.said < said && check_of(&told.why) == check);
                if let Some(told) = told {
                    (best, said, better) = (tried, told.said, true);
                    break;
                }
            }
        }
    }
    end(best, keep, &first)
}

fn end(story: Story, keep: usize, first: &Told) -> Option<Shortened> {
    let told = story.tell(keep)?;
    Some(Shortened {
        story,
        why: told.why,
        lines: (first.said, told.said),
        us: (first.now_us, told.now_us),
        last: told.lines,
    })
}

/// The life that is known to fail, then others.
fn lives(first: u64) -> impl Iterator<Item = u64> {
    (0..LIVES).map(move |n| first.wrapping_add(n * 1_000_003))
}

/// The story with one more bend; a number takes the place of the one before.
fn bent(story: &Story, bend: &Bend) -> Story {
    let kind = std::mem::discriminant(bend);
    let replaced = matches!(bend, Bend::Asks(_) | Bend::Members(_));
    let mut bends = story.bends.clone();
    bends.retain(|old| !replaced || std::mem::discriminant(old) != kind);
    bends.push(bend.clone());
    Story { bends, ..story.clone() }
}

/// What would make the world simpler, the most promising first.
fn candidates(plan: &Plan, bends: &[Bend]) -> Vec<Bend> {
    let asks = [plan.asks / 8, plan.asks / 2, plan.asks * 3 / 4].into_iter().filter(|n| *n > 0).map(Bend::Asks);
    let members = [1, 3].into_iter().filter(|n| *n < plan.members).map(Bend::Members);
    let faults = plan.faults.iter().map(|fault| Bend::Without(*fault));
    let plain = PLAIN.iter().map(|(name, _)| Bend::Plain(name));
    asks.chain(members).chain(faults).chain(plain).filter(|bend| !bends.contains(bend)).collect()
}

/// Which check an error is of: its words without what differs from life to life.
fn check_of(why: &str) -> String {
    let differs = |word: &&str| word.contains(|c: char| c.is_ascii_digit());
    let words = why.split_whitespace().filter(|word| !differs(word));
    words.take(5).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_read_as_it_is_written() {
        let text = "42 1000045 asks=31 members=3 without=Kill in-order";
        let story: Story = text.parse().unwrap();
        assert_eq!(story.to_string(), text);
        let plan = story.plan();
        assert_eq!((plan.asks, plan.members, plan.reorder), (31, 3, false));
        assert!(!plan.faults.contains(&Fault::Kill));
        for bad in ["", "42", "x 1", "1 1 asks=x", "1 1 without=Rain", "1 1 loud"] {
            assert!(bad.parse::<Story>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_as_it_is_is_its_own_story() {
        assert_eq!(Story::of(7).run(false), super::super::run(7, false));
        assert!(shorten(7, 0, || false).is_none(), "it does not fail");
    }

    #[test]
    fn checks_are_told_apart_by_their_words() {
        let (a, b) = ("5f1d: entry 41 was applied twice", "77aa1: entry 9 was applied twice");
        assert_eq!(check_of(a), check_of(b));
        assert_ne!(check_of(a), check_of("entry 41 is lost"));
    }
}
