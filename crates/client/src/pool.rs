//! The endpoints: connected when needed, used in turn, left alone for a while after a failure.

use crate::cause::Cause;
use crate::config::{Address, Config};
use crate::dial::{Link, Undialled, dial};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Wait after the first failure to connect, and the most (clientv3's dialler waits at most 3 s).
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// The endpoints of one client.
#[derive(Debug)]
pub struct Pool {
    /// Replaced as a whole, when endpoints come or go.
    slots: RwLock<Slots>,
    next: AtomicUsize,
    config: Config,
    /// What connections are secured with, or why they can't be.
    secure: Result<Option<tls::Client>, String>,
}

type Slots = Arc<[Arc<Slot>]>;

#[derive(Debug)]
struct Slot {
    /// As the configuration names it.
    endpoint: String,
    address: Address,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Option<Arc<Link>>,
    backoff: Duration,
    /// Not dialled before.
    retry_at: Option<Instant>,
    failure: String,
}

impl Pool {
    pub fn new(config: &Config) -> Pool {
        let slots = RwLock::new(config.endpoints.iter().map(|endpoint| Slot::new(endpoint)).collect());
        Pool { slots, next: AtomicUsize::new(0), config: config.clone(), secure: config.secure() }
    }

    /// Whether connections can be secured, where they have to be.
    pub fn secured(&self) -> Result<(), &String> {
        self.secure.as_ref().map(drop)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    fn slots(&self) -> Slots {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.slots().len()
    }

    /// Asks these from now on; those that were asked before keep their connections. Calls that are under way go on.
    pub fn replace(&self, endpoints: &[String]) {
        let before = self.slots();
        let known = |endpoint: &String| before.iter().find(|slot| slot.endpoint == *endpoint).cloned();
        let slots = endpoints.iter().map(|endpoint| known(endpoint).unwrap_or_else(|| Slot::new(endpoint))).collect();
        *self.slots.write().unwrap_or_else(PoisonError::into_inner) = slots;
    }

    /// What it asks.
    pub fn endpoints(&self) -> Vec<String> {
        self.slots().iter().map(|slot| slot.endpoint.clone()).collect()
    }

    /// The first endpoint without its scheme: what Go's client calls its target.
    pub fn target(&self) -> String {
        self.slots().first().map(|slot| slot.address.authority().to_owned()).unwrap_or_default()
    }

    /// The next endpoint that is connected or can be. Waits for one until the deadline; then tells the last failure, also
    /// when the deadline comes while another attempt is under way.
    pub async fn ready(&self, deadline: Option<Instant>) -> Result<Arc<Link>, String> {
        let mut failure = String::new();
        loop {
            let first = self.next.fetch_add(1, Ordering::Relaxed);
            let mut earliest: Option<Instant> = None;
            let slots = self.slots();
            for slot in (0..slots.len()).map(|i| &slots[(first + i) % slots.len()]) {
                match within(deadline, slot.link(&self.config, &self.secure)).await {
                    Some(Ok(link)) => return Ok(link),
                    Some(Err((text, retry_at))) => {
                        failure = text;
                        earliest = Some(earliest.map_or(retry_at, |e| e.min(retry_at)));
                    }
                    None => {
                        // The call's time was over first.
                        let cause = Cause::DialTimeout(self.config.dial_timeout);
                        self.config.failures.note_first(&slot.endpoint, cause);
                        return Err(failure);
                    }
                }
            }
            let wake = earliest.unwrap_or_else(Instant::now);
            if deadline.is_some_and(|deadline| wake >= deadline) {
                if let Some(deadline) = deadline {
                    tokio::time::sleep_until(deadline).await;
                }
                return Err(failure);
            }
            tokio::time::sleep_until(wake).await;
        }
    }
}

/// The future's value, unless the deadline comes first.
pub async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

impl Slot {
    fn new(endpoint: &str) -> Arc<Slot> {
        Arc::new(Slot {
            endpoint: endpoint.to_owned(),
            address: Address::parse(endpoint),
            state: Mutex::new(State { link: None, backoff: BACKOFF_MIN, retry_at: None, failure: String::new() }),
        })
    }

    /// The connection, dialled now if need be; or why there is none, and when to ask again.
    async fn link(
        &self,
        config: &Config,
        secure: &Result<Option<tls::Client>, String>,
    ) -> Result<Arc<Link>, (String, Instant)> {
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| !link.is_lost()) {
            return Ok(link.clone());
        }
        state.link = None;
        if let Some(at) = state.retry_at.filter(|at| *at > Instant::now()) {
            return Err((state.failure.clone(), at));
        }
        let dialled = match secure {
            Ok(secure) => dial(&self.endpoint, config, secure.as_ref()).await,
            Err(why) => Err(Undialled { text: why.clone(), cause: Cause::Other(why.clone()) }),
        };
        match dialled {
            Ok(link) => {
                let link = Arc::new(link);
                *state =
                    State { link: Some(link.clone()), backoff: BACKOFF_MIN, retry_at: None, failure: String::new() };
                Ok(link)
            }
            Err(Undialled { text: failure, cause }) => {
                config.failures.note(&self.endpoint, cause);
                let at = Instant::now() + state.backoff;
                *state = State {
                    link: None,
                    backoff: (state.backoff * 2).min(BACKOFF_MAX),
                    retry_at: Some(at),
                    failure: failure.clone(),
                };
                Err((failure, at))
            }
        }
    }
}
