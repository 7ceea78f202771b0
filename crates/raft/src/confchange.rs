//! How a configuration becomes the next one: simply, by at most one voter, or through a joint configuration.
//!
//! etcd proposes V1 changes only, which are always simple. Joint consensus (Raft dissertation, 4.3, as etcd's raft
//! words it in `ConfChangeV2`) is served so that the core is whole.
//!
//! A change that the rules forbid is an error and changes nothing. Invariants are the [tracker's](crate::tracker).

use crate::inflights::Inflights;
use crate::progress::Progress;
use crate::tracker::{MemberConfig, ProgressMap, Tracker};
use api::pb::raftpb as pb;
use api::raft::{ConfChange, ConfChangeKind, ConfState, Malformed};
use bytes::Bytes;
use prost::Message as _;
use std::fmt;

/// How a V2 change is to be carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transition {
    /// Simply if that is possible, else jointly, leaving the joint configuration automatically.
    #[default]
    Auto,
    /// Jointly, left automatically.
    JointImplicit,
    /// Jointly, left by an empty change.
    JointExplicit,
}

/// One member's part in a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Single {
    /// What happens to the member.
    pub kind: ConfChangeKind,
    /// 0 changes nothing.
    pub node_id: u64,
}

/// A configuration change of several members at once; without changes it leaves a joint configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeV2 {
    /// Whether it goes through a joint configuration.
    pub transition: Transition,
    /// In the order in which they are carried out.
    pub changes: Vec<Single>,
    /// The application's.
    pub context: Bytes,
}

impl ConfChangeV2 {
    /// Bytes of an entry's data; the default is empty.
    pub fn encode(&self) -> Vec<u8> {
        let change = |c: &Single| pb::ConfChangeSingle {
            r#type: Some(c.kind as i32),
            node_id: (c.node_id != 0).then_some(c.node_id),
        };
        pb::ConfChangeV2 {
            transition: (self.transition != Transition::Auto).then_some(self.transition as i32),
            changes: self.changes.iter().map(change).collect(),
            context: (!self.context.is_empty()).then(|| self.context.clone()),
        }
        .encode_to_vec()
    }

    /// # Errors
    /// The bytes are no change of this kind.
    pub fn decode(bytes: Bytes) -> Result<ConfChangeV2, Malformed> {
        let c = pb::ConfChangeV2::decode(bytes)?;
        let transition = match c.transition.unwrap_or(0) {
            0 => Transition::Auto,
            1 => Transition::JointImplicit,
            2 => Transition::JointExplicit,
            other => return Err(Malformed(format!("unknown conf change transition {other}"))),
        };
        let single = |c: pb::ConfChangeSingle| Ok(Single { kind: kind(c.r#type.unwrap_or(0))?, node_id: c.node_id() });
        let changes = c.changes.into_iter().map(single).collect::<Result<_, Malformed>>()?;
        Ok(ConfChangeV2 { transition, changes, context: c.context.unwrap_or_default() })
    }

    /// Whether this change takes a joint configuration, and if so, whether it is to be left automatically.
    pub fn enters_joint(&self) -> Option<bool> {
        match self.transition {
            Transition::Auto if self.changes.len() <= 1 => None,
            Transition::Auto | Transition::JointImplicit => Some(true),
            Transition::JointExplicit => Some(false),
        }
    }

    /// Whether this change leaves a joint configuration.
    pub fn leaves_joint(&self) -> bool {
        self.transition == Transition::Auto && self.changes.is_empty()
    }
}

fn kind(number: i32) -> Result<ConfChangeKind, Malformed> {
    Ok(match number {
        0 => ConfChangeKind::AddNode,
        1 => ConfChangeKind::RemoveNode,
        2 => ConfChangeKind::UpdateNode,
        3 => ConfChangeKind::AddLearnerNode,
        other => return Err(Malformed(format!("unknown conf change type {other}"))),
    })
}

impl From<&ConfChange> for ConfChangeV2 {
    /// A V1 change is one change, never joint.
    fn from(change: &ConfChange) -> ConfChangeV2 {
        let single = Single { kind: change.kind, node_id: change.node_id };
        ConfChangeV2 { transition: Transition::Auto, changes: vec![single], context: change.context.clone() }
    }
}

/// As etcd logs it.
impl fmt::Display for ConfChangeV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transition:ConfChangeTransition{:?}", self.transition)?;
        for c in &self.changes {
            write!(f, " changes:{{type:ConfChange{:?} node_id:{}}}", c.kind, c.node_id)?;
        }
        Ok(())
    }
}

/// Makes the next configuration from the present one; new members begin at `last_index`, probing.
pub struct Changer {
    config: MemberConfig,
    progress: ProgressMap,
    inflights: Inflights,
    last_index: u64,
}

/// The next configuration with its members' progress, or why there is none.
pub type Changed = Result<(MemberConfig, ProgressMap), String>;

impl Changer {
    /// Begins at the configuration in force; `last_index` is that of the log.
    pub fn new(tracker: &Tracker, last_index: u64) -> Changer {
        Changer {
            config: tracker.config.clone(),
            progress: tracker.progress.clone(),
            inflights: tracker.inflights(),
            last_index,
        }
    }

