//! Who holds memory: jemalloc samples an allocation of each 512 KiB or so and remembers its stack, once [`start`] has asked
//! it to. It has to be built and started for that (`.cargo/config.toml`: `prof:true,prof_active:false,prof_accum:true`).

use crate::format::Profile;
use crate::symbols::Symbols;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use tikv_jemalloc_ctl::{profiling, raw};

/// Why there is no such profile.
const NOT_BUILT: &str = "this build has no heap profiles: jemalloc was built or started without prof:true";

/// What the stack of an allocation begins with: jemalloc's own work, of no interest.
const OWN: [&str; 3] = ["_rjem_", "prof_", "imalloc"];

/// A moment's memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heap {
    /// Bytes between two samples.
    interval: u64,
    places: Vec<Place>,
}

/// What was allocated in one place of the program; as sampled, so estimates.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    /// Addresses, the innermost first.
    stack: Vec<usize>,
    held: Amount,
    /// Since sampling began.
    allocated: Amount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amount {
    objects: f64,
    bytes: f64,
}

/// Which figures tools show first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Go's `heap`.
    Held,
    /// Go's `allocs`.
    Allocated,
}

/// Samples from now on; costs little.
///
/// # Errors
/// jemalloc was not built for it.
pub fn start() -> Result<(), String> {
    if !is_built() {
        return Err(NOT_BUILT.to_owned());
    }
    // SAFETY: `prof.active` is a bool of jemalloc's (its manual, "prof.active (bool) rw").
    unsafe { raw::write(b"prof.active\0", true) }.map_err(|e| format!("jemalloc does not sample: {e}"))
}

fn is_built() -> bool {
    // Where it is not the program's allocator it answers all the same, but was never asked for anything.
    profiling::prof::read().unwrap_or(false)
}

