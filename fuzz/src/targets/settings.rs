//! What an operator, a name server or a registry says.

use super::{EMPTY, named, texts};
use crate::{Shape, Target};
use api::pb::mvccpb::KeyValue;
use etcd::config::table::FLAGS;
use etcd::config::{self, Asked, Config};
use etcd::driver::decoders::{count_records, count_servers, founders_of, signed_token, token_user};

pub const COMMAND_LINE: Target = Target {
    name: "command-line",
    covers: &["etcd/config/table.rs::parse_uint32", "etcd/config/cli.rs::load"],
    shape: Shape::Text(&[
        "--",
        "-",
        "=",
        "\n",
        ",",
        "true",
        "--name",
        "--initial-cluster=",
        "--listen-peer-urls=",
        "http://",
        "AllAlpha=",
        "--auto-compaction-retention=",
        "--log-level=",
        "--cors=",
        "--snapshot-count=",
        "'",
        "é",
        "--discovery-token=t",
    ]),
    corpus: || {
        texts(&[
            "--name=a\n--listen-client-urls=http://127.0.0.1:1,unix://x:1\n--advertise-client-urls=http://[::1]:2",
            "--grpc-keepalive-interval=1h2m3.5s\n--max-txn-ops=0x10\n--pre-vote=false\n--quota-backend-bytes=-1",
            "--feature-gates=AllAlpha=true,LeaseCheckpoint=false\n--initial-cluster=a=http://b:1,c=https://d:2",
            "--auto-compaction-mode=revision\n--auto-compaction-retention=1000\n--log-outputs=stdout,stderr",
        ])
    },
    run: command_line,
    ..EMPTY
};

/// Words of a command line, one a line; the same as variables.
fn command_line(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    // A file of that name is not this target's.
    if words.iter().any(|w| w.contains("config-file")) {
        return false;
    }
    let pairs = text.lines().filter_map(|l| l.trim_start_matches('-').split_once('='));
    let env: Vec<(String, String)> = pairs.map(|(k, v)| (config::variable_of(k), v.to_owned())).collect();
    let loaded = [config::load(&words, &[]), config::load(&[], &env)].map(|asked| match asked {
        Asked::Run(loaded) => {
            let members = named(config::initial_members(&loaded.config));
            // Members of other hosts, and features that are not there yet, may be refused.
            named(config::validate(&loaded.config, &mut Vec::new()));
            members.is_some()
        }
        _ => false,
    });
    // A variable that names no flag is none of ours: it is the words that must all be known.
    loaded[0]
}

pub const CONFIG_FILE: Target = Target {
    name: "config-file",
    covers: &["etcd/config/yaml.rs::read", "etcd/config/yaml.rs::read_given"],
    shape: Shape::Text(&[
        ":",
        "\n",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "<<: *a",
        "!!str ",
        "|",
        ">",
        "---",
        "...",
        "\t",
        "\"",
        "'",
        "null",
        "0x1f",
        "1e9",
        "name: ",
        "feature-gates: ",
        "client-transport-security:\n",
        "%YAML",
        "#",
        "? ",
        "\u{feff}",
    ]),
    corpus: || {
        texts(&[
            "name: a\nmax-txn-ops: 7\nlog-outputs: [stderr]\npre-vote: false\n",
            "{\"listen-client-urls\": \"http://127.0.0.1:1\", \"quota-backend-bytes\": -1}",
            "client-transport-security:\n  cert-file: x\n  client-cert-auth: true\nfeature-gates: \"AllBeta=true\"\n",
            "name: &x a\ndata-dir: *x\nwatch-progress-notify-interval: 5000000000\n",
        ])
    },
    run: |input| {
        let mut config = Config::default();
        let read = config::read_file(&String::from_utf8_lossy(input), &mut config);
        named(config::validate(&config, &mut Vec::new()));
        read.is_ok()
    },
    ..EMPTY
};

