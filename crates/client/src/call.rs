//! One call: an endpoint, metadata, a deadline, and another attempt where that is safe.

use crate::cause::{Cause, Failure, Failures};
use crate::config::{Config, Observer};
use crate::dial::Link;
use crate::error::{Error, rpc_text};
use crate::pool::{Pool, within};
use api::pb::etcdserverpb as pb;
use http::uri::PathAndQuery;
use prost::Message;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_stream::Stream as Items;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// How often a call is sent again at most, and the wait between rounds (clientv3's defaults).
const ATTEMPTS_MAX: usize = 100;
const ROUND_WAIT: Duration = Duration::from_millis(25);
/// The API version that the server is told (clientv3 `version.APIVersion`).
const API_VERSION: &str = "3.7";

/// A method of the service, and whether it may be sent twice.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub path: &'static str,
    pub repeatable: bool,
}

/// An attempt that failed, for whoever logs it.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub target: String,
    /// Remote and local address, where there was a connection.
    pub peer: Option<(String, String)>,
    pub method: &'static str,
    pub attempt: usize,
    /// gRPC's text.
    pub error: String,
}

/// A client. Clones share connections and token.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
    token: Arc<RwLock<Option<String>>>,
    deadline: Option<Instant>,
    require_leader: bool,
}

/// Messages from the server, until it ends the stream.
#[derive(Debug)]
pub struct Stream<R> {
    inner: Streaming<R>,
    link: Arc<Link>,
    failures: Failures,
}

impl<R> Stream<R> {
    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// The server's status, or *unavailable* when the connection broke.
    pub async fn next(&mut self) -> Result<Option<R>, Error> {
        self.inner.message().await.map_err(|status| {
            let (status, cause) = settle(status, &self.link, 0);
            self.failures.note(&self.link.endpoint, cause);
            Error::from(status)
        })
    }
}

