//! The pool for work that takes a processor tens of milliseconds: bcrypt, and signatures. Its threads are as nice as other
//! background work, and its queue is bounded; whoever gave up is not worked for.

use super::super::background;
use crossbeam_channel::{Sender, bounded};
use server::Fatal;
use tokio::sync::oneshot;
use tracing::warn;

/// Jobs that may wait; at 50 ms each, two threads need some six seconds for so many. Beyond it clients are told that
/// there are too many requests.
const QUEUE_MAX: usize = 256;
const THREADS_MAX: usize = 8;
/// bcrypt's costs.
const COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const COST_DEFAULT: u32 = 10;
/// bcrypt looks at no more.
const PASSWORD_MAX: usize = 72;

type Job = Box<dyn FnOnce() + Send>;

/// The pool.
pub struct Passwords {
    jobs: Sender<Job>,
    cost: u32,
}

impl Passwords {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn start(cost: u64) -> Result<Passwords, Fatal> {
        let valid = u32::try_from(cost).ok().filter(|_| COSTS.contains(&cost));
        if valid.is_none() {
            warn!("given-cost" = cost, "use default bcrypt cost instead of the invalid given cost");
        }
        let (jobs, queue) = bounded::<Job>(QUEUE_MAX);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for n in 0..threads {
            let queue = queue.clone();
            background(format!("password-{n}"), move || queue.iter().for_each(|job| job()))
                .map_err(|e| Fatal::new(format!("cannot start a thread: {e}")))?;
        }
        Ok(Passwords { jobs, cost: valid.unwrap_or(COST_DEFAULT) })
    }

    /// Runs the work in the pool. Dropping the future takes it back, if it has not begun.
    ///
    /// # Errors
    /// Too much waits already, or the work's own.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, api::Error> + Send + 'static,
    ) -> Result<T, api::Error> {
        let (out, done) = oneshot::channel();
        let job = move || {
            if !out.is_closed() {
                drop(out.send(work()));
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|_| api::Error::RequestTooManyRequests)?;
        done.await.unwrap_or(Err(api::Error::Stopped))
    }

    /// The hash of a password, as it is proposed: base64 of bcrypt's text.
    ///
    /// # Errors
    /// The password is too long; see also [`Passwords::run`].
    pub async fn hash(&self, password: String) -> Result<String, api::Error> {
        let cost = self.cost;
        self.run(move || hash(&password, cost)).await
    }

    /// Whether the password is the stored hash's. A hash that is none, as of a user whose password was taken away, has
    /// no password.
    ///
    /// # Errors
    /// See [`Passwords::run`].
    pub async fn verify(&self, password: String, stored: bytes::Bytes) -> Result<bool, api::Error> {
        self.run(move || {
            let stored = std::str::from_utf8(&stored).unwrap_or_default();
            Ok(bcrypt::verify(password, stored).unwrap_or(false))
        })
        .await
    }
}

fn hash(password: &str, cost: u32) -> Result<String, api::Error> {
    use base64::Engine as _;
    if password.len() > PASSWORD_MAX {
        return Err(api::Error::Other("bcrypt: password length exceeds 72 bytes".into()));
    }
    let other = |e: String| api::Error::Other(e.into());
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| other(e.to_string()))?;
    let parts = bcrypt::hash_with_salt(password, cost, salt).map_err(|e| other(e.to_string()))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(parts.format_for_version(bcrypt::Version::TwoA)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    /// By golang.org/x/crypto/bcrypt, cost 4, of "secret" and of 72 letters.
    const GO: [(&str, usize); 2] = [
        ("$2a$04$RNZ9vIKKRsh.PYMw5hqg0ukUu3O780LwawDL8rYLsEV6VM9oKkVGq", 0),
        ("$2a$04$gKIcE6JO80x.eOLExWbap.T9iGbscYKgpMxPEJSmEBsfPP9fzHkza", 72),
    ];

    #[test]
    fn hashes_are_gos_kind_and_go_both_ways() {
        let decoded = |password: &str| {
            let text = hash(password, 4).unwrap();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
        };
        let ours = decoded("secret");
        assert!(ours.starts_with("$2a$04$") && ours.len() == 60);
        assert!(bcrypt::verify("secret", &ours).unwrap() && !bcrypt::verify("Secret", &ours).unwrap());
        assert_ne!(decoded("secret"), ours);
        for (theirs, letters) in GO {
            let password = if letters == 0 { "secret".to_owned() } else { "p".repeat(letters) };
            assert!(bcrypt::verify(&password, theirs).unwrap(), "{theirs}");
        }
        let long = "p".repeat(72);
        assert!(bcrypt::verify(&long, &decoded(&long)).unwrap());
        assert!(hash(&"p".repeat(73), 4).is_err());
    }

    #[tokio::test]
    async fn whoever_gave_up_is_not_worked_for_and_a_full_queue_refuses() {
        let pool = Passwords::start(4).unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Arc::new(parking_lot::Mutex::new(held));
        let mut waiting = Vec::new();
        loop {
            let held = held.clone();
            let mut run = Box::pin(pool.run(move || Ok(held.lock().recv().is_err())));
            let first = std::future::poll_fn(|cx| std::task::Poll::Ready(run.as_mut().poll(cx))).await;
            match first {
                std::task::Poll::Ready(Err(api::Error::RequestTooManyRequests)) => break,
                std::task::Poll::Ready(other) => unreachable!("nothing was let go: {other:?}"),
                std::task::Poll::Pending => waiting.push(run),
            }
            assert!(waiting.len() <= QUEUE_MAX + THREADS_MAX);
        }
        drop(waiting);
        drop(hold);
        // The queue is full until the threads have thrown away what nobody waits for.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut answer = pool.verify("x".into(), bytes::Bytes::new()).await;
        while answer == Err(api::Error::RequestTooManyRequests) && std::time::Instant::now() < until {
            tokio::task::yield_now().await;
            answer = pool.verify("x".into(), bytes::Bytes::new()).await;
        }
        assert_eq!(answer, Ok(false));
    }
}
