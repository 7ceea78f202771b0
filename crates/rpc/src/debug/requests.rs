//! `/debug/requests`: gRPC calls that go on, the last ten of each service that took at least so long, and the last ten that
//! failed; golang.org/x/net/trace's page. Remembered at debug level only.
//!
//! Unlike Go's, it shows no values, no passwords and no tokens: of a request what the log shows of it, of an answer its size.

use super::history::Latency;
use super::html::{self, Asked, choice, row};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Lists of a service: calls that took at least so many ms, then those that failed.
const AT_LEAST: [(u64, &str); 8] = [
    (0, "≥0s"),
    (50, "≥0.05s"),
    (100, "≥0.1s"),
    (200, "≥0.2s"),
    (500, "≥0.5s"),
    (1_000, "≥1s"),
    (10_000, "≥10s"),
    (100_000, "≥100s"),
];
const FAILED: usize = AT_LEAST.len();
const LISTS: usize = FAILED + 1;
/// Calls of a list.
const LIST_MAX: usize = 10;
/// Calls that go on, of which more are told than shown.
const ACTIVE_MAX: usize = 20;
/// Events of a call; those in the middle are forgotten.
const EVENTS_MAX: usize = 10;
const FORGOTTEN_AT: usize = (EVENTS_MAX - 1) / 2;
/// Characters of an event (grpc-go's `truncateSize`).
const TEXT_MAX: usize = 100;

static ON: AtomicBool = AtomicBool::new(false);
static FAMILIES: Mutex<BTreeMap<&'static str, Family>> = Mutex::new(BTreeMap::new());

/// Calls of a service.
#[derive(Debug, Default)]
struct Family {
    next: u64,
    active: BTreeMap<u64, Arc<Mutex<Trace>>>,
    lists: [VecDeque<Arc<Mutex<Trace>>>; LISTS],
    latency: Latency,
}

/// A call.
#[derive(Debug)]
struct Trace {
    title: String,
    at: Timestamp,
    begun: Instant,
    /// `None` while it goes on.
    took: Option<Duration>,
    failed: bool,
    events: Vec<Event>,
    forgotten: usize,
}

#[derive(Debug)]
struct Event {
    at: Timestamp,
    /// The one before it, or the call's begin.
    before: Timestamp,
    what: String,
}

/// A call that is remembered; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Active {
    family: &'static str,
    id: u64,
    trace: Arc<Mutex<Trace>>,
}

/// As of now, calls are remembered.
pub(crate) fn remember() {
    if !ON.swap(true, Ordering::Relaxed) {
        super::events::begin();
    }
}

impl Active {
    /// A call of `/service/method`; `None` where none are remembered.
    pub fn begin(
        service: &'static str,
        method: &'static str,
        remote: Option<&SocketAddr>,
        limit: Option<Duration>,
    ) -> Option<Active> {
        if !ON.load(Ordering::Relaxed) {
            return None;
        }
        let trace = Arc::new(Mutex::new(Trace::new(format!("/{service}/{method}"))));
        let id = {
            let mut families = FAMILIES.lock();
            let family = families.entry(service).or_default();
            family.next += 1;
            family.active.insert(family.next, trace.clone());
            family.next
        };
        let active = Active { family: service, id, trace };
        active.note(|| {
            let deadline = limit.map_or_else(|| "none".to_owned(), go::format_duration);
            // Go's word for an address on a socket file.
            let remote = remote.map_or_else(|| "@".to_owned(), ToString::to_string);
            format!("RPC: from {remote} deadline:{deadline}")
        });
        Some(active)
    }

    /// Something happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.trace.lock().add(what());
    }

    /// It ended with an error.
    pub fn fail(&self, why: &Status) {
        let mut trace = self.trace.lock();
        trace.failed = true;
        trace.add(why.message().to_owned());
        let code = code_name(why.code());
        trace.add(format!("rpc error: code = {code} desc = {}", why.message()));
    }

    /// It ended; it is told why, or there is nobody to tell.
    pub fn end(&self, code: Code) {
        let mut trace = self.trace.lock();
        if code != Code::Ok && !trace.failed {
            trace.failed = true;
            trace.add(format!("rpc error: code = {}", code_name(code)));
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut families = FAMILIES.lock();
        let Some(family) = families.get_mut(self.family) else { return };
        family.active.remove(&self.id);
        let (took, failed) = {
            let mut trace = self.trace.lock();
            let took = trace.begun.elapsed();
            trace.took = Some(took);
            (took, trace.failed)
        };
        let slow = |list: &usize| took >= Duration::from_millis(AT_LEAST[*list].0);
        for list in (0..FAILED).filter(slow).chain(failed.then_some(FAILED)) {
            let list = &mut family.lists[list];
            if list.len() == LIST_MAX {
                list.pop_front();
            }
            list.push_back(self.trace.clone());
        }
        family.latency.add(second(), took);
    }
}

