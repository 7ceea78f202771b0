//! A watch that survives its connection: a new stream begins behind the last revision that was delivered.

use crate::call::{Client, Method, Stream};
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const METHOD: Method = Method { path: "/etcdserverpb.Watch/Watch", repeatable: true };
/// Wait before a broken stream is opened anew.
const RECONNECT_WAIT: Duration = Duration::from_millis(100);
/// Requests under way: creation and a progress request or two.
const REQUESTS_MAX: usize = 4;

/// One watcher on a stream of its own.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    request: pb::WatchCreateRequest,
    open: Option<(mpsc::Sender<pb::WatchRequest>, Stream<pb::WatchResponse>)>,
    over: bool,
}

impl Client {
    /// Watches keys. Nothing is sent before the first [`Watch::next`].
    pub fn watch(&self, request: pb::WatchCreateRequest) -> Watch {
        Watch { client: self.clone(), request, open: None, over: false }
    }
}

impl Watch {
    /// The next answer: creation, events, progress, or the end (`canceled`), after which there is `None`.
    ///
    /// # Errors
    /// What the server refuses the stream with, other than that it can't be reached.
    pub async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Error> {
        while !self.over {
            match self.receive().await {
                Ok(Some(response)) => {
                    self.note(&response);
                    return Ok(Some(response));
                }
                // The server ended the stream without a word: another one goes on.
                Ok(None) => {
                    self.open = None;
                    tokio::time::sleep(RECONNECT_WAIT).await;
                }
                Err(e) if may_pass(&e) => {
                    self.open = None;
                    tokio::time::sleep(RECONNECT_WAIT).await;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<Option<pb::WatchResponse>, Error> {
        if self.open.is_none() {
            self.connect().await?;
        }
        match &mut self.open {
            Some((_, stream)) => stream.next().await,
            None => Ok(None),
        }
    }

    /// Asks the server to say how far the watch is.
    pub async fn request_progress(&mut self) {
        if let Some((sender, _)) = &self.open {
            let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
            // A stream that just broke says so on its other side.
            drop(sender.send(pb::WatchRequest { request_union: Some(union) }).await);
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let union = RequestUnion::CreateRequest(self.request.clone());
        // The channel is empty: there is room.
        drop(sender.try_send(pb::WatchRequest { request_union: Some(union) }));
        let stream = self.client.stream(METHOD, ReceiverStream::new(receiver)).await?;
        self.open = Some((sender, stream));
        Ok(())
    }

    /// Remembers where to go on.
    fn note(&mut self, response: &pb::WatchResponse) {
        self.over = response.canceled;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if let Some(last) = response.events.last().and_then(|event| event.kv.as_ref()) {
            self.request.start_revision = self.request.start_revision.max(last.mod_revision + 1);
        } else if response.created && self.request.start_revision == 0
            || !response.created && !response.canceled && !response.fragment
        {
            self.request.start_revision = self.request.start_revision.max(revision + 1);
        }
    }
}

/// Whether a failure goes away with another stream.
fn may_pass(e: &Error) -> bool {
    matches!(e.code(), Some(Code::Unavailable)) && !e.is(&api::Error::NoLeader)
}
