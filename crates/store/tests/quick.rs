//! Quick ranges: the same answer as any other range, or none.

mod world;

use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use disk::Fault;
use store::{Applied, Options};
use world::World;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn key(&mut self) -> Bytes {
        match self.below(12) {
            0 => Bytes::from_static(&[0]),
            _ => format!("{:03}", self.below(300)).into(),
        }
    }

    fn request(&mut self) -> pb::RangeRequest {
        let single = self.below(2) == 0;
        let mut sometimes = |n: u64| if self.below(4) == 0 { self.below(n) as i64 } else { 0 };
        pb::RangeRequest {
            limit: sometimes(40),
            revision: sometimes(900),
            sort_order: sometimes(3) as i32,
            sort_target: sometimes(5) as i32,
            keys_only: sometimes(2) != 0,
            count_only: sometimes(2) != 0,
            min_mod_revision: sometimes(900),
            max_create_revision: sometimes(900),
            key: self.key(),
            range_end: if single { Bytes::new() } else { self.key() },
            ..Default::default()
        }
    }
}

/// Read-only txns of random ranges; how many were answered quickly, each as [`Applied::read_txn`] answers it.
fn quick_txns(applied: &Applied, rng: &mut Rng) -> usize {
    let ranges = |rng: &mut Rng| -> Vec<pb::RequestOp> {
        let op = |rng: &mut Rng| pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(rng.request())) };
        (0..rng.below(3)).map(|_| op(rng)).collect()
    };
    let txns = std::iter::repeat_with(|| {
        let create = pb::compare::TargetUnion::CreateRevision(0);
        let compare = pb::Compare { key: rng.key(), target: 1, target_union: Some(create), ..Default::default() };
        pb::TxnRequest { compare: vec![compare], success: ranges(rng), failure: ranges(rng) }
    });
    let answered = |r: &pb::TxnRequest| match applied.quick_read_txn(r) {
        Some(quick) => {
            assert_eq!(quick.map_err(|e| e.to_string()), applied.read_txn(r).map_err(|e| e.to_string()), "{r:?}");
            true
        }
        None => false,
    };
    txns.take(1000).filter(answered).count()
}

/// Requests that were answered quickly; each as [`Applied::range`] answers it.
fn quick(applied: &Applied, rng: &mut Rng) -> Vec<pb::RangeRequest> {
    let requests = std::iter::repeat_with(|| rng.request()).take(3000);
    let answered = requests.filter(|r| match applied.quick_range(r) {
        Some(quick) => {
            assert_eq!(quick.map_err(|e| e.to_string()), applied.range(r).map_err(|e| e.to_string()), "{r:?}");
            true
        }
        None => false,
    });
    answered.collect()
}

fn history(options: Options) -> (World, Rng) {
    let (mut world, mut rng) = (World::new(options), Rng(88_172_645_463_325_252));
    for n in 0..800 {
        let key = format!("{:03}", rng.below(300));
        match rng.below(5) {
            0 => world.delete(&key).unwrap(),
            _ => world.put(&key, vec![b'v'; 100]).unwrap(),
        };
        if n == 300 {
            world.compact(200);
        }
    }
    (world, rng)
}

#[test]
fn a_quick_range_is_what_a_range_would_be() {
    let (mut world, mut rng) = history(Options { cache_bytes: 16 << 20, ..Options::default() });
    for stored in [false, true] {
        if stored {
            world.checkpoint();
        }
        let (applied, _) = world.publish();
        // Reads everything, so that the cache has it.
        let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        applied.range(&all).unwrap();
        let answered = quick(&applied, &mut rng);
        assert!(answered.iter().filter(|r| r.range_end.is_empty()).count() > 1000, "single keys always");
        assert!(answered.iter().filter(|r| !r.range_end.is_empty()).count() > 100);
        assert!(quick_txns(&applied, &mut rng) > 100);
        let short = answered
            .iter()
            .all(|r| r.range_end.is_empty() || r.count_only || applied.range(r).unwrap().kvs.len() <= 16);
        assert!(short, "more than 16 keys are no quick answer");
    }
}

#[test]
fn what_the_device_would_have_to_bring_is_no_quick_answer() {
    let (mut world, mut rng) = history(Options::default());
    world = world.restart(Options { cache_bytes: 0, ..Options::default() });
    world.disk.inject(Fault::Cold);
    let (applied, _) = world.publish();
    let live = |r: &pb::RangeRequest| applied.range(r).is_ok_and(|answer| !r.keys_only && !answer.kvs.is_empty());
    assert!(!quick(&applied, &mut rng).iter().any(live));
    let one = pb::RangeRequest { key: "new".into(), ..Default::default() };
    world.put("new", "v").unwrap();
    let (applied, _) = world.publish();
    assert_eq!(applied.quick_range(&one).unwrap().unwrap().kvs[0].value, "v", "in no page yet");
}

#[test]
fn what_takes_long_is_no_quick_answer() {
    let mut world = World::new(Options { cache_bytes: 64 << 20, ..Options::default() });
    for n in 0..1000 {
        world.put(&format!("consumed{n:03}"), "v").unwrap();
        world.delete(&format!("consumed{n:03}")).unwrap();
    }
    world.put("consumed999z", "v").unwrap();
    for n in 0..8 {
        world.put(&format!("large{n}"), vec![b'v'; 20_000]).unwrap();
    }
    let (applied, _) = world.publish();
    let ask = |key: &str, end: &str, limit| {
        let (key, range_end) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()));
        applied.quick_range(&pb::RangeRequest { key, range_end, limit, ..Default::default() }).is_some()
    };
    assert!(!ask("consumed", "consumee", 1), "a thousand dead keys before the live one");
    assert!(ask("consumed998", "consumee", 1));
    assert!(!ask("large", "largf", 0), "160 kB");
    assert!(ask("large", "largf", 2));
    assert!(ask("large3", "", 0));
}
