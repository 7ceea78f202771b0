//! What a failed command adds behind etcd's own words: for each endpoint that was of no use one line on standard error, with
//! what was found there and what to type.
//!
//! ```text
//! hint: https://127.0.0.1:2379: this server speaks plain text, not TLS; type: --endpoints=http://127.0.0.1:2379
//! ```
//! The client remembers the last cause of each endpoint ([`client::Failures`]). Where a cause alone does not tell what to do
//! (a connection that was closed without a word, a call without an answer), the endpoint is asked once more, for
//! [`QUESTION_TIME`] at most. A command that waits without a limit (`watch`, `lock`, `txn` …) is told meanwhile, once the time
//! that other commands have is over. Invariants: etcd's lines stay as they are and stand before; exit codes and standard output are
//! not touched; no password, token, key or value is printed, and of a key only what was typed.

mod answer;
mod connection;

use api::pb::etcdserverpb as pb;
use client::{Cause, Client, Config, Demand, Failure, Failures, Speaks};
use cobra::Call;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long an endpoint is asked what it is, all endpoints at once.
const QUESTION_TIME: Duration = Duration::from_secs(2);
/// Global flags that a line to be typed repeats.
const REPEATED: [&str; 5] = ["endpoints", "cacert", "cert", "key", "user"];
/// Letters of a word of the command line that are repeated.
const WORD_MAX: usize = 80;

/// What was asked, and how: all that a hint needs to know.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What stands before the names of flags: `dest-` for the destination of a mirror.
    pub prefix: &'static str,
    /// How the client was set up.
    pub config: Config,
    /// The command's words: `member add`.
    pub command: String,
    /// Its first argument, where that is a key.
    pub key: Option<String>,
    /// The global flags that were typed, as they are typed again.
    pub typed: String,
    /// How long the command might take.
    pub timeout: Duration,
    /// `--user` was given, and no password came with it or was typed.
    pub lacks_password: bool,
}

/// The clients of this process: one, and a mirror's second.
static ALL_ASKED: Mutex<Vec<Asked>> = Mutex::new(Vec::new());

/// Remembers how a client is set up, for the case that it fails.
pub fn remember(asked: Asked) {
    ALL_ASKED.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
}

/// The global flags that were typed, to be typed again: without passwords, and not those of the environment.
pub fn typed(call: &Call) -> String {
    let mut line = String::new();
    for name in REPEATED.into_iter().filter(|name| call.given.was_given(name)) {
        let value = match name {
            "endpoints" => call.given.list(name).join(","),
            "user" => call.given.text(name).split(':').next().unwrap_or_default().to_owned(),
            _ => call.given.text(name).to_owned(),
        };
        line += &format!(" --{name}={value}");
    }
    line
}

/// The command's words, and its key where it has one.
pub fn command(call: &Call) -> (String, Option<String>) {
    const OF_KEYS: [&str; 4] = ["get", "put", "del", "watch"];
    let words: Vec<&str> = call.path.iter().skip(1).map(|command| command.name()).collect();
    let command = words.join(" ");
    let key = OF_KEYS.contains(&command.as_str()).then(|| call.arg(0));
    let short = |key: String| if key.chars().count() > WORD_MAX { key.chars().take(WORD_MAX).collect() } else { key };
    (command, key.map(short))
}

/// What was printed: once is enough.
static PRINTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn tell(hints: Vec<String>) {
    let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    for hint in hints {
        if !printed.contains(&hint) {
            eprintln!("hint: {hint}");
            printed.insert(hint);
        }
    }
}

/// Prints what is known of the endpoints that are of no use at present, while a command waits that has no limit.
pub async fn print_meanwhile() {
    let all = ALL_ASKED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    tell(asked_once_more(failures_of(all)).await);
}

fn failures_of(all: Vec<Asked>) -> Vec<(Asked, Failure)> {
    let failed = |asked: Asked| asked.config.failures.list().into_iter().map(move |failure| (asked.clone(), failure));
    all.into_iter().flat_map(failed).collect()
}

/// Prints what is known of the endpoints where this process' calls failed.
pub fn print() {
    let all = std::mem::take(&mut *ALL_ASKED.lock().unwrap_or_else(PoisonError::into_inner));
    let failures = failures_of(all);
    if failures.is_empty() {
        return;
    }
    // Without threads and time there is nothing more to find out; what is known is told.
    let hints = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(asked_once_more(failures)),
        Err(_) => failures.into_iter().filter_map(|(asked, failure)| as_known(&asked, failure)).collect(),
    };
    tell(hints);
}

