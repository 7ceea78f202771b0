//! `/debug/events`: what happened to the gRPC server as a whole; golang.org/x/net/trace's page. As in grpc-go that is its
//! services, and that it serves; errors of single connections are the log's.

use super::html::{self, Asked, choice, row};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

const FAMILY: &str = "grpc.Server";
/// Lists of a family: all, and those with an error not longer ago than that. There are no errors.
const LISTS: [&str; 7] = ["total", "errs<10s", "errs<1m", "errs<10m", "errs<1h", "errs<10h", "errors"];

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

#[derive(Debug)]
struct Server {
    at: Timestamp,
    begun: Instant,
}

/// The server begins to serve.
pub(super) fn begin() {
    *SERVER.lock() = Some(Server { at: Timestamp::now(), begun: Instant::now() });
}

/// The page.
pub(super) fn page(asked: &Asked) -> String {
    let mut out = html::head("events", "/debug/events", "req-status", asked.expanded);
    out += "<table id=\"req-status\">\n";
    let server = SERVER.lock();
    if let Some(server) = &*server {
        out += &format!("<tr><td class=\"family\">{FAMILY}</td>\n");
        for (column, list) in (0..).zip(LISTS) {
            let (class, n) = if column == 0 { ("active", 1) } else { ("", 0) };
            let text = html::escaped(&format!("{n} {list}"));
            html::cell(&mut out, class, (FAMILY, column), asked.expanded, &text, n == 0);
        }
        out += "</tr>\n";
        out += "</table>\n";
        if asked.list.as_ref().is_some_and(|(family, column)| family == FAMILY && *column == 0) {
            server.html(asked.expanded, &mut out);
        }
    } else {
        out += "</table>\n";
    }
    out + "</body>\n</html>\n"
}

impl Server {
    fn html(&self, expanded: bool, out: &mut String) {
        *out += &format!("<hr />\n<h3>Family: {FAMILY}</h3>\n");
        choice(out, !expanded, &format!("fam={FAMILY}&b=0"), "Summary");
        choice(out, expanded, &format!("fam={FAMILY}&b=0&exp=1"), "Expanded");
        *out += "<table id=\"reqs\">\n<tr><th>When</th><th>Elapsed</th></tr>\n";
        row(out, true, &html::date(self.at), &html::seconds(self.begun.elapsed()), "oxetcd");
        let services = crate::metrics::calls::services();
        let events = services.map(|service| format!("RegisterService({})", go::quote(service)));
        for what in events.chain(["serving".to_owned()]).filter(|_| expanded) {
            row(out, false, &html::time(self.at, self.at), &html::since(Duration::ZERO), &format!("... {what}"));
        }
        *out += "</table>\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_and_its_services_are_told() {
        begin();
        let summary = page(&Asked::of(""));
        assert!(summary.contains("[1 total]") && summary.contains("[0 errs&lt;10s]"), "{summary}");
        let all = page(&Asked::of("fam=grpc.Server&b=0&exp=1"));
        for text in ["RegisterService(&#34;etcdserverpb.KV&#34;)", "... serving", "Family: grpc.Server"] {
            assert!(all.contains(text), "{text} in {all}");
        }
    }
}
