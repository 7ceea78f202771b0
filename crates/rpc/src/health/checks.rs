//! The checks behind `/livez` and `/readyz`.

use super::read;
use crate::backend::Member;
use crate::metrics;
use api::pb::etcdserverpb::AlarmType;
use std::fmt;

/// One check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub name: &'static str,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// No member's data differs from the others'.
    Corruption,
    Read {
        serializable: bool,
    },
    NonLearner,
}

const LOCAL: Check = Check { name: "serializable_read", kind: Kind::Read { serializable: true } };

/// `/livez`: a member for which it fails is to be started again.
pub(crate) const LIVE: &[Check] = &[LOCAL];
/// `/readyz`: a member for which it fails is to get no requests. Room for data does not matter: it serves reads.
pub(crate) const READY: &[Check] = &[
    Check { name: "data_corruption", kind: Kind::Corruption },
    LOCAL,
    Check { name: "linearizable_read", kind: Kind::Read { serializable: false } },
    Check { name: "non_learner", kind: Kind::NonLearner },
];

/// What came of a check.
pub(crate) struct Checked {
    name: &'static str,
    pub outcome: Result<(), String>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(()) => writeln!(f, "[+]{} ok", self.name),
            Err(why) => writeln!(f, "[-]{} failed: {why}", self.name),
        }
    }
}

impl Check {
    pub async fn run<M: Member>(&self, member: &M, of: &'static str) -> Checked {
        let outcome = match self.kind {
            Kind::Corruption => {
                let corrupt = member.alarms().iter().any(|alarm| alarm.alarm == AlarmType::Corrupt as i32);
                if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
            }
            Kind::Read { serializable } => read(member, serializable).await,
            Kind::NonLearner if member.is_learner() => Err("not supported for learner".to_owned()),
            Kind::NonLearner => Ok(()),
        };
        metrics::HEALTHCHECK.with(&[of, self.name], |gauge| gauge.set(i64::from(outcome.is_ok())));
        let status = if outcome.is_ok() { "success" } else { "error" };
        metrics::HEALTHCHECKS.with(&[of, self.name, status], metrics::Counter::inc);
        Checked { name: self.name, outcome }
    }
}
