//! Inputs that once did harm: the name of the target, and the bytes.

/// Tried by every run of their target.
pub const REGRESSIONS: &[(&str, &[u8])] = &[];
