//! Replays the scripts on configuration changes.

use crate::describe::parse_changes;
use crate::script::{Command, Driven};
use raft::confchange::Changer;
use raft::tracker::Tracker;

/// One configuration; each command is one index further.
pub struct Changes {
    tracker: Tracker,
    index: u64,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { tracker: Tracker::new(10, 0), index: 0 }
    }
}

impl Driven for Changes {
    fn run(&mut self, c: &Command) -> String {
        let changes = parse_changes(c.input.iter().flat_map(|line| line.split_whitespace()));
        let changer = Changer::new(&self.tracker, self.index);
        self.index += 1;
        let changed = match c.name.as_str() {
            "simple" => changer.simple(&changes),
            "enter-joint" => changer.enter_joint(c.is_true("autoleave"), &changes),
            "leave-joint" => changer.leave_joint(),
            other => panic!("unknown command {other}"),
        };
        match changed {
            Err(error) => error,
            Ok((config, progress)) => {
                let members: Vec<String> = progress.iter().map(|(id, p)| format!("{id}: {p}\n")).collect();
                let text = format!("{config}\n{}", members.concat());
                (self.tracker.config, self.tracker.progress) = (config, progress);
                text
            }
        }
    }
}
