//! `compare`, `floors` and the hidden `floor-server`.

use super::{Done, Problem};
use crate::affinity;
use crate::compare::Comparison;
use crate::compare::measure::Measure;
use crate::compare::rows::{ALL, Row, Sizes};
use crate::compare::seeds::Seeds;
use crate::compare::server::{Place, Side};
use crate::floors::{self, Floors};
use crate::given::Given;
use cobra::{Flag, Kind};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

pub const COMPARE: &[Flag] = &[
    Flag::new("a", Kind::Text, "", "first server: name=COMMAND with flags of its own"),
    Flag::new("b", Kind::Text, "", "second server: name=COMMAND with flags of its own"),
    Flag::new("rows", Kind::List, "put-1,put-64,put-1000,range-s-1000,range-l-1000", "rows, or all"),
    Flag::new("pairs", Kind::Uint, "5", "runs of each server, alternating"),
    Flag::new("run", Kind::Duration, "5s", "length of a measured run"),
    Flag::new("warmup", Kind::Duration, "1s", "load before each measured run"),
    Flag::new("members", Kind::Uint, "1", "members of each server, all on its core"),
    Flag::new("key-space-size", Kind::Int, "100000", "keys there are before the runs"),
    Flag::new("val-size", Kind::Int, "256", "bytes of a value"),
    Flag::new("load-keys", Kind::Int, "1000000", "keys of the row load"),
    Flag::new("behind", Kind::Int, "500000", "revisions that the watcher of open-put-watch is behind"),
    Flag::new("compacted", Kind::Int, "1000000", "revisions that open-put-compact compacts"),
    Flag::new("watchers", Kind::Int, "1000", "watchers of the watch rows"),
    Flag::new("watch-put-clients", Kind::Uint, "64", "clients that put in the watch rows without a rate"),
    Flag::new("open-clients", Kind::Uint, "1000", "clients of the open-loop rows"),
    Flag::new(
        "open-rate",
        Kind::Int,
        "0",
        "puts per second of the open-loop rows (0: half of the slower server's peak)",
    ),
    Flag::new("floors", Kind::Bool, "true", "measure the floors first"),
];

pub const FLOORS: &[Flag] = &[
    Flag::new("floor-clients", Kind::List, "1,64,1000", "numbers of clients"),
    Flag::new("run", Kind::Duration, "3s", "length of a measured run"),
];

/// Flags of both.
pub const SHARED: &[Flag] = &[
    Flag::new("dir", Kind::Text, "", "folder on a real disk for data and files (default: the system's temporary one)"),
    Flag::new("json", Kind::Text, "", "file that gets one JSON object a run"),
    Flag::new("server-core", Kind::Int, "0", "core of the servers, -1: any"),
    Flag::new("load-core", Kind::Int, "1", "core of the load, -1: any"),
];

/// `compare`
pub fn compare(parsed: &Given) -> Done {
    let side = |name: &str| {
        Side::parse(parsed.text(name)).ok_or_else(|| Problem::Usage(format!("--{name} must be name=COMMAND")))
    };
    let (a, b) = (side("a")?, side("b")?);
    let sizes = sizes(parsed);
    let rows = rows(parsed, &sizes)?;
    let place = Place { dir: dir(parsed), core: core(parsed, "server-core"), members: parsed.size("members").max(1) };
    bind(parsed)?;
    let mut json = json(parsed)?;
    let floors = if parsed.is("floors") { floors_of(&rows, &place, parsed, &mut json)? } else { Floors::default() };
    let measure = Measure {
        sizes,
        place,
        duration: parsed.duration("run"),
        warmup: parsed.duration("warmup"),
        open_rate: parsed.int("open-rate") as f64,
        seeds: Seeds::default(),
    };
    let mut comparison = Comparison { a, b, rows, pairs: parsed.size("pairs").max(1), measure, floors, json };
    Ok(comparison.run(&mut std::io::stdout())?)
}

/// `floors`
pub fn floors(parsed: &Given) -> Done {
    let clients =
        parsed.list("floor-clients").iter().map(|text| text.parse().map_err(|_| format!("not a number: {text}")));
    let clients = clients.collect::<Result<Vec<usize>, _>>()?;
    bind(parsed)?;
    let floors = floors::measure(&clients, &dir(parsed), core(parsed, "server-core"), parsed.duration("run"))?;
    print!("{}", floors.table());
    write_floors(&floors, &mut json(parsed)?)
}

/// `floor-server`
pub fn floor_server(parsed: &Given) -> Done {
    let kind = parsed.args.first().ok_or_else(|| Problem::Usage("floor-server takes http2 or grpc".to_owned()))?;
    affinity::raise_file_limit();
    Ok(floors::serve(kind)?)
}

fn sizes(parsed: &Given) -> Sizes {
    Sizes {
        keys: parsed.count("key-space-size").max(1),
        value: parsed.size("val-size"),
        load_keys: parsed.count("load-keys").max(1),
        behind: parsed.count("behind"),
        compacted: parsed.count("compacted"),
        watchers: parsed.size("watchers"),
        watch_put_clients: parsed.size("watch-put-clients").max(1),
        open_clients: parsed.size("open-clients").max(1),
    }
}

fn rows(parsed: &Given, sizes: &Sizes) -> Result<Vec<Row>, Problem> {
    let given = parsed.list("rows").iter().map(String::as_str);
    let names: Vec<&str> = given.flat_map(|name| if name == "all" { ALL.to_vec() } else { vec![name] }).collect();
    let row =
        |name: &str| Row::parse(name, sizes).ok_or_else(|| format!("no row {name:?}; there are {}", ALL.join(", ")));
    Ok(names.into_iter().map(row).collect::<Result<_, _>>()?)
}

fn dir(parsed: &Given) -> PathBuf {
    match parsed.text("dir") {
        "" => std::env::temp_dir(),
        dir => PathBuf::from(dir),
    }
}

fn core(parsed: &Given, name: &str) -> Option<usize> {
    usize::try_from(parsed.int(name)).ok()
}

/// The load's core, and as many open files as there may be.
fn bind(parsed: &Given) -> Done {
    affinity::raise_file_limit();
    match core(parsed, "load-core") {
        Some(core) => Ok(affinity::pin(core)?),
        None => Ok(()),
    }
}

fn json(parsed: &Given) -> Result<Option<File>, Problem> {
    match parsed.text("json") {
        "" => Ok(None),
        path => Ok(Some(File::options().create(true).append(true).open(path)?)),
    }
}

fn floors_of(rows: &[Row], place: &Place, parsed: &Given, json: &mut Option<File>) -> Result<Floors, Problem> {
    let mut clients: Vec<usize> = rows.iter().map(|row| row.clients).collect();
    clients.sort_unstable();
    clients.dedup();
    let floors = floors::measure(&clients, &place.dir, place.core, parsed.duration("run").min(FLOOR_RUN_MAX))?;
    println!("{}", floors.table());
    write_floors(&floors, json)?;
    Ok(floors)
}

const FLOOR_RUN_MAX: std::time::Duration = std::time::Duration::from_secs(3);

fn write_floors(floors: &Floors, json: &mut Option<File>) -> Done {
    if let Some(json) = json {
        for line in floors.json() {
            writeln!(json, "{line}")?;
        }
    }
    Ok(())
}