impl Trace {
    fn new(title: String) -> Trace {
        let (at, begun) = (Timestamp::now(), Instant::now());
        Trace { title, at, begun, took: None, failed: false, events: Vec::new(), forgotten: 0 }
    }

    fn add(&mut self, what: String) {
        let before = self.events.last().map_or(self.at, |event| event.at);
        let what = if what.chars().count() > TEXT_MAX { what.chars().take(TEXT_MAX).collect() } else { what };
        if self.events.len() == EVENTS_MAX {
            // Two the first time: the one that is taken out, and the one that tells of it.
            self.forgotten += if self.forgotten == 0 { 2 } else { 1 };
            self.events[FORGOTTEN_AT].at = self.events[FORGOTTEN_AT + 1].at;
            self.events[FORGOTTEN_AT].what = format!("({} events discarded)", self.forgotten);
            self.events.remove(FORGOTTEN_AT + 1);
        }
        self.events.push(Event { at: Timestamp::now(), before, what });
    }

    fn html(&self, expanded: bool, out: &mut String) {
        let took = self.took.unwrap_or_else(|| self.begun.elapsed());
        row(out, true, &html::date(self.at), &html::seconds(took), &self.title);
        for Event { at, before, what } in self.events.iter().filter(|_| expanded) {
            let elapsed = html::since(Duration::try_from(at.duration_since(*before)).unwrap_or_default());
            row(out, false, &html::time(*at, *before), &elapsed, &format!("... {what}"));
        }
    }
}

/// Seconds of a clock that does not go back.
fn second() -> u64 {
    static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);
    BEGUN.lock().get_or_insert_with(Instant::now).elapsed().as_secs()
}

/// Go's name of a code.
fn code_name(code: Code) -> &'static str {
    crate::metrics::calls::code_name(code)
}

/// The page.
pub(super) fn page(asked: &Asked) -> String {
    let mut out = html::head("/debug/requests", "/debug/requests", "tr-status", asked.expanded);
    out += "<table id=\"tr-status\">\n";
    let families = FAMILIES.lock();
    for (service, family) in &*families {
        status(service, family, asked.expanded, &mut out);
    }
    out += "</table>\n";
    if let Some((name, column)) = &asked.list
        && let Some((service, family)) =
            families.iter().find(|(service, _)| name.strip_prefix(PREFIX) == Some(**service))
    {
        family.list(&format!("{PREFIX}{service}"), *column, asked, &mut out);
    }
    out + "</body>\n</html>\n"
}

/// Before a service's name.
const PREFIX: &str = "grpc.Recv.";

fn status(service: &str, family: &Family, expanded: bool, out: &mut String) {
    let name = format!("{PREFIX}{service}");
    *out += &format!("<tr><td class=\"family\">{name}</td>\n");
    let active = family.active.len();
    html::cell(out, "active", (&name, -1), expanded, &format!("{active} active"), active == 0);
    let shown = AT_LEAST.iter().map(|(_, text)| *text).chain(["errors"]);
    for ((column, list), text) in (0..).zip(&family.lists).zip(shown) {
        html::cell(out, "", (&name, column), expanded, text, list.is_empty());
    }
    for (column, (text, class)) in (LISTS..).zip([("minute", "latency-first"), ("hour", ""), ("total", "")]) {
        html::cell(out, class, (&name, column as i64), false, text, false);
    }
    *out += "</tr>\n";
}

