//! `GET /raft/probing`, every 4 s over each of two connections: round trips and clocks (rafthttp `probing_status.go` and
//! the prober that it uses). Findings go to the log and the metrics; nothing depends on them.

use super::check::hex;
use super::http::{ANSWER_MAX, Line, Sending, whole};
use super::link::Link;
use super::url::Url;
use http::{Request, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Between probes: less than the 5 s after which the connection would be closed (etcd `proberInterval`).
const INTERVAL: Duration = Duration::from_secs(4);
/// Between entries of the log and the metrics (etcd `statusMonitoringInterval`, `statusErrorInterval`).
const HEALTHY: Duration = Duration::from_secs(30);
const UNHEALTHY: Duration = Duration::from_secs(5);
/// A clock that is off by more is warned about.
const DRIFT: SignedDuration = SignedDuration::from_secs(1);

/// The two connections that etcd probes, by the names its log gives them.
pub(crate) const ROUND_TRIPPERS: [&str; 2] = ["ROUND_TRIPPER_SNAPSHOT", "ROUND_TRIPPER_RAFT_MESSAGE"];

/// What the last probe found.
#[derive(Debug, Default, PartialEq)]
struct Health {
    error: Option<String>,
    /// Smoothed: an eighth of each new one.
    rtt: Duration,
    /// Our clock before theirs.
    drift: SignedDuration,
}

impl Health {
    fn answered(&mut self, rtt: Duration, ours: Timestamp, theirs: Timestamp) {
        self.rtt = self.rtt * 7 / 8 + rtt / 8;
        let half = SignedDuration::try_from(self.rtt / 2).unwrap_or_default();
        self.drift = ours.duration_since(theirs) - half;
        self.error = None;
    }
}

/// Probes for ever.
pub(crate) async fn run(link: Arc<Link>, round_tripper: &'static str) {
    let mut line = Line::timed(link.shared.dialer.clone(), link.shared.timeouts);
    let mut url = link.picker.pick();
    let mut health = Health::default();
    let mut report = Instant::now() + UNHEALTHY;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(why) = probe(&link, &mut line, &url, &mut health).await {
            health.error = Some(why);
            // Its own choice: a probe says nothing about the streams.
            url = link.picker.after(&url);
        }
        if Instant::now() >= report {
            report = Instant::now() + monitor(&link, round_tripper, &health);
        }
    }
}

async fn probe(link: &Link, line: &mut Line, url: &Url, health: &mut Health) -> Result<(), String> {
    let mut request = Request::new(Sending::nothing());
    *request.uri_mut() = Uri::from_static("/raft/probing");
    let begin = Instant::now();
    let exchange = async {
        let response = line.ask(url, request).await?;
        let status = response.status();
        Ok::<_, String>((status, whole(response.into_body(), ANSWER_MAX).await?))
    };
    let Ok(outcome) = timeout(link.shared.dialer.timeout + link.shared.timeouts.read, exchange).await else {
        line.close();
        return Err("i/o timeout".to_owned());
    };
    let (status, body) = outcome?;
    if status != StatusCode::OK {
        return Err(format!("unexpected http status {status}"));
    }
    let theirs = clock(&body).ok_or("no health in the answer")?;
    health.answered(begin.elapsed(), Timestamp::now(), theirs);
    Ok(())
}

/// The time in an answer that says `OK`.
pub(crate) fn clock(body: &[u8]) -> Option<Timestamp> {
    let health: serde_json::Value = serde_json::from_slice(body).ok()?;
    health["OK"].as_bool().filter(|ok| *ok)?;
    health["Now"].as_str()?.parse().ok()
}

/// The answer of a member whose clock says `now`. UTC, where Go has its local offset.
pub(crate) fn answer(now: Timestamp) -> String {
    format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n")
}

/// Logs and counts; answers when to do so again.
fn monitor(link: &Link, round_tripper: &str, health: &Health) -> Duration {
    let remote_peer_id = hex(link.id);
    let rtt = go::format_duration(health.rtt);
    if let Some(error) = &health.error {
        tracing::warn!(
            round_tripper_name = round_tripper,
            remote_peer_id,
            rtt,
            error,
            "prober detected unhealthy status"
        );
    }
    if health.drift > DRIFT {
        tracing::warn!(
            round_tripper_name = round_tripper,
            remote_peer_id,
            clock_drift = %health.drift,
            rtt,
            "prober found high clock drift"
        );
    }
    link.meter.round_trip_time.observe(health.rtt);
    if health.error.is_some() { UNHEALTHY } else { HEALTHY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_go_s() {
        let now: Timestamp = "2026-11-21T02:58:40.123456789Z".parse().unwrap();
        assert_eq!(answer(now), "{\"OK\":true,\"Now\":\"2026-11-21T02:58:40.123456789Z\"}\n");
        assert_eq!(clock(answer(now).as_bytes()), Some(now));
        assert_eq!(clock(br#"{"OK":true,"Now":"2026-11-21T03:58:40.123456789+01:00"}"#), Some(now));
        for bad in ["", "{}", r#"{"OK":false,"Now":"2026-11-21T02:58:40Z"}"#, r#"{"OK":true,"Now":"today"}"#, "[1]"] {
            assert_eq!(clock(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn half_a_round_trip_is_no_drift() {
        let mut health = Health { error: Some(String::new()), ..Health::default() };
        let theirs: Timestamp = "2026-11-21T02:58:40Z".parse().unwrap();
        for _ in 0..200 {
            health.answered(Duration::from_millis(80), theirs + Duration::from_millis(40), theirs);
        }
        assert_eq!(health.error, None);
        assert!(health.drift.abs() < SignedDuration::from_millis(1), "{health:?}");
        health.answered(Duration::ZERO, theirs + Duration::from_secs(2), theirs);
        assert!(health.drift > DRIFT);
    }
}
