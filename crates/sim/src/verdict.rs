//! What the log must have done: finds the course of events that explains what was seen, or says that there is none.
//!
//! Asked operations go through the log in the order of asking; revocations of expired leases follow those that were
//! asked before the tick that proposed them. After a turn every asked operation is in; after a crash some prefix is.
//! Two things are not known from outside: whether the quota refused an operation before the log or after its effect,
//! and what became of an operation that was answered with a timeout. Both are decided by the published changes.

use crate::clocks::Clocks;
use crate::model::{Auth, Happening, Model, User, plain};
use crate::ops::Op;
use api::pb::{authpb, etcdserverpb as pb};
use server::Response;
use std::collections::BTreeMap;
use store::{Applied, Change, Event, Prev};

pub type Outcome = Result<Response, api::Error>;

/// An operation on its way, and its answer if there is one.
#[derive(Clone, Debug)]
pub struct Asked {
    pub ticket: u64,
    pub op: Op,
    pub asked_ms: u64,
    pub reply: Option<Outcome>,
}

/// What was seen.
pub struct Evidence<'a> {
    pub applied: &'a Applied,
    /// By revision; complete except for what was compacted.
    pub changes: BTreeMap<i64, Change>,
    pub clocks: &'a Clocks,
    pub now_ms: u64,
    pub quota: bool,
    /// The disk was filled up.
    pub full: bool,
    /// The page store may lag so far behind that proposals are refused.
    pub lagging: bool,
    /// After a crash: some of the last operations may be missing, if nobody was told that they are done.
    pub crashed: bool,
    pub member_id: u64,
    /// A call is answered with a timeout after this.
    pub timeout_ms: u64,
}

/// How many failed explanations are told.
const WHYS_MAX: usize = 4;

struct Search<'a> {
    evidence: &'a Evidence<'a>,
    asked: &'a [Asked],
    /// Why each explanation that was tried failed, the first of them.
    whys: Vec<String>,
}

/// A course of events so far.
#[derive(Clone)]
struct Course {
    model: Model,
    /// An operation went over the quota when it was applied: the alarm is raised after it.
    late_alarm: bool,
}

/// The state after everything that happened, and how many of the asked operations did.
///
/// # Errors
/// Nothing explains it; the text says why not.
pub fn explain(model: &Model, asked: &[Asked], evidence: &Evidence<'_>) -> Result<(Model, usize), String> {
    let mut search = Search { evidence, asked, whys: Vec::new() };
    let course = Course { model: model.clone(), late_alarm: false };
    match search.follow(course, 0) {
        Some(found) => Ok(found),
        None => Err(search.whys.join("; or: ")),
    }
}

