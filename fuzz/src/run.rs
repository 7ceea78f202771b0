//! One target, again and again, until its budget is used up.

use crate::meter::Measure;
use crate::{Mutator, REGRESSIONS, Target};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// Memory that a run may take: something for the world around the decoder (a simulated disk, a member, a store), and some
/// times its input.
const WORLD_BYTES: usize = 48 << 20;
const BYTES_PER_BYTE: usize = 256;
/// What takes longer is taken for a hang. Far beyond the slowest, on a machine that is busy.
const HANG: Duration = Duration::from_secs(60);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    Rounds(u64),
    Time(Duration),
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    /// Inputs that were understood.
    pub understood: u64,
    /// Most bytes that one input took (zero without [`crate::Meter`]).
    pub bytes: usize,
    /// The longest that one input took.
    pub longest: Duration,
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics of all threads from here on: those of a runtime's tasks reach nobody. Their texts go to `told`.
pub fn count_panics(told: impl Write + Send + 'static) {
    let told = Mutex::new(told);
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Relaxed);
        if let Ok(mut told) = told.lock() {
            // The panic is counted, told or not.
            let _ = writeln!(told, "{info}\n{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}

/// Runs a target on its corpus, on what once was a bug, and on mutations.
///
/// # Errors
/// Target, seed, round and input of a run that did what none may.
pub fn fuzz(target: &'static Target, seed: u64, budget: Budget) -> Result<Tally, String> {
    let corpus = (target.corpus)();
    let mut work = Work { target, tally: Tally::default(), watchdog: Watchdog::start() };
    for (n, input) in corpus.iter().enumerate() {
        let understood = work.once(input).map_err(|e| format!("{}: corpus {n}: {e}", target.name))?;
        if !understood {
            return Err(format!("{}: corpus {n} is not understood: {}", target.name, hex(input)));
        }
    }
    for input in REGRESSIONS.iter().filter(|(of, _)| *of == target.name).map(|(_, input)| *input) {
        work.once(input).map_err(|e| format!("{}: a regression: {e}", target.name))?;
    }
    let mut mutator = Mutator::new(seed);
    let begin = Instant::now();
    let goes_on = |rounds| match budget {
        Budget::Rounds(limit) => rounds < limit,
        Budget::Time(limit) => begin.elapsed() < limit,
    };
    while goes_on(work.tally.rounds) {
        let mut input = mutator.next(&corpus, target.shape);
        if let Some(mend) = target.mend.filter(|_| mutator.coin()) {
            mend(&mut input);
        }
        let round = work.tally.rounds;
        let understood = work
            .once(&input)
            .map_err(|e| format!("{}: seed {seed}, round {round}: {e}: {}", target.name, hex(&input)))?;
        work.tally.rounds += 1;
        work.tally.understood += u64::from(understood);
    }
    Ok(work.tally)
}

struct Work {
    target: &'static Target,
    tally: Tally,
    watchdog: Watchdog,
}

impl Work {
    fn once(&mut self, input: &[u8]) -> Result<bool, String> {
        let (begin, panics) = (Instant::now(), PANICS.load(Relaxed));
        self.watchdog.watch(self.target.name, input);
        let measure = Measure::begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        let bytes = measure.bytes();
        self.tally.bytes = self.tally.bytes.max(bytes);
        self.tally.longest = self.tally.longest.max(begin.elapsed());
        let understood = outcome.map_err(|_| "panicked".to_owned())?;
        if PANICS.load(Relaxed) != panics {
            return Err("panicked on another thread".into());
        }
        let limit = WORLD_BYTES + BYTES_PER_BYTE * input.len();
        match bytes > limit {
            true => Err(format!("took {bytes} bytes, more than {limit}")),
            false => Ok(understood),
        }
    }
}

/// The whole of a small input, the beginning of a large one; the seed and the round make it again.
fn hex(input: &[u8]) -> String {
    let shown: String = input.iter().take(8192).map(|b| format!("{b:02x}")).collect();
    format!("{} bytes {shown}", input.len())
}

/// Ends the process, with the input told, when a run does not end.
struct Watchdog(mpsc::Sender<(&'static str, Vec<u8>)>);

impl Watchdog {
    fn start() -> Watchdog {
        let (sender, begun) = mpsc::channel::<(&'static str, Vec<u8>)>();
        std::thread::spawn(move || {
            let Ok(mut last) = begun.recv() else { return };
            loop {
                match begun.recv_timeout(HANG) {
                    Ok(next) => last = next,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // By way of the hook: standard output may lead nowhere.
                        let _ = catch_unwind(|| panic!("{}: hangs for {HANG:?}: {}", last.0, hex(&last.1)));
                        std::process::exit(2);
                    }
                }
            }
        });
        Watchdog(sender)
    }

    fn watch(&self, name: &'static str, input: &[u8]) {
        // The thread ends only with this end of the channel.
        let _ = self.0.send((name, input.to_vec()));
    }
}