pub const VALUES: Target = Target {
    name: "setting-values",
    covers: &["etcd/logging/mod.rs::parse", "etcd/logging/rotate.rs::parse"],
    shape: Shape::Text(&[
        "=",
        ",",
        "true",
        "AllAlpha",
        "http://",
        ":",
        "*",
        "debug",
        "TLS1.3",
        "exit",
        "1h",
        "-",
        "0x",
        "{\"maxsize\":",
        "\"compress\":",
        "}",
        "-1",
    ]),
    corpus: || {
        let default = |(n, flag): (u8, &config::table::Flag)| [&[n], flag.default.as_bytes()].concat();
        let rotation =
            b"\0{\"maxsize\": 1, \"maxage\": -1, \"maxbackups\": 0, \"localtime\": false, \"compress\": true}";
        (0..).zip(FLAGS).map(default).chain([rotation.to_vec()]).collect()
    },
    run: |input| {
        let (n, text) = input.split_first().map_or((0, &[][..]), |(n, text)| (usize::from(*n), text));
        let text = String::from_utf8_lossy(text);
        let level = etcd::logging::Level::parse(&text).is_some();
        let mut config = Config::default();
        let set = named(FLAGS[n % FLAGS.len()].set(&mut config, &text)).is_some();
        named(config::validate(&config, &mut Vec::new()));
        drop(config.auto_compaction());
        set || level || etcd::logging::Rotation::parse(&text).is_ok()
    },
    ..EMPTY
};

pub const URLS: Target = Target {
    name: "urls",
    covers: &[
        "etcd/config/url.rs::parse",
        "etcd/config/url.rs::parse_list",
        "etcd/config/url.rs::split_scheme",
        "etcd/config/url.rs::split_host_port",
        "rpc/peer/url.rs::parse",
        "rpc/peer/url.rs::parse_list",
        "client/config.rs::parse",
    ],
    shape: Shape::Text(&[
        "http://", "https://", "unix://", "unixs:", "[", "]", ":", "/", "?", "#", "@", "%41", "%", ",", "=", "::1",
        "é", " ", "65536", "\u{7f}", "\\",
    ]),
    corpus: || {
        texts(&[
            "http://127.0.0.1:2380",
            "https://[::1]:2379",
            "unix:///run/etcd.sock",
            "unix://localhost:20000",
            "http://user@a.example:1",
            "a=http://b:1,c=http://d:2,a=http://e:3",
            "http://a:1,http://b:2",
        ])
    },
    run: urls,
    ..EMPTY
};

fn urls(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let ours = named(config::Url::parse(&text));
    if let Some(url) = &ours {
        assert_eq!(config::Url::parse(url.as_str()).as_ref(), Ok(url));
        drop((url.socket_path(), url.has_port(), url.with_host("::1")));
    }
    let list = named(config::Url::parse_list(&text));
    if let Some(list) = &list {
        assert_eq!(config::Url::parse_list(&config::url::joined(list)).as_ref(), Ok(list));
    }
    if let Some(url) = named(rpc::peer::Url::parse(&text)) {
        assert_eq!(rpc::peer::Url::parse(&url.to_string()).as_ref(), Ok(&url));
        assert!(url.address().is_none_or(|(host, _)| text.contains(host)));
    }
    drop(named(rpc::peer::Url::parse_list(text.split(','))));
    assert!(text.contains(client::Address::parse(&text).authority()));
    let pairs = named(config::named(&text));
    if let Some(pairs) = &pairs {
        assert_eq!(config::named(&config::pairs(pairs)).as_ref(), Ok(pairs));
        drop(config::distinct(pairs));
    }
    let restored = named(etcdutl::decoders::initial_cluster(&text));
    drop(named(etcdutl::decoders::url_list(&text)));
    ours.is_some() || list.is_some() || pairs.is_some() || restored.is_some()
}

/// `_etcd-server._tcp.a. SRV`, id 7.
const DNS_QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x0c_etcd-server\x04_tcp\x01a\0\0\x21\0\x01";

