//! The rules that were each a bug once, one test a rule, at the boundary of a single node; then whole clusters over
//! a network that loses, delays, doubles and cuts.

mod election;
mod hostile;
mod lab;
mod membership;
mod network;
mod reads;
mod replication;
mod storage;
