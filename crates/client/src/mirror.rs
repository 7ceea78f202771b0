//! Copying keys elsewhere (clientv3 `mirror`): all that begin with a prefix as they are at one revision, in pages, then what
//! changes behind that revision. Nothing is missed in between, and nothing comes twice.

use crate::call::Client;
use crate::error::Error;
use crate::watch::Watch;
use api::pb::etcdserverpb as pb;
use api::recipes::prefix_end;
use bytes::Bytes;
use prost::Message as _;

/// Keys of a page at most (clientv3 `mirror.batchLimit`), and of the first one, when nobody knows how large they are.
const PAGE_KEYS_MAX: i64 = 1000;
const PAGE_KEYS_FIRST: i64 = 100;
/// What a page should take, bytes: values of a MiB each come a few at a time.
const PAGE_BYTES: i64 = 4 << 20;

/// A source of keys and their changes.
///
/// ```no_run
/// # async fn example(to: impl Fn(&[u8], Option<&[u8]>)) -> Result<(), client::Error> {
/// let client = client::Client::connect(client::Config::default()).await?;
/// let mut mirror = client.mirror("config/");
/// while let Some(page) = mirror.next_page().await? {
///     page.kvs.iter().for_each(|kv| to(&kv.key, Some(&kv.value)));
/// }
/// let mut changes = mirror.changes();
/// while let Some(response) = changes.next().await? {
///     for event in response.events {
///         let kv = event.kv.clone().unwrap_or_default();
///         let is_put = event.r#type() == client::pb::mvccpb::event::EventType::Put;
///         to(&kv.key, is_put.then_some(&kv.value));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mirror {
    client: Client,
    prefix: Bytes,
    /// What is copied is of this revision; 0: of none yet.
    revision: i64,
    page: Page,
}

#[derive(Debug)]
enum Page {
    /// From this key on, so many.
    Next(Bytes, i64),
    Over,
}

impl Client {
    /// Copies what begins with a prefix, as it is when the first page is read; an empty one: everything.
    pub fn mirror(&self, prefix: impl Into<Bytes>) -> Mirror {
        let prefix = prefix.into();
        let page = Page::Next(range_of(&prefix).0, PAGE_KEYS_FIRST);
        Mirror { client: self.clone(), prefix, revision: 0, page }
    }

    /// Copies what changes behind a revision, and none of what was there before.
    pub fn mirror_from(&self, prefix: impl Into<Bytes>, revision: i64) -> Mirror {
        Mirror { client: self.clone(), prefix: prefix.into(), revision, page: Page::Over }
    }
}

/// Key and range end of all that begins with a prefix.
fn range_of(prefix: &Bytes) -> (Bytes, Bytes) {
    match prefix.is_empty() {
        true => (Bytes::from_static(&[0]), Bytes::from_static(&[0])),
        false => (prefix.clone(), prefix_end(prefix)),
    }
}

impl Mirror {
    /// The revision that pages are of and that changes begin behind; 0 before the first page was read.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The next keys, in their order; `None` behind the last. An error leaves it where it is: it may be asked again.
    ///
    /// # Errors
    /// The server's, such as that the revision was compacted meanwhile; that the deadline passed.
    pub async fn next_page(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        let Page::Next(key, limit) = &self.page else { return Ok(None) };
        let (key, limit) = (key.clone(), *limit);
        if self.revision == 0 {
            // Any read tells the revision; one of the prefix itself is allowed to a user of nothing else.
            let readable = if self.prefix.is_empty() { Bytes::from_static(b"foo") } else { self.prefix.clone() };
            let now = self.client.range(pb::RangeRequest { key: readable, ..Default::default() }).await?;
            self.revision = now.header.map_or(0, |header| header.revision);
        }
        let range_end = range_of(&self.prefix).1;
        let request = pb::RangeRequest { key, range_end, revision: self.revision, limit, ..Default::default() };
        let page = self.client.range(request).await?;
        self.page = match page.kvs.last().filter(|_| page.more) {
            Some(last) => {
                let bytes = i64::try_from(page.encoded_len()).unwrap_or(i64::MAX).max(1);
                Page::Next([&last.key[..], &[0]].concat().into(), fitting(page.kvs.len() as i64, bytes))
            }
            None => Page::Over,
        };
        Ok(Some(page))
    }

    /// What changes behind the pages, oldest first.
    ///
    /// # Panics
    /// When no page was read: there is no revision to begin behind.
    pub fn changes(&self) -> Watch {
        assert!(self.revision > 0, "changes begin behind the pages: next_page comes first");
        let (key, range_end) = range_of(&self.prefix);
        let start_revision = self.revision.saturating_add(1);
        self.client.watch(pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() })
    }
}

/// How many keys the next page should have, when so many took so many bytes.
fn fitting(keys: i64, bytes: i64) -> i64 {
    (keys.saturating_mul(PAGE_BYTES) / bytes).clamp(1, PAGE_KEYS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_large_values_have_fewer_keys() {
        assert_eq!(fitting(100, 100 * 20), PAGE_KEYS_MAX);
        assert_eq!(fitting(100, 100 << 20), 4);
        assert_eq!(fitting(1, i64::MAX), 1);
    }

    #[test]
    fn an_empty_prefix_is_everything() {
        let end = |prefix: &'static str| range_of(&prefix.into());
        assert_eq!(end(""), ("\0".into(), "\0".into()));
        assert_eq!(end("a"), ("a".into(), "b".into()));
    }
}