impl Family {
    fn list(&self, name: &str, column: i64, asked: &Asked, out: &mut String) {
        let Ok(at) = usize::try_from(column) else {
            let active: Vec<_> = self.active.values().rev().take(ACTIVE_MAX).collect();
            return traces(name, column, asked, &active, self.active.len(), out);
        };
        match self.lists.get(at) {
            // None of ours belongs to somebody else's trace.
            Some(list) => {
                let list: Vec<_> = list.iter().rev().filter(|_| !asked.traced).collect();
                traces(name, column, asked, &list, list.len(), out);
            }
            None => {
                if let Some((over, spread)) = self.latency.column(at - LISTS, second()) {
                    *out += &format!("<h4>Latency (&micro;s) of {name} over {over}</h4>\n{}", spread.html());
                }
            }
        }
    }
}

fn traces(name: &str, column: i64, asked: &Asked, list: &[&Arc<Mutex<Trace>>], all: usize, out: &mut String) {
    if list.is_empty() {
        return;
    }
    *out += &format!("<hr />\n<h3>Family: {name}</h3>\n");
    let query = |rest: &str| format!("fam={name}&b={column}{rest}");
    let Asked { expanded, traced, .. } = *asked;
    choice(out, !expanded && !traced, &query(""), "Normal/Summary");
    choice(out, expanded && !traced, &query("&exp=1"), "Normal/Expanded");
    if column >= 0 {
        choice(out, !expanded && traced, &query("&rtraced=1"), "Traced/Summary");
        choice(out, expanded && traced, &query("&exp=1&rtraced=1"), "Traced/Expanded");
    }
    if list.len() < all {
        *out += &format!("<p><em>Showing <b>{}</b> of <b>{all}</b> traces.</em></p>\n", list.len());
    }
    let caption = if column < 0 { "Active" } else { "Completed" };
    *out += &format!("<table id=\"reqs\">\n<caption>{caption} Requests</caption>\n");
    *out += "<tr><th>When</th><th>Elapsed&nbsp;(s)</th></tr>\n";
    list.iter().for_each(|trace| trace.lock().html(expanded, out));
    *out += "</table>\n";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_listed_while_they_go_on_and_afterwards() {
        remember();
        const NAME: &str = "grpc.Recv.tests.Listed";
        let asked = |query: &str| page(&Asked::of(query));
        let call = Active::begin("tests.Listed", "Get", None, Some(Duration::from_secs(5))).unwrap();
        call.note(|| "recv: <key>".to_owned());
        let going = asked(&format!("fam={NAME}&b=-1&exp=1"));
        for text in
            ["[1 active]", "Active Requests", "/tests.Listed/Get", "RPC: from @ deadline:5s", "recv: &lt;key&gt;"]
        {
            assert!(going.contains(text), "{text} in {going}");
        }
        call.fail(&Status::not_found("no such key"));
        call.end(Code::NotFound);
        drop(call);
        for column in [0, FAILED] {
            let over = asked(&format!("fam={NAME}&b={column}&exp=1"));
            for text in ["[0 active]", "Completed Requests", "rpc error: code = NotFound desc = no such key"] {
                assert!(over.contains(text), "{text} in {over}");
            }
        }
        assert!(!asked(&format!("fam={NAME}&b=5")).contains("Completed"), "it took no second");
        assert!(!asked(&format!("fam={NAME}&b=0&rtraced=1")).contains("Completed"), "nobody traced it");
        assert!(asked(&format!("fam={NAME}&b=11")).contains("Count: 1<"));
        assert!(!asked("fam=<script>&b=0").contains("<script>"));
    }

    #[test]
    fn lists_and_events_have_their_limits() {
        remember();
        for n in 0..LIST_MAX + 5 {
            let call = Active::begin("tests.Limits", "Get", None, None).unwrap();
            (0..20).for_each(|event| call.note(|| format!("event {n}.{event}.")));
        }
        let page = page(&Asked::of("fam=grpc.Recv.tests.Limits&b=0&exp=1"));
        assert_eq!(page.matches("/tests.Limits/Get").count(), LIST_MAX);
        // The first that is still there: of 21 events, 4 and 5 with the word for the others between them.
        let shown: Vec<_> = ["event 5.2.", "(12 events discarded)", "event 5.15.", "event 5.19."]
            .iter()
            .map(|text| page.contains(text))
            .collect();
        assert_eq!(shown, [true; 4], "{page}");
        assert!(!page.contains("event 5.3.") && !page.contains("event 5.14.") && !page.contains("event 4."));
    }
}
