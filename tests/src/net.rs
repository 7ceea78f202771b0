//! Networks of the test's own, so that members can be cut off from one another and have any address.
//!
//! [`Net::routed`] gives each member a network namespace, joined to a router's namespace by a pair of interfaces. Clients
//! live at the router ([`run`]), so that they reach every member whatever is cut. A cut is a routing rule that drops what
//! comes from one member and goes to another: the other way stays open, and connections hang rather than break.
//! [`Net::of_addresses`] is one namespace that has all the addresses of a tutorial.
//!
//! Namespaces need root and the program `ip`. Their names are of this process; they go with the [`Net`].

use crate::process::{Launch, text};
use std::future::Future;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Namespaces; the first is the one where clients live.
#[derive(Debug)]
pub struct Net {
    spaces: Vec<String>,
}

impl Net {
    /// A router and `members` behind it; without what it takes, says so and answers nothing.
    pub fn routed(members: usize) -> Option<Net> {
        told(Net::try_routed(members))
    }

    /// One namespace that holds these addresses; without what it takes, says so and answers nothing.
    pub fn of_addresses(addresses: &[&str]) -> Option<Net> {
        told(Net::try_addresses(addresses))
    }

    fn try_routed(members: usize) -> Result<Net, String> {
        let mut net = Net::empty()?;
        ip(&["netns", "exec", net.router(), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        for n in 0..members {
            let space = net.add_space()?;
            let (link, router) = (format!("m{n}"), net.router());
            ip(&["link", "add", &link, "netns", router, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            let gateway = format!("10.77.{n}.1");
            up(router, &link, &gateway)?;
            up(&space, "eth0", &address(n))?;
            ip(&["-n", &space, "route", "add", "default", "via", &gateway])?;
        }
        Ok(net)
    }

    fn try_addresses(addresses: &[&str]) -> Result<Net, String> {
        let net = Net::empty()?;
        for address in addresses {
            ip(&["-n", net.router(), "addr", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        Ok(net)
    }

    /// The first namespace alone.
    fn empty() -> Result<Net, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let mut net = Net { spaces: Vec::new() };
        net.add_space()?;
        Ok(net)
    }

    fn add_space(&mut self) -> Result<String, String> {
        let name = format!("oxetcd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        self.spaces.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }

    fn router(&self) -> &str {
        &self.spaces[0]
    }

    /// Moves a member to its namespace; there it has etcd's own ports.
    pub fn place(&self, n: usize, mut launch: Launch) -> Launch {
        launch.host = address(n);
        (launch.client_port, launch.peer_port) = (2379, 2380);
        launch.wrapper = ["ip", "netns", "exec", &self.spaces[n + 1]].map(str::to_owned).to_vec();
        launch
    }

    /// Drops what `from` sends to `to`; the other way stays open.
    pub fn cut(&self, from: usize, to: usize) {
        self.rule("add", from, to).unwrap_or_else(|e| panic!("a cut from {from} to {to}: {e}"));
    }

    /// Drops what the two send to one another.
    pub fn cut_both(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        let pairs = (1..self.spaces.len()).flat_map(|a| (1..self.spaces.len()).map(move |b| (a - 1, b - 1)));
        for (from, to) in pairs {
            // Most are not there.
            let _ = self.rule("del", from, to);
        }
    }

    fn rule(&self, verb: &str, from: usize, to: usize) -> Result<(), String> {
        ip(&["-n", self.router(), "rule", verb, "iif", &format!("m{from}"), "to", &address(to), "blackhole"])
    }

    /// Moves this thread, and those that it starts from now on, to where clients live.
    fn enter(&self) {
        let path = format!("/run/netns/{}", self.router());
        let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let moved = move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network));
        moved.unwrap_or_else(|e| panic!("cannot enter {path}: {e}"));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in &self.spaces {
            let _ = ip(&["netns", "del", space]);
        }
    }
}

/// Runs a test's work where it reaches the members, in a runtime of its own.
pub fn run<T: Send>(net: Option<&Net>, work: impl Future<Output = T> + Send) -> T {
    let inside = || {
        if let Some(net) = net {
            net.enter();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("threads can be started").block_on(work)
    };
    // A thread of its own: the test's must not end up elsewhere.
    let done = std::thread::scope(|scope| scope.spawn(inside).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn address(n: usize) -> String {
    format!("10.77.{n}.2")
}

fn up(space: &str, link: &str, address: &str) -> Result<(), String> {
    ip(&["-n", space, "addr", "add", &format!("{address}/24"), "dev", link])?;
    ip(&["-n", space, "link", "set", link, "up"])
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), text(&done.stderr).trim())),
    }
}

fn told(made: Result<Net, String>) -> Option<Net> {
    made.inspect_err(|why| println!("SKIPPED: no network namespaces: {why}")).ok()
}
