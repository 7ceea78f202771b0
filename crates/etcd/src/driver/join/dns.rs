//! SRV and PTR records, by asking the name servers of `resolv.conf`: the operating system's own resolver looks up
//! addresses only.
//!
//! A question is short and asked once, at start: UDP, TCP for what does not fit, no cache.

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const PORT: u16 = 53;
/// Servers and suffixes that are heeded; resolvers have such limits, too.
const SERVERS_MAX: usize = 3;
const SUFFIXES_MAX: usize = 6;
/// For an answer of one server, and how often all are asked; `resolv.conf` may say otherwise, up to 30 s and 5 times.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;
/// Longer answers come by TCP.
const DATAGRAM_MAX: usize = 4096;

/// Where a service is; of an address, what its name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// A host's name, with or without the dot at its end.
    pub target: String,
    pub port: u16,
    /// The lowest of these first.
    pub priority: u16,
    /// How much of the load of its priority it is to have; 0: hardly any.
    pub weight: u16,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<SocketAddr>,
    pub timeout: Duration,
    pub attempts: u32,
    /// Appended to names, those with fewer than `dots` dots first.
    pub suffixes: Vec<String>,
    pub dots: usize,
}

/// Why a server's answer is of no use.
#[derive(Debug)]
enum Fault {
    /// There is no such name: nobody else needs to be asked.
    Unknown,
    /// Another server may do.
    Failed(String),
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::Failed("i/o timeout".into()),
            _ => Fault::Failed(go::os_text(&e)),
        }
    }
}

impl Resolver {
    /// As `/etc/resolv.conf` says; without one the local server is asked.
    pub fn system() -> Resolver {
        Resolver::parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
    }

    fn parse(text: &str) -> Resolver {
        let mut resolver =
            Resolver { servers: Vec::new(), timeout: TIMEOUT, attempts: ATTEMPTS, suffixes: Vec::new(), dots: 1 };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    resolver.servers.extend(server.map(|ip| SocketAddr::new(ip, PORT)));
                }
                // The last of these lines counts.
                Some("search" | "domain") => resolver.suffixes = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| resolver.option(option)),
                _ => {}
            }
        }
        resolver.servers.truncate(SERVERS_MAX);
        resolver.suffixes.truncate(SUFFIXES_MAX);
        if resolver.servers.is_empty() {
            resolver.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        resolver
    }

    fn option(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5),
            "ndots" => self.dots = value.min(15) as usize,
            _ => {}
        }
    }

    /// The SRV records of a name, by priority.
    ///
    /// # Errors
    /// In Go's words: no such host, or no server answered.
    pub fn srv(&self, name: &str) -> Result<Vec<Record>, String> {
        let mut failure = None;
        for candidate in self.candidates(name) {
            match self.ask_all(&candidate, TYPE::SRV) {
                Ok(records) => return Ok(records),
                // What is said of the name as it was given is what counts.
                Err(why) if candidate.trim_end_matches('.') == name.trim_end_matches('.') => failure = Some(why),
                Err(why) => drop(failure.get_or_insert(why)),
            }
        }
        Err(format!("lookup {name}{}", failure.unwrap_or_else(|| ": no such host".into())))
    }

    /// The names of an address: those of `/etc/hosts`, else its PTR records.
    ///
    /// # Errors
    /// In Go's words: no such host, or no server answered.
    pub fn names(&self, address: IpAddr) -> Result<Vec<String>, String> {
        let known = named_by(&fs::read_to_string(HOSTS).unwrap_or_default(), address);
        if !known.is_empty() {
            return Ok(known);
        }
        let found = self.ask_all(&reverse(address), TYPE::PTR).map_err(|why| format!("lookup {address}{why}"))?;
        Ok(found.into_iter().map(|record| record.target).collect())
    }

    /// The full names that a name may stand for, in the order in which they are tried.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> = self.suffixes.iter().map(|suffix| format!("{name}.{suffix}")).collect();
        let enough = name.bytes().filter(|b| *b == b'.').count() >= self.dots;
        names.insert(if enough { 0 } else { names.len() }, name.to_owned());
        names
    }

    fn ask_all(&self, name: &str, kind: TYPE) -> Result<Vec<Record>, String> {
        let mut last = ": no such host".to_owned();
        for _ in 0..self.attempts {
            for server in &self.servers {
                match ask(*server, name, kind, self.timeout) {
                    Ok(records) => return Ok(records),
                    Err(Fault::Unknown) => return Err(format!(" on {server}: no such host")),
                    Err(Fault::Failed(why)) => last = format!(" on {server}: {why}"),
                }
            }
        }
        Err(last)
    }
}

/// The names of an address in a file of hosts.
fn named_by(hosts: &str, address: IpAddr) -> Vec<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut found = Vec::new();
    for mut words in lines.map(str::split_whitespace) {
        if words.next().and_then(|ip| ip.parse::<IpAddr>().ok()) == Some(address) {
            found.extend(words.map(str::to_owned));
        }
    }
    found
}

