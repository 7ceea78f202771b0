//! `/health`, `/livez` and `/readyz` (reference/http.md section 3): what people and kubelets ask a member.

mod checks;

use crate::answers::Body;
use crate::backend::Member;
use crate::metrics;
use crate::plain::{TEXT, answer, error, said, unescape};
use api::pb::etcdserverpb::AlarmType;
use checks::{Check, Checked};
use http::{Response, StatusCode};
use server::Response as Answered;
use std::time::Duration;

/// How long `/health` waits for its read (etcd `ServerConfig.ReqTimeout` with the default election timeout).
const PATIENCE: Duration = Duration::from_secs(7);

/// A question of the kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Health { exclude: Vec<String>, serializable: bool },
    Checks { checks: Vec<&'static Check>, of: &'static str, verbose: bool },
}

impl Probe {
    /// What a path asks; `None` of other paths.
    pub fn of(path: &str, query: &str) -> Option<Probe> {
        let given = pairs(query);
        let excluded = |name: &str| given.iter().any(|(key, value)| key == "exclude" && value == name);
        if path == "/health" {
            let exclude = given.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.clone()).collect();
            let first = given.iter().find(|(key, _)| key == "serializable");
            return Some(Probe::Health { exclude, serializable: first.is_some_and(|(_, value)| value == "true") });
        }
        let (of, rest) = match (path.strip_prefix("/livez"), path.strip_prefix("/readyz")) {
            (Some(rest), _) => ("livez", rest),
            (_, Some(rest)) => ("readyz", rest),
            _ => return None,
        };
        let known = if of == "livez" { checks::LIVE } else { checks::READY };
        let checks: Vec<_> = match rest.strip_prefix('/') {
            None if rest.is_empty() => known.iter().filter(|check| !excluded(check.name)).collect(),
            None => return None,
            Some(name) => vec![known.iter().find(|check| check.name == name)?],
        };
        Some(Probe::Checks { checks, of, verbose: given.iter().any(|(key, _)| key == "verbose") })
    }

    pub async fn run<M: Member>(self, member: &M) -> Response<Body> {
        match self {
            Probe::Health { exclude, serializable } => health(member, &exclude, serializable).await,
            Probe::Checks { checks, of, verbose } => {
                let mut done = Vec::with_capacity(checks.len());
                for check in checks {
                    done.push(check.run(member, of).await);
                }
                told(&done, verbose)
            }
        }
    }
}

fn told(done: &[Checked], verbose: bool) -> Response<Body> {
    let lines: String = done.iter().map(ToString::to_string).collect();
    match done.iter().all(|checked| checked.outcome.is_ok()) {
        false => error(StatusCode::SERVICE_UNAVAILABLE, lines),
        true if verbose => said(StatusCode::OK, lines + "ok\n"),
        true => said(StatusCode::OK, "ok\n"),
    }
}

async fn health<M: Member>(member: &M, exclude: &[String], serializable: bool) -> Response<Body> {
    match unwell(member, exclude, serializable).await {
        None => {
            metrics::HEALTH_SUCCESS.inc();
            answer(StatusCode::OK, TEXT, r#"{"health":"true","reason":""}"#)
        }
        Some(reason) => {
            metrics::HEALTH_FAILURES.inc();
            let reason = serde_json::Value::from(reason);
            error(StatusCode::SERVICE_UNAVAILABLE, format!(r#"{{"health":"false","reason":{reason}}}"#))
        }
    }
}

/// Why the member is not well, if it isn't.
async fn unwell<M: Member>(member: &M, exclude: &[String], serializable: bool) -> Option<String> {
    let kinds = member.alarms().into_iter().map(|alarm| AlarmType::try_from(alarm.alarm));
    let name = |kind: Result<AlarmType, _>| kind.map_or("UNKNOWN", |kind| kind.as_str_name());
    if let Some(name) = kinds.map(name).find(|name| !exclude.iter().any(|excluded| excluded == name)) {
        return Some(match name {
            "NOSPACE" | "CORRUPT" => format!("ALARM {name}"),
            _ => "ALARM UNKNOWN".to_owned(),
        });
    }
    if !serializable && !*member.leader_known().borrow() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = tokio::time::timeout(PATIENCE, read(member, serializable)).await;
    let outcome = read.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
    outcome.err().map(|why| format!("RANGE ERROR:{why}"))
}

/// Reads something as the member itself.
async fn read<M: Member>(member: &M, serializable: bool) -> Result<(), String> {
    match member.probe(serializable).await.unwrap_or(Err(api::Error::Stopped)) {
        Ok(Answered::Range(_) | Answered::LargeRange(_)) => Ok(()),
        Ok(other) => Err(format!("the member answered {other:?}")),
        Err(e) => Err(e.message().to_owned()),
    }
}

/// Keys and values of a query; what can't be read of it is left out, as Go does.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(key, true)?, unescape(value, true)?))
    };
    query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, query: &str) -> Option<(Vec<&'static str>, bool)> {
        match Probe::of(path, query)? {
            Probe::Checks { checks, verbose, .. } => Some((checks.iter().map(|c| c.name).collect(), verbose)),
            Probe::Health { .. } => None,
        }
    }

    #[test]
    fn paths_and_queries_choose_the_checks() {
        assert_eq!(names("/livez", ""), Some((vec!["serializable_read"], false)));
        assert_eq!(names("/readyz/non_learner", "verbose"), Some((vec!["non_learner"], true)));
        let (ready, verbose) = names("/readyz", "exclude=non_learner&exclude=linearizable_read&verbose=0").unwrap();
        assert_eq!((ready, verbose), (vec!["data_corruption", "serializable_read"], true));
        assert_eq!(names("/readyz/serializable_read", "exclude=serializable_read").unwrap().0.len(), 1);
        for unknown in ["/livez/", "/livezz", "/livez/non_learner", "/readyz/x", "/healthz", "/"] {
            assert_eq!(Probe::of(unknown, ""), None, "{unknown}");
        }
        let health = Probe::of("/health", "exclude=NO%53PACE&exclude=X&serializable=true&serializable=false&bad=%");
        let exclude = vec!["NOSPACE".to_owned(), "X".to_owned()];
        assert_eq!(health, Some(Probe::Health { exclude, serializable: true }));
    }
}