/// A hint for each failure, in their order; all endpoints are asked at once.
async fn asked_once_more(failures: Vec<(Asked, Failure)>) -> Vec<String> {
    let asking: Vec<_> = failures
        .into_iter()
        .map(|(asked, failure)| {
            tokio::spawn(async move {
                let found = Found::of(&asked, &failure).await;
                hint(&asked, &failure.endpoint, &found).map(|hint| format!("{}: {hint}", failure.endpoint))
            })
        })
        .collect();
    let mut hints = Vec::new();
    for asking in asking {
        // A question that panicked has no answer; there are no others to end it.
        hints.extend(asking.await.ok().flatten());
    }
    hints
}

fn as_known(asked: &Asked, failure: Failure) -> Option<String> {
    let found = Found { cause: failure.cause, status: None };
    hint(asked, &failure.endpoint, &found).map(|hint| format!("{}: {hint}", failure.endpoint))
}

/// What is known of an endpoint that did not answer, as a hint has it.
pub async fn explain(asked: &Asked, endpoint: &str) -> String {
    let failure = asked.config.failures.list().into_iter().find(|failure| failure.endpoint == endpoint);
    let Some(failure) = failure else { return "there was no answer in time; look at that process".to_owned() };
    let found = Found::of(asked, &failure).await;
    hint(asked, endpoint, &found).unwrap_or_else(|| match &found.cause {
        Cause::Refusal { message, .. } => format!("{message}; see docs/errors.md"),
        other => format!("{other:?}; see docs/errors.md"),
    })
}

/// Forgets everything: somebody has told it already.
pub fn silence() {
    ALL_ASKED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A cause, and what the endpoint said when it was asked once more.
#[derive(Clone, Debug)]
pub struct Found {
    pub cause: Cause,
    pub status: Option<pb::StatusResponse>,
}

impl Found {
    async fn of(asked: &Asked, failure: &Failure) -> Found {
        let mut found = Found { cause: failure.cause.clone(), status: None };
        match &failure.cause {
            Cause::Closed | Cause::NotTls => {
                if let Ok(speaks) = client::speaks(&failure.endpoint, QUESTION_TIME).await {
                    found.cause = settled(&failure.cause, speaks, asked.speaks_tls());
                }
            }
            Cause::NoAnswer | Cause::Refusal { .. } if answer::asks_for_status(&failure.cause) => {
                found.status = status(asked, &failure.endpoint).await;
            }
            _ => {}
        }
        found
    }
}

/// The cause, where the server speaks otherwise than it was spoken to.
fn settled(cause: &Cause, speaks: Speaks, with_tls: bool) -> Cause {
    match (speaks, with_tls) {
        (Speaks::Http1, _) => Cause::SpeaksHttp1,
        (Speaks::Plain, true) => Cause::NotTls,
        (Speaks::Tls, false) => Cause::SpeaksTls,
        _ => cause.clone(),
    }
}

/// What a member says of itself: it needs no leader for that, and no user.
async fn status(asked: &Asked, endpoint: &str) -> Option<pb::StatusResponse> {
    let config = Config {
        endpoints: vec![endpoint.to_owned()],
        user: None,
        token: None,
        observer: None,
        failures: Failures::default(),
        ..asked.config.clone()
    };
    let client = Client::connect(config).await.ok()?;
    client.with_timeout(QUESTION_TIME).status(pb::StatusRequest {}).await.ok()
}

/// The line about an endpoint; `None`: etcd's own says all.
fn hint(asked: &Asked, endpoint: &str, found: &Found) -> Option<String> {
    match &found.cause {
        Cause::NoAnswer | Cause::Refusal { .. } => answer::hint(asked, found),
        cause => Some(connection::hint(asked, endpoint, cause)),
    }
}

impl Asked {
    /// A line to be typed, with the flags that were given.
    pub fn line(&self, words: &str) -> String {
        format!("etcdctl{} {words}", self.typed)
    }

    /// Whether connections begin with TLS.
    pub fn speaks_tls(&self) -> bool {
        match self.config.endpoints.first().map_or(Demand::Either, |endpoint| Demand::of(endpoint)) {
            Demand::Plain => false,
            Demand::Tls => true,
            Demand::Either => self.config.tls.is_some(),
        }
    }

    fn own_file(&self, of: impl Fn(&tls::Settings) -> &String) -> Option<String> {
        self.config.tls.as_ref().map(of).filter(|file| !file.is_empty()).cloned()
    }
}
