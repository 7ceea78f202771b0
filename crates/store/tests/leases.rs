//! Leases as they are kept.

mod world;

use api::pb::etcdserverpb as pb;
use store::Options;
use world::World;

#[test]
fn leases_read_back_have_the_minimum_ttl_of_this_start() {
    let mut world = World::new(Options { min_lease_ttl: 1, ..Options::default() });
    for ttl in [1, 60] {
        world.ask(|r| r.lease_grant = Some(pb::LeaseGrantRequest { id: ttl, ttl })).unwrap();
    }
    let mut world = world.restart(Options { min_lease_ttl: 5, ..Options::default() });
    let (applied, _) = world.publish();
    let ttls: Vec<_> = applied.leases().map(|(id, lease)| (id, lease.ttl())).collect();
    assert_eq!(ttls, [(1, 5), (60, 60)]);
}

/// Nothing says that this cluster is of 3.6 or later.
#[test]
fn remaining_times_are_kept_below_3_6_only_where_the_gate_says_so() {
    for (lease_checkpoint_persist, kept) in [(false, 0), (true, 7)] {
        let options = Options { lease_checkpoint_persist, ..Options::default() };
        let mut world = World::new(options.clone());
        world.ask(|r| r.lease_grant = Some(pb::LeaseGrantRequest { id: 1, ttl: 60 })).unwrap();
        let checkpoint = pb::LeaseCheckpoint { id: 1, remaining_ttl: 7 };
        let request = pb::LeaseCheckpointRequest { checkpoints: vec![checkpoint] };
        world.ask(|r| r.lease_checkpoint = Some(request)).unwrap();
        let mut world = world.restart(options);
        let (applied, _) = world.publish();
        let remaining: Vec<_> = applied.leases().map(|(_, lease)| lease.remaining_ttl()).collect();
        assert_eq!(remaining, [kept]);
    }
}