pub const DNS_ANSWERS: Target = Target {
    name: "dns-answers",
    covers: &["etcd/driver/join/dns.rs::is_answer", "etcd/driver/join/dns.rs::records"],
    corpus: dns_corpus,
    mend: Some(mend_question),
    run: |input| {
        let count = count_records(input, DNS_QUESTION, 7);
        assert!(count.unwrap_or(0) <= input.len() / 12, "each record takes some bytes");
        count.is_some()
    },
    ..EMPTY
};

/// The answer is to the question again.
fn mend_question(input: &mut Vec<u8>) {
    let own = DNS_QUESTION.len();
    input.resize(input.len().max(own), 0);
    input[..2].copy_from_slice(&DNS_QUESTION[..2]);
    input[2] |= 0x80;
    input[4..6].copy_from_slice(&DNS_QUESTION[4..6]);
    input[12..own].copy_from_slice(&DNS_QUESTION[12..]);
}

/// An answer with two records, their names shortened or not; two without.
fn dns_corpus() -> Vec<Vec<u8>> {
    let head = |flags: [u8; 2], answers: u8| {
        [&[0, 7], &flags[..], &[0, 1, 0, answers, 0, 0, 0, 0], &DNS_QUESTION[12..]].concat()
    };
    let record = |target: &[u8]| {
        let data = [&[0, 1, 0, 0, 9, 0x4c], target].concat();
        let length = u16::try_from(data.len()).expect("short").to_be_bytes();
        [&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60], &length[..], &data].concat()
    };
    let two = [head([0x84, 0x80], 2), record(b"\x02n1\x01a\0"), record(b"\x02n2\xc0\x1e")].concat();
    vec![two, head([0x84, 0x83], 0), head([0x86, 0x80], 0)]
}

pub const CERTIFICATES: Target = Target {
    name: "certificates",
    covers: &["tls/x509.rs::look", "tls/x509.rs::parse"],
    corpus: || {
        vec![
            include_bytes!("../../corpus/certificate.der").to_vec(),
            include_bytes!("../../corpus/revoked.der").to_vec(),
            include_bytes!("../../corpus/revoked.pem").to_vec(),
        ]
    },
    run: |input| {
        let names = tls::decoders::count_names(input);
        assert!(names.is_none_or(|names| names <= input.len()));
        let revoked = tls::decoders::count_revoked(input);
        assert!(revoked.is_none_or(|revoked| revoked <= input.len()));
        names.is_some() || revoked.is_some()
    },
    ..EMPTY
};

pub const RESOLV_CONF: Target = Target {
    name: "resolv-conf",
    covers: &["etcd/driver/join/dns.rs::parse"],
    shape: Shape::Text(&[
        "nameserver ",
        "search ",
        "options ",
        "ndots:",
        "timeout:",
        "attempts:",
        "\n",
        "#",
        "::1",
        "%eth0",
    ]),
    corpus: || {
        texts(&[
            "nameserver 10.0.0.1\nnameserver ::1\nsearch a.example b.example\noptions ndots:2 timeout:3 attempts:4\n",
            "# nothing\n",
        ])
    },
    run: |input| {
        let (servers, suffixes) = count_servers(&String::from_utf8_lossy(input));
        assert!((1..=3).contains(&servers) && suffixes <= 16, "{servers} servers, {suffixes} suffixes");
        true
    },
    ..EMPTY
};