/// The name under which an address is looked up in reverse.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            format!("{}ip6.arpa.", nibbles.collect::<String>())
        }
    }
}

fn ask(server: SocketAddr, name: &str, kind: TYPE, timeout: Duration) -> Result<Vec<Record>, Fault> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|e| Fault::Failed(e.to_string()))?;
    let id = u16::from_be_bytes(id);
    let question = question(id, name, kind)?;
    let answer = by_datagram(server, &question, id, timeout)?;
    match records(&answer, id)? {
        Some(records) => Ok(records),
        None => records(&by_stream(server, &question, timeout)?, id)?
            .ok_or_else(|| Fault::Failed("server misbehaving".into())),
    }
}

fn question(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, Fault> {
    let bad = |e: simple_dns::SimpleDnsError| Fault::Failed(e.to_string());
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name.trim_end_matches('.')).map_err(bad)?;
    packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(bad)
}

/// Anybody can send a datagram: what is no answer to this question is passed over.
fn by_datagram(server: SocketAddr, question: &[u8], id: u16, timeout: Duration) -> Result<Vec<u8>, Fault> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Failed("i/o timeout".into()));
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        if is_answer(&buffer[..length], question, id) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

fn by_stream(server: SocketAddr, question: &[u8], timeout: Duration) -> Result<Vec<u8>, Fault> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let length = u16::try_from(question.len()).map_err(|_| Fault::Failed("the name is too long".into()))?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// How many records a server's bytes hold, if they answer this question at all: what bytes from outside are read with.
pub fn count_records(bytes: &[u8], question: &[u8], id: u16) -> Option<usize> {
    is_answer(bytes, question, id).then(|| records(bytes, id).ok().flatten().map_or(0, |found| found.len()))
}

/// How many servers and how many suffixes a `resolv.conf` names, as far as they count.
pub fn count_servers(text: &str) -> (usize, usize) {
    let resolver = Resolver::parse(text);
    (resolver.servers.len(), resolver.suffixes.len())
}

/// Whether this is a response that repeats the question.
fn is_answer(bytes: &[u8], question: &[u8], id: u16) -> bool {
    let (Ok(answer), Ok(asked)) = (Packet::parse(bytes), Packet::parse(question)) else { return false };
    let same = |a: &Question<'_>, b: &Question<'_>| a.qname == b.qname && a.qtype == b.qtype;
    answer.id() == id
        && answer.has_flags(PacketFlag::RESPONSE)
        && answer.questions.len() == 1
        && asked.questions.iter().zip(&answer.questions).all(|(a, b)| same(a, b))
}

