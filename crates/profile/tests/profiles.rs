//! Profiles of this very program: one that computes and one that holds memory find themselves in them.

use profile::cpu::Sampling;
use profile::heap::{self, First, Heap};
use prost::Message;
use std::hint::black_box;
use std::io::Read as _;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The strings of a profile: names of functions and threads among them.
#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
}

fn strings(packed: &[u8]) -> Vec<String> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).expect("it is gzipped");
    Strings::decode(&plain[..]).expect("it is a profile").strings
}

#[inline(never)]
fn the_work_to_be_found(for_ms: u128) -> u64 {
    let begun = Instant::now();
    let mut sum = 0_u64;
    while begun.elapsed().as_millis() < for_ms {
        sum = (0..10_000).fold(sum, |sum, n| black_box(sum.wrapping_mul(31).wrapping_add(n)));
    }
    sum
}

#[test]
fn who_computes_is_in_the_profile_of_processors() {
    // Until a sample fell into it, however busy the machine is.
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let sampling = Sampling::start().expect("nobody else samples");
        assert_eq!(Sampling::start().unwrap_err(), "cpu profiling already in use");
        let worker = std::thread::Builder::new().name("worker".into()).spawn(|| the_work_to_be_found(300));
        black_box(worker.expect("a thread").join().expect("it ends"));
        let found = strings(&sampling.finish().expect("it was measured").into_profile().into_bytes());
        let has = |text: &str| found.iter().any(|found| found.contains(text));
        if has("the_work_to_be_found") && has("worker") {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
}

#[inline(never)]
fn the_memory_to_be_found() -> Vec<Vec<u8>> {
    (0..64).map(|n| vec![n; 1 << 20]).collect()
}

#[test]
fn who_holds_memory_is_in_the_profile_of_the_heap() {
    heap::start().expect("jemalloc was built and started for it: see .cargo/config.toml");
    let held = black_box(the_memory_to_be_found());
    let heap = Heap::now().expect("jemalloc tells");
    assert!(heap.places() > 0);
    let found = strings(&heap.profile(First::Held).into_bytes());
    assert!(found.iter().any(|name| name.contains("the_memory_to_be_found")), "{found:?}");
    assert!(found.iter().any(|name| name == "inuse_space"));
    let text = heap.text();
    assert!(text.starts_with("heap profile: ") && text.contains("the_memory_to_be_found"), "{text}");
    drop(held);
}