/// What endpoints' keys hold, those of other proxies too, and addresses of flags and of what DNS names.
pub const PROXIES: Target = Target {
    name: "proxies",
    covers: &["client/naming.rs::parse", "etcd/proxy/cluster.rs::proxy", "etcd/addresses.rs::split_host_port"],
    shape: Shape::Text(&[
        "{",
        "}",
        "\"Addr\":",
        "\"Metadata\":",
        "\\\"",
        "[",
        "]",
        "::1",
        ":",
        "//",
        "http:",
        "@",
        "?",
        "é",
    ]),
    corpus: || {
        texts(&[
            r#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"host\"}"}"#,
            r#"{"Addr":"a:1","Metadata":"{}"}"#,
            r#"{"addr":"<a>","op":1,"METADATA":{"weight":[1.5e3,null]}}"#,
            "http://user@[::1]:2379/path?query",
            "a:1",
        ])
    },
    run: |input| {
        let endpoint = client::naming::Endpoint::parse(input);
        if let Some(endpoint) = &endpoint {
            let again = client::naming::Endpoint::parse(endpoint.encode().as_bytes());
            // Written anew, `<` and control characters take six bytes: what is too long then is refused when it is written.
            let is_long = endpoint.encode().len() > client::naming::VALUE_BYTES_MAX;
            assert!(is_long || again.is_some_and(|again| again.addr == endpoint.addr), "{endpoint:?}");
        }
        let shown = etcd::decoders::proxy_address(input);
        assert!(shown.as_ref().is_none_or(|address| address.len() <= input.len()));
        let text = String::from_utf8_lossy(input);
        let host = etcd::decoders::host_of(&text);
        assert!(host.is_none_or(|host| text.contains(host)));
        endpoint.is_some() || shown.is_some() || host.is_some()
    },
    ..EMPTY
};

pub const DISCOVERY: Target = Target {
    name: "discovery",
    covers: &["etcd/driver/join/discovery.rs::parse_size"],
    shape: Shape::Text(&["\n", "=", ",", "http://", "a=http://b:1", ":", "\t", "é", "-", "3"]),
    corpus: || texts(&["2\na=http://a:1\nb=http://b:1,b=http://b:2\nc=http://c:1", "1\na=http://a:1"]),
    run: |input| {
        let mut lines = input.split(|b| *b == b'\n');
        let size = lines.next().unwrap_or_default();
        let member = |(n, value): (i64, &[u8])| KeyValue {
            key: format!("k{}", n % 5).into(),
            value: value.to_vec().into(),
            create_revision: n,
            ..KeyValue::default()
        };
        let members: Vec<_> = (0..).zip(lines).map(member).collect();
        let Some(text) = named(founders_of(size, "k0", &members)) else { return false };
        assert!(config::named(&text).is_ok(), "founders that are told can be read: {text}");
        true
    },
    ..EMPTY
};

pub const SIGNED_TOKENS: Target = Target {
    name: "signed-tokens",
    covers: &["etcd/driver/auth/jwt.rs::object"],
    corpus: token_corpus,
    run: tokens,
    ..EMPTY
};

fn token_corpus() -> Vec<Vec<u8>> {
    let claims: &[&[u8]] = &[
        br#"1{"exp":4102444800,"revision":3,"username":"alice"}"#,
        br#"1{"exp":1e300,"nbf":-1,"revision":18446744073709551616,"username":""}"#,
        br#"1{"username":"\u00e9\ud83d\ude00","revision":2.5}"#,
    ];
    let whole = format!("0{}", signed_token(r#"{"exp":4102444800,"revision":3,"username":"alice"}"#));
    claims.iter().map(|claims| claims.to_vec()).chain([whole.into_bytes()]).collect()
}

/// Behind a `0` a token as a client sends it; behind anything else claims, which are signed first.
fn tokens(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input.get(1..).unwrap_or_default());
    let token = if input.first() == Some(&b'0') { text.to_string() } else { signed_token(&text) };
    let user = token_user(&token, 1_700_000_000);
    assert!(user.as_ref().is_none_or(|(name, _)| name.len() <= token.len()), "a name is a part of its token");
    user.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_name_servers_that_are_mutated_are_understood() {
        let counts: Vec<_> = dns_corpus().iter().map(|answer| count_records(answer, DNS_QUESTION, 7)).collect();
        assert_eq!(counts, [Some(2), Some(0), Some(0)]);
    }
}
