//! A member's state is the model's at the same index; what the model does not know is the same at all members.

use crate::cluster::history::History;
use crate::verdict;
use api::raft::ConfState;
use store::Applied;

/// The state that a member published.
///
/// # Errors
/// What differs.
pub fn check(applied: &Applied, history: &mut History) -> Result<(), String> {
    let index = applied.index();
    let model = history.model(index).ok_or(format!("a member is at {index}, nobody applied that"))?.clone();
    verdict::compare(&model, applied).map_err(|e| format!("behind entry {index}: {e}"))?;
    let members = applied.members();
    let ids = |learners: bool| members.iter().filter(|m| m.is_learner == learners).map(|m| m.id).collect::<Vec<_>>();
    let conf = sorted(applied.conf_state());
    if (&conf.0, &conf.1) != (&sorted_ids(ids(false)), &sorted_ids(ids(true))) {
        return Err(format!("behind entry {index}: members are {members:?}, ConfState says {conf:?}"));
    }
    let version = applied.cluster_version();
    let target = Some(applied.downgrade()).filter(|downgrade| downgrade.enabled);
    let seen = (version, target.map(|downgrade| downgrade.target_version.as_str()));
    if seen != (model.cluster_version.as_deref(), model.downgrade.as_deref()) {
        let expected = (&model.cluster_version, &model.downgrade);
        return Err(format!(
            "behind entry {index}: cluster version and downgrade are {seen:?}, the model has {expected:?}"
        ));
    }
    history.agree(index, format!("{members:?}, cluster version {version:?}, downgrade {:?}", applied.downgrade()))
}

fn sorted(conf: &ConfState) -> (Vec<u64>, Vec<u64>) {
    (sorted_ids(conf.voters.clone()), sorted_ids(conf.learners.clone()))
}

fn sorted_ids(mut ids: Vec<u64>) -> Vec<u64> {
    ids.sort_unstable();
    ids
}

/// HashKV, where it is defined by the state alone: no compaction has anything left to delete.
///
/// # Errors
/// It is not the model's.
pub fn check_hash(applied: &Applied, history: &History) -> Result<(), String> {
    let model = history.model(applied.index()).ok_or("a member is ahead of all others")?;
    let hash = applied.hash_kv(0, &|_| ()).map_err(|e| e.to_string())?;
    if hash.compact_revision < model.compacted && hash.revision == model.compacted {
        // The stored hash of the compaction of exactly this revision is told (semantics 10.4).
        return Ok(());
    }
    let expected = model.hash_kv();
    match hash.hash == expected && hash.revision == model.revision {
        true => Ok(()),
        false => Err(format!("HashKV is {hash:?}, the model says {expected:08x} at {}", model.revision)),
    }
}