impl Heap {
    /// What is held now.
    ///
    /// # Errors
    /// Nothing is sampled, or jemalloc can't say.
    pub fn now() -> Result<Heap, String> {
        if !is_built() {
            return Err(NOT_BUILT.to_owned());
        }
        let failed = |e: std::io::Error| format!("no memory for a profile: {e}");
        // jemalloc writes to files only.
        let memory = memfd_create("heap", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let path = CString::new(format!("/proc/self/fd/{}", memory.as_raw_fd())).map_err(|e| e.to_string())?;
        // SAFETY: `prof.dump` takes a pointer to a C string (its manual, "prof.dump (const char *) -w"); `path` is one
        // and lives until the call has returned.
        let dumped = unsafe { raw::write(b"prof.dump\0", path.as_ptr()) };
        dumped.map_err(|e| format!("jemalloc tells nothing: {e}"))?;
        let mut text = String::new();
        let mut file = File::from(memory);
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(failed)?;
        Heap::of(&text).ok_or_else(|| "jemalloc's profile has an unknown form".to_owned())
    }

    /// `heap_v2/INTERVAL`, then for each place `@ ADDRESS …` and lines of figures, of which `t*` is that of all threads:
    /// `objects: bytes [objects: bytes]`, held and ever allocated.
    fn of(text: &str) -> Option<Heap> {
        let (head, rest) = text.split_once('\n')?;
        let interval = head.strip_prefix("heap_v2/")?.parse().ok()?;
        let rest = rest.split("\nMAPPED_LIBRARIES:").next()?;
        let place = |text: &str| {
            let mut lines = text.lines();
            let stack = lines.next()?.split_whitespace();
            let address = |word: &str| usize::from_str_radix(word.strip_prefix("0x")?, 16).ok();
            let figures = lines.find_map(|line| line.trim().strip_prefix("t*:"))?;
            let mut numbers = figures.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
            let mut amount = || Some(Amount::of(numbers.next()?, numbers.next()?, interval));
            Some(Place { stack: stack.map(address).collect::<Option<_>>()?, held: amount()?, allocated: amount()? })
        };
        let places = rest.split("\n@ ").skip(1).map(place).collect::<Option<_>>()?;
        Some(Heap { interval, places })
    }

    /// How many places of the program are known.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The profile.
    pub fn profile(&self, first: First) -> Profile {
        let types = [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ];
        let shown = if first == First::Held { "inuse_space" } else { "alloc_space" };
        let period = i64::try_from(self.interval).unwrap_or(i64::MAX);
        let mut profile = Profile::new(&types).with_period(("space", "bytes"), period).showing(shown);
        let mut symbols = Symbols::default();
        for Place { stack, held, allocated } in &self.places {
            let frames: Vec<_> = stack.iter().map(|address| symbols.frame(*address).clone()).collect();
            let own = frames.iter().take_while(|frame| is_own(&frame.0[0].name)).count();
            let values = [allocated.objects, allocated.bytes, held.objects, held.bytes].map(|n| n.round() as i64);
            profile.add(&frames[own..], &values, &[]);
        }
        profile
    }

    /// The same to be read, in the old form that pprof's tools know, too.
    pub fn text(&self) -> String {
        let sum = |amount: fn(&Place) -> Amount| {
            self.places.iter().map(amount).fold(Amount::default(), |sum, next| Amount {
                objects: sum.objects + next.objects,
                bytes: sum.bytes + next.bytes,
            })
        };
        let shown = |held: Amount, allocated: Amount| {
            format!("{:.0}: {:.0} [{:.0}: {:.0}]", held.objects, held.bytes, allocated.objects, allocated.bytes)
        };
        // An interval of 1: the figures are estimates of all allocations already.
        let mut out =
            format!("heap profile: {} @ heap/1\n", shown(sum(|place| place.held), sum(|place| place.allocated)));
        let mut symbols = Symbols::default();
        for Place { stack, held, allocated } in &self.places {
            let addresses: String = stack.iter().map(|address| format!(" {address:#x}")).collect();
            // Writing to a String can't fail.
            let _ = writeln!(out, "{} @{addresses}", shown(*held, *allocated));
            for address in stack {
                for call in &symbols.frame(*address).0 {
                    let _ = writeln!(out, "#\t{address:#x}\t{}\t{}:{}", call.name, call.file, call.line);
                }
            }
            out.push('\n');
        }
        out
    }
}

fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.starts_with(own))
}

impl Amount {
    /// What samples stand for: one of `bytes / objects` bytes is taken with probability `1 - exp(-size / interval)`.
    fn of(objects: u64, bytes: u64, interval: u64) -> Amount {
        if objects == 0 || interval == 0 {
            return Amount::default();
        }
        let (objects, bytes) = (objects as f64, bytes as f64);
        let scale = 1.0 / (1.0 - (-(bytes / objects) / interval as f64).exp());
        Amount { objects: objects * scale, bytes: bytes * scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jemallocs_profile_is_read() {
        let text = "heap_v2/524288\n  t*: 3: 1049088 [4: 1573376]\n  t0: 0: 0 [0: 0]\n@ 0x10 0x20\n  \
                    t*: 1: 512 [2: 524800]\n  t0: 1: 512 [2: 524800]\n@ 0x30\n  t*: 2: 1048576 [2: 1048576]\n\n\
                    MAPPED_LIBRARIES:\n@ 55-66 r--p\n";
        let heap = Heap::of(text).unwrap();
        assert_eq!((heap.interval, heap.places()), (524_288, 2));
        assert_eq!(heap.places[0].stack, [0x10, 0x20]);
        // One in 1024 or so of such small ones is seen.
        assert!((heap.places[0].held.objects - 1024.5).abs() < 0.1, "{heap:?}");
        // Two of 512 KiB: two thirds of them are seen.
        assert!((heap.places[1].held.objects - 3.16).abs() < 0.01, "{heap:?}");
        assert_eq!(Heap::of("heap profile: 1: 2 [1: 2] @ heap/1"), None);
        assert_eq!(Heap::of("heap_v2/1\n t*: 0: 0 [0: 0]\n@ x\n t*: 1: 1 [1: 1]\n"), None);
    }
}
