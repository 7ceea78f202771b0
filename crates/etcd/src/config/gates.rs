//! Feature gates (`--feature-gates A=true,B=false`), as Kubernetes' component-base defines their syntax.

use go::{parse_bool, quote};
use std::collections::BTreeMap;
use std::fmt;

/// How settled a feature is; `AllAlpha` and `AllBeta` switch whole stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
}

impl Stage {
    /// As `--help` has it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
        }
    }
}

macro_rules! gates {
    ($( $(#[doc = $doc:literal])* $gate:ident: $stage:ident = $default:literal, )*) => {
        /// One feature.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Gate { $( $(#[doc = $doc])* $gate, )* }

        /// Every gate: itself, its name, stage and default.
        pub const GATES: &[(Gate, &str, Stage, bool)] =
            &[$( (Gate::$gate, stringify!($gate), Stage::$stage, $default), )*];
    };
}

gates! {
    /// The leader compares the hashes of compactions with its followers'.
    CompactHashCheck: Alpha = false,
    /// A keepalive of a known lease does not wait for the applied index, and so may renew one whose revocation was
    /// acknowledged: only where it is asked for by name.
    FastLeaseKeepAlive: Beta = true,
    /// A restarted member compares its data with its peers' before it serves.
    InitialCorruptCheck: Alpha = false,
    /// The leader writes down how long leases still live.
    LeaseCheckpoint: Alpha = false,
    /// … even while the cluster version is below 3.6.
    LeaseCheckpointPersist: Alpha = false,
    /// Revocations are admitted when other requests no longer are.
    PriorityRequest: Alpha = false,
    /// Peers are dialled from the advertised address.
    SetMemberLocalAddr: Alpha = false,
    /// gRPC health says NOT_SERVING during a defragmentation.
    StopGRPCServiceOnDefrag: Alpha = false,
    /// An optimisation of Go etcd's write transactions; nothing depends on it here.
    TxnModeWriteWithSharedBuffer: Beta = true,
}

/// Which features are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureGates {
    on: Vec<bool>,
    explicit: Vec<bool>,
    /// What was said, of gates and of whole stages, and what follows for the gates of a stage.
    said: BTreeMap<&'static str, bool>,
}

/// As etcd's log has it: what was said, by name.
impl fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said: Vec<String> = self.said.iter().map(|(name, on)| format!("{name}={on}")).collect();
        f.write_str(&said.join(","))
    }
}

impl Default for FeatureGates {
    fn default() -> Self {
        FeatureGates {
            on: GATES.iter().map(|g| g.3).collect(),
            explicit: vec![false; GATES.len()],
            said: BTreeMap::new(),
        }
    }
}

impl FeatureGates {
    /// Whether `gate` is on.
    pub fn enabled(&self, gate: Gate) -> bool {
        self.on[gate as usize]
    }

    /// Whether somebody said that `gate` is to be on: for what is on in etcd unless told otherwise, and not here.
    pub fn asked(&self, gate: Gate) -> bool {
        self.enabled(gate) && self.explicit[gate as usize]
    }

    /// Every gate, its stage and whether it is on; and the two that switch a stage, on when all of it is.
    pub fn all(&self) -> impl Iterator<Item = (String, &'static str, bool)> {
        let whole = |stage| GATES.iter().zip(&self.on).all(|((_, _, of, _), on)| *of != stage || *on);
        // Both features of the second stage are on by default, without anyone having asked for all of it.
        let asked =
            |stage| whole(stage) && GATES.iter().zip(&self.on).any(|(gate, on)| gate.2 == stage && gate.3 != *on);
        let stages = [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)];
        let stages = stages.map(|(all, stage)| (all.to_owned(), stage.name(), asked(stage)));
        let gates = GATES.iter().zip(&self.on).map(|((_, gate, stage, _), on)| ((*gate).to_owned(), stage.name(), *on));
        stages.into_iter().chain(gates.collect::<Vec<_>>())
    }

    /// Merges a list of `Name=bool`. Explicit settings win over `AllAlpha` and `AllBeta`, in any order.
    ///
    /// # Errors
    /// etcd's text; nothing is changed then.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let mut settings = Vec::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = match item.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", item.trim())),
            };
            let on = parse_bool(value).map_err(|_| {
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {}: invalid syntax",
                    quote(value)
                )
            })?;
            settings.push((name, on));
        }
        if let Some((name, _)) = settings.iter().find(|(name, _)| !is_known(name)) {
            return Err(format!("unrecognized feature gate: {name}"));
        }
        for (name, on) in settings {
            self.apply(name, on);
        }
        Ok(())
    }

    fn apply(&mut self, name: &str, on: bool) {
        if let Some(stage) = ["AllAlpha", "AllBeta"].into_iter().find(|stage| *stage == name) {
            self.said.insert(stage, on);
        }
        for (i, (_, known, stage, _)) in GATES.iter().enumerate() {
            if *known == name {
                (self.on[i], self.explicit[i]) = (on, true);
                self.said.insert(known, on);
            }
            let staged = matches!((name, stage), ("AllAlpha", Stage::Alpha) | ("AllBeta", Stage::Beta));
            if staged && !self.explicit[i] {
                self.on[i] = on;
                self.said.insert(known, on);
            }
        }
    }
}

fn is_known(name: &str) -> bool {
    matches!(name, "AllAlpha" | "AllBeta") || GATES.iter().any(|g| g.1 == name)
}

/// Lines for `--help`.
pub fn help_lines() -> Vec<String> {
    let mut lines = vec![
        "AllAlpha=true|false (ALPHA - default=false)".to_owned(),
        "AllBeta=true|false (BETA - default=false)".into(),
    ];
    lines.extend(
        GATES
            .iter()
            .map(|(_, name, stage, default)| format!("{name}=true|false ({} - default={default})", stage.name())),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_settings_win_over_stages_in_any_order() {
        let mut gates = FeatureGates::default();
        gates.set("LeaseCheckpoint=false,AllAlpha=true").unwrap();
        assert!(!gates.enabled(Gate::LeaseCheckpoint) && gates.enabled(Gate::PriorityRequest));
        let said = "AllAlpha=true,CompactHashCheck=true,InitialCorruptCheck=true,LeaseCheckpoint=false,LeaseCheckpointPersist=true,PriorityRequest=true,SetMemberLocalAddr=true,StopGRPCServiceOnDefrag=true";
        assert_eq!(gates.to_string(), said);
        gates.set("AllBeta=false").unwrap();
        assert!(!gates.enabled(Gate::FastLeaseKeepAlive) && gates.enabled(Gate::PriorityRequest), "settings merge");
        for (gate, _, _, default) in GATES {
            assert_eq!(FeatureGates::default().enabled(*gate), *default);
        }
    }

    #[test]
    fn bad_gates_are_refused_with_etcds_texts() {
        for (text, why) in [
            ("X=true", "unrecognized feature gate: X"),
            ("AllAlpha", "missing bool value for AllAlpha"),
            ("AllAlpha=z", "invalid value of AllAlpha=z, err: strconv.ParseBool: parsing \"z\": invalid syntax"),
        ] {
            assert_eq!(FeatureGates::default().set(text).unwrap_err(), why);
        }
    }
}
