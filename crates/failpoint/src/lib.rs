//! Failpoints: named places in the code where a test makes the member stop, wait or fail.
//!
//! This is etcd's `gofail` (v0.2.0) from outside: the same terms, variables, HTTP requests, answers and names, so that
//! etcd's own robustness tests can drive this server. All of it exists only with the cargo feature `failpoints`;
//! without it [`point!`] expands to nothing.
//!
//! ```text
//! GOFAIL_FAILPOINTS ─┐                    ┌── point!("raftBeforeSave")      in the code of the member
//! GOFAIL_HTTP ─ http ┴─► Registry ◄─ hit ─┴── point!("defragdbFail", |v| …)
//!                          └ one slot a name: text, hit count, Terms (a chain; each evaluation picks one term)
//! ```
//!
//! `docs/failpoints.md` lists the names, their places and the differences from gofail.

#[cfg(any(test, feature = "failpoints"))]
mod act;
#[cfg(any(test, feature = "failpoints"))]
mod duration;
#[cfg(any(test, feature = "failpoints"))]
mod http;
#[cfg(any(test, feature = "failpoints"))]
mod names;
#[cfg(any(test, feature = "failpoints"))]
mod registry;
#[cfg(any(test, feature = "failpoints"))]
mod start;
#[cfg(any(test, feature = "failpoints"))]
mod term;

#[cfg(any(test, feature = "failpoints"))]
pub use names::{Kind, POINTS, Point};
#[cfg(any(test, feature = "failpoints"))]
pub use start::{hit, start};
#[cfg(any(test, feature = "failpoints"))]
pub use term::Value;

#[cfg(feature = "mutants")]
pub mod mutant;

/// Whether the mistake of this name is switched on: `false` unless the crate that uses it has its feature `mutants` on, which
/// must turn on this crate's.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(feature = "mutants")]
        let on = $crate::mutant::is_on($name);
        #[cfg(not(feature = "mutants"))]
        let on = false;
        on
    }};
}

/// Marks a place. `point!("name")` may stop, delay or end the process there; `point!("name", |v| expression)` runs the
/// expression, which may `return`, when a term returns a value of the name's kind.
///
/// Expands to nothing unless the crate that uses it has its feature `failpoints` on, which must turn on this crate's.
#[macro_export]
macro_rules! point {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        let _ = $crate::hit($name);
    };
    ($name:literal, |$value:ident| $body:expr) => {
        #[cfg(feature = "failpoints")]
        if let Some($value) = $crate::hit($name) {
            $body
        }
    };
}