/// `None`: it did not fit.
fn records(bytes: &[u8], id: u16) -> Result<Option<Vec<Record>>, Fault> {
    let misbehaving = || Fault::Failed("server misbehaving".into());
    let packet = Packet::parse(bytes).map_err(|_| misbehaving())?;
    if packet.id() != id {
        return Err(misbehaving());
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(None);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(Fault::Unknown),
        _ => return Err(misbehaving()),
    }
    let mut found: Vec<Record> = Vec::new();
    for answer in &packet.answers {
        match &answer.rdata {
            RData::SRV(srv) => found.push(Record {
                target: srv.target.to_string(),
                port: srv.port,
                priority: srv.priority,
                weight: srv.weight,
            }),
            RData::PTR(ptr) => found.push(Record { target: ptr.0.to_string(), port: 0, priority: 0, weight: 0 }),
            _ => {}
        }
    }
    found.sort_by_key(|record| record.priority);
    match found.is_empty() {
        true => Err(Fault::Unknown),
        false => Ok(Some(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;
    use std::net::TcpListener;
    use std::thread;

    /// What a name server has to say of a name.
    type Zone = fn(&str) -> Vec<(u16, u16, &'static str)>;

    fn answer(question: &[u8], zone: Zone, truncated: bool) -> Vec<u8> {
        let asked = Packet::parse(question).unwrap();
        let name = asked.questions[0].qname.clone();
        let mut reply = Packet::new_reply(asked.id());
        let records = zone(&name.to_string());
        if records.is_empty() {
            *reply.rcode_mut() = RCODE::NameError;
        }
        if truncated {
            reply.set_flags(PacketFlag::TRUNCATION);
        }
        for (priority, port, target) in records.iter().filter(|_| !truncated) {
            let target = Name::new_unchecked(target);
            let srv = SRV { priority: *priority, weight: 0, port: *port, target };
            reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 1, RData::SRV(srv)));
        }
        reply.questions = asked.questions.clone();
        reply.build_bytes_vec_compressed().unwrap()
    }

    /// A name server on loopback, on one port for both protocols; it ends with the test.
    fn server(zone: Zone, truncated: bool, noise: bool) -> Resolver {
        let (datagrams, streams) = loop {
            let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(streams) = TcpListener::bind(datagrams.local_addr().unwrap()) {
                break (datagrams, streams);
            }
        };
        let address = datagrams.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                let reply = answer(&buffer[..length], zone, truncated);
                if noise {
                    let mut forged = reply.clone();
                    forged[0] ^= 1;
                    datagrams.send_to(&forged, from).unwrap();
                    datagrams.send_to(b"noise", from).unwrap();
                }
                datagrams.send_to(&reply, from).unwrap();
            }
        });
        thread::spawn(move || {
            for stream in streams.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let reply = answer(&question, zone, false);
                let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &reply].concat()).unwrap();
            }
        });
        Resolver { servers: vec![address], timeout: Duration::from_secs(5), attempts: 1, suffixes: Vec::new(), dots: 1 }
    }

    fn zone(name: &str) -> Vec<(u16, u16, &'static str)> {
        match name.to_ascii_lowercase().as_str() {
            "_etcd-server._tcp.x.org" => vec![(2, 2381, "b.x.org"), (1, 2380, "a.x.org")],
            _ => Vec::new(),
        }
    }

    fn expected() -> Vec<Record> {
        let record = |target: &str, port, priority| Record { target: target.into(), port, priority, weight: 0 };
        vec![record("a.x.org", 2380, 1), record("b.x.org", 2381, 2)]
    }

    #[test]
    fn records_come_by_priority() {
        assert_eq!(server(zone, false, false).srv("_etcd-server._tcp.x.org").unwrap(), expected());
        assert_eq!(server(zone, false, false).srv("_etcd-server._tcp.x.org.").unwrap(), expected());
    }

    #[test]
    fn what_does_not_fit_into_a_datagram_comes_by_stream() {
        assert_eq!(server(zone, true, false).srv("_etcd-server._tcp.x.org").unwrap(), expected());
    }

    #[test]
    fn strangers_datagrams_are_passed_over() {
        assert_eq!(server(zone, false, true).srv("_etcd-server._tcp.x.org").unwrap(), expected());
    }

    #[test]
    fn suffixes_complete_a_name() {
        let resolver = Resolver { suffixes: vec!["y.org".into(), "org".into()], ..server(zone, false, false) };
        assert_eq!(resolver.srv("_etcd-server._tcp.x").unwrap(), expected());
        assert_eq!(resolver.candidates("a.b"), ["a.b", "a.b.y.org", "a.b.org"]);
        assert_eq!(resolver.candidates("a"), ["a.y.org", "a.org", "a"]);
        assert_eq!(resolver.candidates("a."), ["a."]);
    }

    #[test]
    fn failures_have_gos_words() {
        let resolver = server(zone, false, false);
        let server = resolver.servers[0];
        assert_eq!(
            resolver.srv("_x._tcp.x.org").unwrap_err(),
            format!("lookup _x._tcp.x.org on {server}: no such host")
        );
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent = silent.local_addr().map(|address| (silent, address)).unwrap();
        let patience = Duration::from_millis(50);
        let resolver = Resolver { servers: vec![silent.1], timeout: patience, ..resolver };
        assert_eq!(resolver.srv("x.org").unwrap_err(), format!("lookup x.org on {}: i/o timeout", silent.1));
        // The next one is asked.
        let resolver = Resolver { servers: vec![silent.1, server], ..resolver };
        assert_eq!(resolver.srv("_etcd-server._tcp.x.org").unwrap(), expected());
    }

    #[test]
    fn addresses_are_looked_up_in_reverse() {
        let hosts = "127.0.0.1 localhost # here\n10.0.0.1\tm1.x.org m1\n10.0.0.1 other\n::1 localhost\n";
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(named_by(hosts, ip("10.0.0.1")), ["m1.x.org", "m1", "other"]);
        assert_eq!(named_by(hosts, ip("10.0.0.2")), Vec::<String>::new());
        assert_eq!(reverse(ip("10.1.2.3")), "3.2.1.10.in-addr.arpa.");
        assert_eq!(reverse(ip("2001:db8::1")), format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa.", "0.".repeat(23)));
    }

    #[test]
    fn resolv_conf_is_read_as_resolvers_read_it() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver ::1\nsearch a.org b.org\n\
                    options ndots:2 timeout:0 attempts:9 rotate\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n";
        let resolver = Resolver::parse(text);
        let server = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(resolver.servers, [server("10.0.0.1:53"), server("[::1]:53"), server("10.0.0.2:53")]);
        assert_eq!((resolver.timeout, resolver.attempts, resolver.dots), (Duration::from_secs(1), 5, 2));
        assert_eq!(resolver.suffixes, ["a.org", "b.org"]);
        assert_eq!(Resolver::parse("").servers, [server("127.0.0.1:53")]);
    }
}
