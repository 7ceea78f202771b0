//! Black-box harness: real server processes, asked over the wire, compared with Go etcd.
//!
//! * [`script`] holds the conversations that are held with both servers; [`ask`] the words they are made of.
//! * [`history`] generates seeded loads with a model of what must be there afterwards.
//! * [`places`] finds our binary and the reference ones; [`temp`] owns scratch folders.
//! * [`process`] starts, stops and kills servers and runs command-line tools; [`cluster`] starts several at once.
//! * [`program`] runs something beside a test and talks with it; [`forwarder`] is a way to a server that can be cut.
//! * [`net`] gives members networks of their own; [`recorder`] is a load that writes down what it was told, and
//!   [`linear`] judges it: could one store have said that?
//! * [`wire`] is a gRPC client that knows no service: path in, bytes out; so every error text, message order
//!   and malformed request is under the test's control. [`http`] does the same below gRPC.
//! * [`web`] is HTTP/1.1 as curl speaks it.
//! * [`scrape`] takes a page of metrics apart.
//! * [`frames`] is HTTP/2 by hand, for what no decent client sends.
//! * [`record`] writes down what one server answered, with ids and clocks taken out, and compares two records.
//!
//! Invariants: a test needs no fixed port, no sleep and no path of any machine; every process a test started is
//! gone when the test ends, by its own id.

pub mod ask;
pub mod certs;
pub mod cluster;
pub mod forwarder;
pub mod frames;
pub mod history;
pub mod http;
pub mod linear;
pub mod mount;
pub mod net;
pub mod places;
pub mod process;
pub mod program;
pub mod record;
pub mod recorder;
pub mod rng;
pub mod scrape;
pub mod script;
pub mod temp;
pub mod web;
pub mod wire;
