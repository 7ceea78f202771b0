//! Taking an applied conf change into effect.

use crate::confchange::{Changer, ConfChangeV2};
use crate::config::Role;
use crate::logging::note;
use crate::state::Raft;
use crate::tracker::{MemberConfig, ProgressMap};
use api::raft::ConfState;

impl Raft {
    /// # Errors
    /// The change is against the rules, which its proposal should have been refused for; nothing changed.
    pub fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, String> {
        let changed = Changer::new(&self.tracker, self.log.last_index()).change(change)?;
        Ok(self.switch_to(changed))
    }

    /// Puts a configuration in force. A smaller quorum may have committed more; new members are sent to at once.
    pub fn switch_to(&mut self, (config, progress): (MemberConfig, ProgressMap)) -> ConfState {
        self.tracker.config = config;
        self.tracker.progress = progress;
        note!(self.logs, Info, "{:x} switched to configuration {}", self.id, self.tracker.config);
        let state = self.tracker.config.conf_state();
        if self.role != Role::Leader {
            return state;
        }
        if self.tracker.progress.get(&self.id).is_none_or(|p| p.is_learner) {
            // Removed or demoted. Unless told otherwise it leads on, so that its followers learn of it, without
            // counting itself and without taking proposals, until its owner stops it.
            if self.config.step_down_on_removal {
                self.become_follower(self.term, 0);
            }
            return state;
        }
        if state.voters.is_empty() {
            return state;
        }
        if self.maybe_commit() {
            self.release_early_reads();
            self.broadcast_append();
        } else {
            for to in self.tracker.others(self.id) {
                self.maybe_send_append(to, false);
            }
        }
        if !self.tracker.config.voters.contains(self.transferee) {
            self.transferee = 0;
        }
        state
    }
}