impl Client {
    /// Sets up a client and, with a user, fetches its token. Connections come up with the first call.
    ///
    /// # Errors
    /// No endpoints, files of TLS that are no good, or a refused user.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let token = Arc::new(RwLock::new(config.token.clone()));
        let pool = Pool::new(&config);
        if let Err(why) = pool.secured() {
            for endpoint in &config.endpoints {
                config.failures.note(endpoint, Cause::Other(why.clone()));
            }
            return Err(Error::Tls(why.clone()));
        }
        let client = Client { pool: Arc::new(pool), token, deadline: None, require_leader: false };
        if config.token.is_none() && config.user.is_some() {
            client.with_timeout(config.dial_timeout).authenticate().await?;
        }
        Ok(client)
    }

    /// A client whose calls all end at the same moment, so long from now.
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { deadline: Some(Instant::now() + timeout), ..self.clone() }
    }

    /// The same client, whose calls take as long as they take.
    pub(crate) fn without_deadline(&self) -> Client {
        Client { deadline: None, ..self.clone() }
    }

    /// Whether another client speaks for the same user, as clones do.
    pub(crate) fn is_same_user(&self, other: &Client) -> bool {
        let token = |client: &Client| client.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        Arc::ptr_eq(&self.token, &other.token) || token(self) == token(other)
    }

    /// Waits for something no longer than this client's calls may take.
    pub(crate) async fn in_time<T>(&self, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(self.deadline, what).await.unwrap_or(Err(Error::DeadlineExceeded))
    }

    /// A client whose calls and watches fail when the endpoint has no leader.
    pub fn with_leader_required(&self) -> Client {
        Client { require_leader: true, ..self.clone() }
    }

    /// The same client, speaking for whom this token is; `None`: for nobody.
    pub fn with_token(&self, token: Option<String>) -> Client {
        Client { token: Arc::new(RwLock::new(token)), ..self.clone() }
    }

    /// A client of the same cluster that asks one endpoint only.
    pub fn only(&self, endpoint: &str) -> Client {
        let config = Config { endpoints: vec![endpoint.to_owned()], ..self.pool.config().clone() };
        Client { pool: Arc::new(Pool::new(&config)), ..self.clone() }
    }

    /// The same client, with connections of its own, whose failed attempts are told to this observer.
    pub fn with_observer(&self, observer: Observer) -> Client {
        let config = Config { observer: Some(observer), ..self.pool.config().clone() };
        Client { pool: Arc::new(Pool::new(&config)), ..self.clone() }
    }

    /// The same client with connections of its own.
    pub fn apart(&self) -> Client {
        Client { pool: Arc::new(Pool::new(self.pool.config())), ..self.clone() }
    }

    /// The endpoints it was set up with.
    pub fn endpoints(&self) -> &[String] {
        &self.pool.config().endpoints
    }

    /// What was found at the endpoints where the last call failed, or an attempt of it.
    pub fn failures(&self) -> Vec<Failure> {
        self.pool.config().failures.list()
    }

    /// Notes a cause that an answer told, at all endpoints of this client.
    pub fn note(&self, cause: &Cause) {
        for endpoint in self.pool.endpoints() {
            self.pool.config().failures.note(&endpoint, cause.clone());
        }
    }

    fn forget(&self) {
        let failures = &self.pool.config().failures;
        if !failures.is_empty() {
            failures.forget(&self.pool.endpoints());
        }
    }

    fn note_at(&self, link: &Link, cause: Cause) {
        self.pool.config().failures.note(&link.endpoint, cause);
    }

    /// Asks the cluster who its members are, and those from now on (clientv3 `Client.Sync`). Clones ask them, too. Learners
    /// and members that have not started are left out; where nobody is left, nothing changes. Answers whom it asks now.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn sync(&self) -> Result<Vec<String>, Error> {
        let listed = self.member_list(pb::MemberListRequest { linearizable: true }).await?;
        let serving = listed.members.into_iter().filter(|member| !member.name.is_empty() && !member.is_learner);
        let endpoints: Vec<String> = serving.flat_map(|member| member.client_ur_ls).collect();
        if !endpoints.is_empty() {
            self.pool.replace(&endpoints);
        }
        Ok(self.pool.endpoints())
    }

    /// Fetches a token anew. A server without authentication is no error.
    async fn authenticate(&self) -> Result<(), Error> {
        let Some((name, password)) = self.pool.config().user.clone() else { return Ok(()) };
        let method = Method { path: "/etcdserverpb.Auth/Authenticate", repeatable: true };
        let request = pb::AuthenticateRequest { name, password };
        match self.attempts::<_, pb::AuthenticateResponse>(method, request).await {
            Ok(response) => {
                *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(response.token);
                Ok(())
            }
            Err(e) if e.is(&api::Error::AuthNotEnabled) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Sends a request and answers the reply; again on another endpoint where that is safe.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn unary<Q, R>(&self, method: Method, request: Q) -> Result<R, Error>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        match self.attempts(method, request.clone()).await {
            Err(e) if self.token_is_stale(&e) => {
                Box::pin(self.authenticate()).await?;
                self.attempts(method, request).await
            }
            outcome => outcome,
        }
    }

    fn token_is_stale(&self, e: &Error) -> bool {
        let stale = e.is(&api::Error::InvalidAuthToken) || e.is(&api::Error::AuthOldRevision);
        stale && self.pool.config().user.is_some()
    }

    async fn attempts<Q, R>(&self, method: Method, request: Q) -> Result<R, Error>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let mut attempt = 0;
        loop {
            let (link, status) = match self.attempt(method, request.clone()).await {
                Ok(response) => {
                    self.forget();
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            self.observe(method, attempt, link.as_deref(), &status);
            if self.is_over() || status.code() == Code::DeadlineExceeded && link.is_none() {
                return Err(Error::DeadlineExceeded);
            }
            attempt += 1;
            // Without a connection all endpoints have been tried, patiently.
            let again = method.repeatable && link.is_some() && attempt < ATTEMPTS_MAX;
            if !again || status.code() != Code::Unavailable {
                return Err(status.into());
            }
            // All endpoints are tried before anyone is asked again.
            if attempt % (self.pool.len() / 2 + 1) == 0
                && within(self.deadline, tokio::time::sleep(ROUND_WAIT)).await.is_none()
            {
                return Err(Error::DeadlineExceeded);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    async fn attempt<Q, R>(&self, method: Method, request: Q) -> Result<R, (Option<Arc<Link>>, Status)>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let link = self.link().await.map_err(|status| (None, status))?;
        let bytes = request.encoded_len();
        let call = async {
            self.check_size(&request)?;
            let mut grpc = self.grpc(&link);
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::from_static(method.path);
            grpc.unary(self.request(request)?, path, ProstCodec::<Q, R>::default()).await
        };
        match within(self.deadline, call).await {
            Some(Ok(response)) => Ok(response.into_inner()),
            Some(Err(status)) => {
                let (status, cause) = settle(status, &link, bytes);
                self.note_at(&link, cause);
                Err((Some(link), status))
            }
            None => {
                self.note_at(&link, Cause::NoAnswer);
                Err((Some(link), Status::deadline_exceeded("context deadline exceeded")))
            }
        }
    }

    /// Opens a stream of answers to one request.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn server_stream<Q, R>(&self, method: Method, request: Q) -> Result<Stream<R>, Error>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        self.stream(method, tokio_stream::once(request)).await
    }

    /// Opens a stream both ways.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn stream<Q, R>(
        &self,
        method: Method,
        requests: impl Items<Item = Q> + Send + 'static,
    ) -> Result<Stream<R>, Error>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let link = self.link().await.map_err(|status| match status.code() {
            Code::DeadlineExceeded => Error::DeadlineExceeded,
            _ => status.into(),
        })?;
        let call = async {
            let mut grpc = self.grpc(&link);
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::from_static(method.path);
            grpc.streaming(self.request(requests)?, path, ProstCodec::<Q, R>::default()).await
        };
        match within(self.deadline, call).await {
            Some(Ok(response)) => {
                self.forget();
                Ok(Stream { inner: response.into_inner(), link, failures: self.pool.config().failures.clone() })
            }
            Some(Err(status)) => {
                let (status, cause) = settle(status, &link, 0);
                self.note_at(&link, cause);
                Err(status.into())
            }
            None => {
                self.note_at(&link, Cause::NoAnswer);
                Err(Error::DeadlineExceeded)
            }
        }
    }

    /// A connection to whichever endpoint is next.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Status> {
        let patience = self.pool.config().connect_patience.map(|patience| Instant::now() + patience);
        if let Some(until) = patience.filter(|until| self.deadline.is_none_or(|deadline| *until < deadline)) {
            return self.pool.ready(Some(until)).await.map_err(|failure| {
                Status::unavailable(format!("last connection error: connection error: desc = \"{failure}\""))
            });
        }
        self.pool.ready(self.deadline).await.map_err(|failure| match failure.as_str() {
            "" => Status::deadline_exceeded("context deadline exceeded while waiting for connections to become ready"),
            failure => {
                Status::deadline_exceeded(format!("latest balancer error: connection error: desc = \"{failure}\""))
            }
        })
    }

    fn grpc(&self, link: &Link) -> Grpc<Channel> {
        let config = self.pool.config();
        Grpc::new(link.channel.clone())
            .max_decoding_message_size(config.recv_bytes_max)
            .max_encoding_message_size(usize::MAX)
    }

    /// Adds the metadata of clientv3: version, token, and whether a leader is needed.
    fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("client-api-version", MetadataValue::from_static(API_VERSION));
        if self.require_leader {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(token) = self.token.read().unwrap_or_else(PoisonError::into_inner).as_deref() {
            let token = token.parse().map_err(|_| Status::invalid_argument("the token is no header value"))?;
            metadata.insert("token", token);
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        Ok(request)
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        let (size, max) = (request.encoded_len(), self.pool.config().send_bytes_max);
        if size <= max {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!("trying to send message larger than max ({size} vs. {max})")))
    }

    fn observe(&self, method: Method, attempt: usize, link: Option<&Link>, status: &Status) {
        if let Some(observer) = &self.pool.config().observer {
            observer(&Attempt {
                target: self.pool.target(),
                peer: link.map(|link| (link.peer.clone(), link.local.clone())),
                method: method.path,
                attempt,
                error: rpc_text(status.code(), status.message()),
            });
        }
    }
}

/// A status that was made here, not sent by the server, means that the connection broke: it is given up, and the call
/// counts as *unavailable*, which is what grpc-go makes of it.
fn settle(status: Status, link: &Link, request_bytes: usize) -> (Status, Cause) {
    let refused = |status: Status| {
        let (code, message) = (status.code(), status.message().to_owned());
        let cause = match code {
            Code::DeadlineExceeded => Cause::NoAnswer,
            _ => Cause::Refusal { code, message, request_bytes },
        };
        (status, cause)
    };
    if let Some(sizes) = too_large(status.message()) {
        return refused(Status::resource_exhausted(format!("grpc: received message larger than max {sizes}")));
    }
    if std::error::Error::source(&status).is_none() {
        return refused(status);
    }
    link.lose();
    let cause = Cause::Broken(status.message().to_owned());
    (Status::unavailable(format!("error reading from server: {}", status.message())), cause)
}

/// tonic's text for an answer beyond the limit, as grpc-go's `(28 vs. 10)`.
fn too_large(message: &str) -> Option<String> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (size, rest) = rest.split_once(" bytes, the limit is: ")?;
    Some(format!("({size} vs. {})", rest.strip_suffix(" bytes")?))
}