    /// Carries out a change in the way it asks for.
    ///
    /// # Errors
    /// The rules forbid it now.
    pub fn change(self, change: &ConfChangeV2) -> Changed {
        if change.leaves_joint() {
            return self.leave_joint();
        }
        match change.enters_joint() {
            Some(auto_leave) => self.enter_joint(auto_leave, &change.changes),
            None => self.simple(&change.changes),
        }
    }

    /// Changes at most one voter, at once.
    ///
    /// # Errors
    /// The configuration is joint, more than one voter would change, or none would be left.
    pub fn simple(mut self, changes: &[Single]) -> Changed {
        if self.config.is_joint() {
            return Err("can't apply simple config change in joint config".into());
        }
        let before = self.config.voters.incoming.clone();
        self.apply(changes)?;
        let after = &self.config.voters.incoming;
        let gone = before.iter().filter(|id| !after.contains(*id)).count();
        let come = after.iter().filter(|id| !before.contains(*id)).count();
        if gone + come > 1 {
            return Err("more than one voter changed without entering joint config".into());
        }
        self.finish()
    }

    /// The present voters become the outgoing half, the changed ones the incoming half.
    ///
    /// # Errors
    /// The configuration is joint already, has no voters or would have none.
    pub fn enter_joint(mut self, auto_leave: bool, changes: &[Single]) -> Changed {
        if self.config.is_joint() {
            return Err("config is already joint".into());
        }
        if self.config.voters.incoming.is_empty() {
            return Err("can't make a zero-voter config joint".into());
        }
        self.config.voters.outgoing = self.config.voters.incoming.clone();
        self.apply(changes)?;
        self.config.auto_leave = auto_leave;
        self.finish()
    }

    /// Only the incoming half stays; voters that were to become learners do.
    ///
    /// # Errors
    /// The configuration is not joint.
    pub fn leave_joint(mut self) -> Changed {
        if !self.config.is_joint() {
            return Err("can't leave a non-joint config".into());
        }
        for id in std::mem::take(&mut self.config.learners_next) {
            self.config.learners.insert(id);
            if let Some(progress) = self.progress.get_mut(&id) {
                progress.is_learner = true;
            }
        }
        self.config.voters.outgoing = Default::default();
        self.config.auto_leave = false;
        let config = &self.config;
        self.progress.retain(|id, _| config.voters.incoming.contains(*id) || config.learners.contains(id));
        self.finish()
    }

