//! What people and kubelets ask over plain HTTP: health, versions, and who may ask.

use crate::record::Side;
use crate::web;

fn ask(side: &mut Side, method: &str, path: &str, headers: &[(&str, &str)]) {
    let mut reply = web::send(&side.address, method, path, headers, "");
    // Checks run in any order in Go.
    if path.contains("z") {
        let mut lines: Vec<_> = reply.body.lines().collect();
        lines.sort_unstable();
        reply.body = lines.join("\n");
    }
    // The gateway's JSON has spaces at random in Go, on purpose.
    if path.starts_with("/v3") {
        reply.body = reply.body.replace(", ", ",").replace(": ", ":");
    }
    side.write(format!("{method} {path} {headers:?}"), reply.shown(), &[]);
}

const PATHS: [&str; 24] = [
    "/health",
    "/health?serializable=true",
    "/health?serializable=TRUE",
    "/health?exclude=NOSPACE",
    "/health?exclude=CORRUPT",
    "/health?exclude=NOSPACE&exclude=CORRUPT",
    "/health?exclude=nospace",
    "/health/",
    "/livez",
    "/livez?verbose",
    "/livez/serializable_read",
    "/livez/serializable_read?verbose",
    "/livez?exclude=serializable_read&verbose=true",
    "/livez/nothing",
    "/readyz",
    "/readyz?verbose",
    "/readyz?verbose&exclude=data_corruption",
    "/readyz?exclude=data_corruption&exclude=nothing",
    "/readyz/data_corruption",
    "/readyz/serializable_read?verbose",
    "/readyz/linearizable_read",
    "/readyz/non_learner?exclude=non_learner",
    "/readyz/nothing",
    "/version",
];

/// All of it, with each alarm.
pub async fn talk(side: &mut Side) {
    for path in PATHS {
        ask(side, "GET", path, &[]);
    }
    for method in ["POST", "HEAD", "PUT", "OPTIONS", "DELETE"] {
        for path in ["/health", "/livez", "/readyz/non_learner", "/version", "/debug/vars", "/nothing"] {
            ask(side, method, path, &[]);
        }
    }
    for alarm in ["NOSPACE", "CORRUPT"] {
        let raise = |action: &str| format!(r#"{{"action":"{action}","alarm":"{alarm}","memberID":"5"}}"#);
        web::post(&side.address, "/v3/maintenance/alarm", &raise("ACTIVATE"));
        for path in PATHS {
            ask(side, "GET", path, &[]);
        }
        web::post(&side.address, "/v3/maintenance/alarm", &raise("DEACTIVATE"));
        ask(side, "GET", "/health", &[]);
    }
}

/// Hosts and origins that are let in, and others.
pub async fn access(side: &mut Side) {
    for host in ["good.example", "good.example:2379", "evil.example", "evil.example:80", "[::1]:2379", "GOOD.example"] {
        for path in ["/health", "/version", "/v3/kv/range", "/nothing"] {
            ask(side, "GET", path, &[("Host", host)]);
        }
    }
    for origin in ["http://good.example:8000", "http://good.example", "http://evil.example:8000", ""] {
        let headers = [("Host", "good.example"), ("Origin", origin)];
        for method in ["GET", "OPTIONS", "POST"] {
            ask(side, method, "/version", &headers);
            ask(side, method, "/v3/kv/range", &headers);
        }
    }
}

/// Without `/v3/`, and all the rest.
pub async fn talk_without_gateway(side: &mut Side) {
    for path in ["/v3/kv/range", "/v3/watch", "/v3beta/kv/range", "/health", "/version"] {
        for method in ["GET", "POST", "OPTIONS"] {
            ask(side, method, path, &[]);
        }
    }
}
