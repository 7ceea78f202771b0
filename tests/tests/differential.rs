//! The same conversation with Go etcd 3.7 and with ours, each on a fresh data directory; every answer must be equal.
//!
//! Needs `OXETCD_REFERENCE` (see CONTRIBUTING.md); `.ci/run` sets it. More random conversations: `OXETCD_SEEDS=500`.

use oxetcd_tests::conversations;
use oxetcd_tests::places::{Reference, count, our_etcd};
use oxetcd_tests::record::{Side, differences, hold};
use oxetcd_tests::script;

conversations! {
    flags: &[];
    keys => script::keys::talk,
    transactions => script::transactions::talk,
    leases => script::leases::talk,
    watches => script::watches::talk,
    maintenance => script::maintenance::talk,
    concurrency => script::concurrency::talk,
    refusals => script::refusals::talk,
    transport => script::transport::talk,
}

#[tokio::test]
async fn generated_requests() {
    let Some(reference) = Reference::find() else { return };
    let mut answers = 0;
    for seed in 0..count("OXETCD_SEEDS", 4) {
        let talk = async |side: &mut Side| script::random::talk(side, seed, 250).await;
        let theirs = hold(&reference.program("3.7", "etcd"), "random-go", &[], talk).await;
        let ours = hold(&our_etcd(), "random-ours", &[], talk).await;
        let text = differences(&theirs, &ours);
        assert!(text.is_empty(), "seed {seed}: {text}");
        answers += ours.len();
    }
    println!("generated requests: {answers} equal answers");
}
