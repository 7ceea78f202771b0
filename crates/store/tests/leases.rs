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