impl Search<'_> {
    fn follow(&mut self, course: Course, at: usize) -> Option<(Model, usize)> {
        let told = |a: &Asked| matches!(a.reply, Some(Ok(_)));
        if at == self.asked.len() || self.evidence.crashed && !self.asked[at..].iter().any(told) {
            match self.finish(course.clone(), at == self.asked.len()) {
                Ok(model) => return Some((model, at)),
                Err(why) => self.fail(at, why),
            }
        }
        let asked = self.asked.get(at)?;
        match self.applied(course.clone(), asked) {
            Ok(next) => {
                if let Some(found) = self.follow(next, at + 1) {
                    return Some(found);
                }
            }
            Err(why) => self.fail(at, why),
        }
        let refused = [self.refused_for_space(course.clone(), asked), self.refused_without_effect(course, asked)];
        refused.into_iter().flatten().find_map(|course| self.follow(course, at + 1))
    }

    fn fail(&mut self, at: usize, why: String) {
        if self.whys.len() < WHYS_MAX {
            self.whys.push(format!("after {at} of {}: {why}", self.asked.len()));
        }
    }

    /// The operation went through the log.
    fn applied(&self, mut course: Course, asked: &Asked) -> Result<Course, String> {
        let before = course.model.revision;
        let outcome = course.model.apply(&asked.op);
        self.check_answer(asked, &outcome, &mut course)?;
        if course.model.revision > before {
            self.check_change(&course.model, &format!("{:?}", asked.op))?;
        }
        Ok(course)
    }

    fn check_answer(&self, asked: &Asked, outcome: &Outcome, course: &mut Course) -> Result<(), String> {
        let physical = matches!(&asked.op, Op::Compact(r) if r.physical);
        let mut reply = match &asked.reply {
            None if self.evidence.crashed || physical => return Ok(()),
            None => return Err(format!("{} {:?} is not answered", asked.ticket, asked.op)),
            Some(reply) => reply.clone(),
        };
        if reply == Err(api::Error::Timeout) && self.evidence.now_ms >= asked.asked_ms + self.evidence.timeout_ms {
            return Ok(());
        }
        let over_quota = self.evidence.quota && asked.op.costs() && outcome.is_ok();
        if over_quota && reply == Err(api::Error::NoSpace) {
            course.late_alarm = true;
            return Ok(());
        }
        if let Ok(response) = &mut reply {
            plain(response);
        }
        match reply == *outcome {
            true => Ok(()),
            false => Err(format!("{} {:?} answered {reply:?}, the model says {outcome:?}", asked.ticket, asked.op)),
        }
    }

    /// The quota refused it before it was proposed: the alarm went through the log instead.
    fn refused_for_space(&self, mut course: Course, asked: &Asked) -> Option<Course> {
        let answered = matches!(asked.reply, None | Some(Err(api::Error::NoSpace | api::Error::Timeout)));
        if !self.evidence.quota || !asked.op.costs() || !answered {
            return None;
        }
        course.model.alarms.insert(self.nospace());
        Some(course)
    }

    /// There was no room for another log segment, or the page store lags too far: nothing happened.
    fn refused_without_effect(&self, course: Course, asked: &Asked) -> Option<Course> {
        let full = self.evidence.full && asked.op.costs();
        let possible = match &asked.reply {
            None => self.evidence.crashed && (full || self.evidence.lagging),
            Some(Err(api::Error::NoSpace)) => full,
            Some(Err(api::Error::RequestTooManyRequests)) => self.evidence.lagging,
            Some(_) => false,
        };
        possible.then_some(course)
    }

    fn nospace(&self) -> (u64, i32) {
        (self.evidence.member_id, pb::AlarmType::Nospace as i32)
    }

    /// What the newest revision of the model did must have been published just so.
    fn check_change(&self, model: &Model, what: &str) -> Result<(), String> {
        let revision = model.revision;
        if revision > self.evidence.applied.revision() {
            return Err(format!(
                "{what} makes revision {revision}, the member is at {}",
                self.evidence.applied.revision()
            ));
        }
        if self.evidence.crashed && revision <= self.evidence.applied.compact_revision() {
            // What a crash left may be compacted already.
            return Ok(());
        }
        let Some(change) = self.evidence.changes.get(&revision) else {
            return Err(format!("{what} makes revision {revision}, which was not published"));
        };
        let happened = model.happenings(revision);
        let same = change.events.len() == happened.len()
            && change.events.iter().zip(happened).all(|(event, happening)| is_same(event, happening));
        match same {
            true => Ok(()),
            false => Err(format!("{what} is to do {happened:?}, published is {change:?}")),
        }
    }

    /// What is left must be expiry, and then the states must be equal.
    fn finish(&self, mut course: Course, all: bool) -> Result<Model, String> {
        let applied = self.evidence.applied;
        if all {
            while course.model.revision < applied.revision() {
                course.model = self.expire_next(&course.model)?;
            }
            for id in course.model.lease_ids().into_iter().filter(|id| applied.lease(*id).is_none()) {
                if course.model.attached(id).is_empty() {
                    course.model = self.expire(&course.model, id)?;
                }
            }
        }
        if course.late_alarm {
            course.model.alarms.insert(self.nospace());
        }
        if self.evidence.crashed && self.evidence.quota {
            // The alarm of an operation that went over the quota may be in the log or not.
            let alarmed = applied.alarms().iter().any(|a| (a.member_id, a.alarm) == self.nospace());
            if alarmed {
                course.model.alarms.insert(self.nospace());
            }
        }
        compare(&course.model, applied)?;
        Ok(course.model)
    }

    fn expire_next(&self, model: &Model) -> Result<Model, String> {
        let mut why = format!("revision {} was published and nobody asked for it", model.revision + 1);
        for id in model.lease_ids().into_iter().filter(|id| !model.attached(*id).is_empty()) {
            match self.expire(model, id).and_then(|m| self.check_change(&m, "an expiry").map(|()| m)) {
                Ok(next) => return Ok(next),
                Err(e) => why = format!("{why}; lease {id}: {e}"),
            }
        }
        Err(why)
    }

    fn expire(&self, model: &Model, id: i64) -> Result<Model, String> {
        if !self.evidence.clocks.may_expire(id, self.evidence.now_ms) {
            let left = self.evidence.clocks.left(id, self.evidence.now_ms);
            return Err(format!("lease {id} would be revoked early: {left:?} seconds are left"));
        }
        let mut next = model.clone();
        next.apply(&Op::Revoke { id }).map_err(|e| e.to_string())?;
        Ok(next)
    }
}

fn is_same(event: &Event, happening: &Happening) -> bool {
    let prev = match event.prev() {
        Prev::Unknown => true,
        Prev::None => happening.prev.is_none(),
        Prev::Some(kv) => happening.prev.as_ref() == Some(kv),
    };
    matches!(event, Event::Delete { .. }) == happening.delete && **event.kv() == happening.kv && prev
}

fn text(name: &bytes::Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Everything that can be seen of a state.
///
/// # Errors
/// What differs.
pub fn compare(model: &Model, applied: &Applied) -> Result<(), String> {
    let seen = (applied.revision(), applied.compact_revision());
    if seen != (model.revision, model.compacted) {
        let expected = (model.revision, model.compacted);
        return Err(format!("the member is at revision {} (compacted {}), the model {expected:?}", seen.0, seen.1));
    }
    let leases: BTreeMap<_, _> = applied.leases().map(|(id, l)| (id, (l.ttl(), l.keys()))).collect();
    if leases != model.leases() {
        return Err(format!("leases are {leases:?}, the model has {:?}", model.leases()));
    }
    let alarms = applied.alarms().iter().map(|a| (a.member_id, a.alarm)).collect();
    if model.alarms != alarms {
        return Err(format!("alarms are {alarms:?}, the model has {:?}", model.alarms));
    }
    let auth = applied.auth();
    let user = |user: &authpb::User| {
        let no_password = user.options.is_some_and(|options| options.no_password);
        let roles = user.roles.iter().cloned().collect();
        (text(&user.name), User { password: user.password.clone(), no_password, roles })
    };
    let seen = Auth {
        enabled: auth.is_enabled(),
        revision: auth.revision(),
        users: auth.users().map(user).collect(),
        roles: auth.roles().map(|role| (text(&role.name), role.key_permission.clone())).collect(),
    };
    if seen != *model.auth {
        return Err(format!("users and roles are {seen:?}, the model has {:?}", model.auth));
    }
    let everything = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let mut seen = Response::Range(applied.range(&everything).map_err(|e| e.to_string())?);
    plain(&mut seen);
    match seen == Response::Range(model.everything()) {
        true => Ok(()),
        false => Err(format!("the state is {seen:?}, the model has {:?}", model.everything())),
    }
}