    fn apply(&mut self, changes: &[Single]) -> Result<(), String> {
        for change in changes.iter().filter(|c| c.node_id != 0) {
            match change.kind {
                ConfChangeKind::AddNode => self.make_voter(change.node_id),
                ConfChangeKind::AddLearnerNode => self.make_learner(change.node_id),
                ConfChangeKind::RemoveNode => self.remove(change.node_id),
                // Carries something of the application's; to consensus it is nothing.
                ConfChangeKind::UpdateNode => {}
            }
        }
        match self.config.voters.incoming.is_empty() {
            true => Err("removed all voters".into()),
            false => Ok(()),
        }
    }

    /// A promoted learner keeps its progress.
    fn make_voter(&mut self, id: u64) {
        match self.progress.get_mut(&id) {
            Some(progress) => progress.is_learner = false,
            None => self.begin(id, false),
        }
        self.config.learners.remove(&id);
        self.config.learners_next.remove(&id);
        self.config.voters.incoming.insert(id);
    }

    /// A voter of the outgoing half stays one until the joint configuration is left.
    fn make_learner(&mut self, id: u64) {
        let Some(mut progress) = self.progress.get(&id).cloned() else {
            self.begin(id, true);
            self.config.learners.insert(id);
            return;
        };
        if progress.is_learner {
            return;
        }
        self.remove(id);
        if self.config.voters.outgoing.contains(id) {
            self.config.learners_next.insert(id);
        } else {
            progress.is_learner = true;
            self.config.learners.insert(id);
        }
        self.progress.insert(id, progress);
    }

    fn remove(&mut self, id: u64) {
        self.config.voters.incoming.remove(id);
        self.config.learners.remove(&id);
        self.config.learners_next.remove(&id);
        if !self.config.voters.outgoing.contains(id) {
            self.progress.remove(&id);
        }
    }

    /// Counted as active, so that adding a member does not cost the leader its quorum at the next check.
    fn begin(&mut self, id: u64, is_learner: bool) {
        let mut progress = Progress::new(self.last_index.max(1), self.inflights.clone(), is_learner);
        progress.recent_active = true;
        self.progress.insert(id, progress);
    }

    fn finish(self) -> Changed {
        let voters = &self.config.voters;
        for (id, progress) in &self.progress {
            let learns = self.config.learners.contains(id);
            assert!(learns || voters.contains(*id), "progress of {id}, which is no member");
            assert_eq!(learns, progress.is_learner, "member {id} is both voter and learner");
        }
        let members = voters.ids().into_iter().chain(self.config.learners.iter().copied());
        members.for_each(|id| assert!(self.progress.contains_key(&id), "no progress for member {id}"));
        for id in &self.config.learners_next {
            assert!(voters.outgoing.contains(*id), "{id} is to become a learner but is no outgoing voter");
        }
        Ok((self.config, self.progress))
    }
}

/// The configuration that a snapshot describes, with all members probing at `last_index`. `tracker` must be empty.
///
/// # Errors
/// No configuration leads there: the bytes are not those of a conf state.
pub(crate) fn restore(mut tracker: Tracker, last_index: u64, state: &ConfState) -> Changed {
    let with = |kind, ids: &[u64]| ids.iter().map(|id| Single { kind, node_id: *id }).collect::<Vec<_>>();
    let mut incoming = with(ConfChangeKind::RemoveNode, &state.voters_outgoing);
    incoming.extend(with(ConfChangeKind::AddNode, &state.voters));
    incoming.extend(with(ConfChangeKind::AddLearnerNode, &state.learners));
    incoming.extend(with(ConfChangeKind::AddLearnerNode, &state.learners_next));
    let first = match state.voters_outgoing.is_empty() {
        true => &incoming,
        false => &with(ConfChangeKind::AddNode, &state.voters_outgoing),
    };
    for change in first {
        (tracker.config, tracker.progress) = Changer::new(&tracker, last_index).simple(std::slice::from_ref(change))?;
    }
    if !state.voters_outgoing.is_empty() {
        (tracker.config, tracker.progress) =
            Changer::new(&tracker, last_index).enter_joint(state.auto_leave, &incoming)?;
    }
    Ok((tracker.config, tracker.progress))
}
