//! Every ping below stands for a sentence of grpc-go's `handlePing`. The clock stands still but for `advance`.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::advance;

const MIN_TIME: Duration = Duration::from_secs(5);

fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
    let mut frame = u32::try_from(payload).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.resize(9 + payload, 0xa5);
    frame
}

fn ping() -> Vec<u8> {
    frame(6, 0, 0, 8)
}

fn headers(stream: u32, end: bool) -> Vec<u8> {
    frame(1, 4 | u8::from(end), stream, 20)
}

/// Both ends of a connection.
struct Talk {
    client: DuplexStream,
    server: Policed<DuplexStream>,
}

impl Talk {
    async fn begin() -> Talk {
        let mut talk = Talk::silent();
        talk.hears(PREFACE).await.unwrap();
        talk.hears(&frame(4, 0, 0, 6)).await.unwrap();
        talk
    }

    fn silent() -> Talk {
        let (client, server) = duplex(1 << 16);
        Talk { client, server: Policed::new(server, MIN_TIME, Arc::default()) }
    }

    /// The client sends, the server reads and flushes, as h2 does.
    async fn hears(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.client.write_all(bytes).await?;
        let mut read = vec![0; bytes.len()];
        self.server.read_exact(&mut read).await?;
        assert_eq!(read, bytes);
        self.server.flush().await
    }

    async fn says(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        self.client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    }

    async fn pings(&mut self, count: usize) {
        for _ in 0..count {
            self.hears(&ping()).await.unwrap();
        }
    }

    fn strikes(&self) -> u32 {
        match &self.server.phase {
            Phase::Http2(police) => police.strikes,
            other => panic!("not HTTP/2: {other:?}"),
        }
    }

    /// The client reads to the end.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        rest
    }
}

#[tokio::test(start_paused = true)]
async fn the_third_strike_is_the_end() {
    let mut talk = Talk::begin().await;
    talk.hears(&headers(7, true)).await.unwrap();
    talk.pings(3).await;
    assert_eq!(talk.strikes(), 2, "the first ping comes after no other");
    talk.pings(1).await;
    assert_eq!(talk.rest().await, goaway(7));
    // Nothing more is heard or said; what the client still sends is thrown away until it goes.
    talk.client.write_all(&headers(9, true)).await.unwrap();
    talk.server.write_all(b"what h2 still had to say").await.unwrap();
    drop(talk.client);
    let end = talk.server.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stays_is_left_after_a_second() {
    let mut talk = Talk::begin().await;
    talk.pings(4).await;
    let begin = Instant::now();
    talk.server.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(begin.elapsed().as_secs(), LINGER.as_secs());
    talk.server.write(&[0; 64]).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn pings_at_the_allowed_pace_are_no_strikes() {
    let mut talk = Talk::begin().await;
    talk.hears(&headers(1, true)).await.unwrap();
    for _ in 0..100 {
        talk.pings(1).await;
        advance(MIN_TIME).await;
    }
    assert_eq!(talk.strikes(), 0);
    for _ in 0..100 {
        talk.hears(&frame(6, 1, 0, 8)).await.unwrap();
    }
    assert_eq!(talk.strikes(), 0, "answers to pings are not pings");
}

#[tokio::test(start_paused = true)]
async fn without_streams_two_hours_are_the_pace() {
    let mut talk = Talk::begin().await;
    for (stream, end) in [(1, headers(1, true)), (3, frame(0, 1, 3, 2)), (5, frame(3, 0, 5, 4))] {
        talk.hears(&headers(stream, true)).await.unwrap();
        talk.pings(1).await;
        advance(MIN_TIME).await;
        talk.pings(1).await;
        assert_eq!(talk.strikes(), 0, "stream {stream} is open");
        talk.says(&end).await;
        advance(MIN_TIME).await;
        talk.pings(1).await;
        advance(MIN_TIME).await;
        talk.pings(1).await;
        assert!(talk.strikes() > 0, "stream {stream} has ended");
        advance(IDLE_MIN_TIME).await;
        let before = talk.strikes();
        talk.pings(1).await;
        assert_eq!(talk.strikes(), before);
        talk.says(&headers(99, false)).await;
    }
    talk.hears(&headers(7, false)).await.unwrap();
    talk.hears(&headers(7, true)).await.unwrap();
    talk.hears(&frame(3, 0, 7, 4)).await.unwrap();
    talk.pings(1).await;
    advance(MIN_TIME).await;
    talk.pings(1).await;
    assert_eq!(talk.strikes(), 1, "the client ended the stream");
}

#[tokio::test(start_paused = true)]
async fn data_and_headers_from_the_server_forgive() {
    let mut talk = Talk::begin().await;
    talk.hears(&headers(1, true)).await.unwrap();
    for answer in [headers(1, false), frame(0, 0, 1, 100)] {
        talk.pings(2).await;
        talk.says(&answer).await;
        talk.pings(1).await;
        assert_eq!(talk.strikes(), 0);
    }
    talk.pings(2).await;
    talk.says(&frame(8, 0, 0, 4)).await;
    talk.says(&frame(4, 1, 0, 0)).await;
    talk.pings(1).await;
    assert_eq!(talk.rest().await, goaway(1), "other frames don't forgive");
}

#[tokio::test(start_paused = true)]
async fn goaway_waits_for_the_end_of_a_frame() {
    let mut talk = Talk::begin().await;
    talk.hears(&headers(1, true)).await.unwrap();
    let data = frame(0, 0, 1, 50);
    talk.pings(1).await;
    talk.says(&headers(1, false)).await;
    talk.says(&data[..30]).await;
    talk.pings(4).await;
    talk.server.write_all(&data[30..]).await.unwrap();
    talk.server.flush().await.unwrap();
    assert_eq!(talk.rest().await, [&data[30..], &goaway(1)].concat());
}

#[tokio::test(start_paused = true)]
async fn http_1_is_nobodys_business() {
    let mut talk = Talk::silent();
    talk.hears(b"PRI * HTTP/2").await.unwrap();
    talk.hears(b"GET").await.unwrap();
    talk.pings(10).await;
    assert!(talk.server.leaving.is_none());
    talk.says(&ping()).await;
}

#[tokio::test(start_paused = true)]
async fn several_buffers_are_written_at_once_and_seen() {
    let mut talk = Talk::begin().await;
    talk.hears(&headers(1, true)).await.unwrap();
    let (head, data) = (headers(1, false), frame(0, 1, 1, 10));
    let bufs = [IoSlice::new(&head), IoSlice::new(&[]), IoSlice::new(&data)];
    assert!(talk.server.is_write_vectored());
    assert_eq!(talk.server.write_vectored(&bufs).await.unwrap(), head.len() + data.len());
    let Phase::Http2(police) = &talk.server.phase else { panic!("not HTTP/2") };
    assert!(police.open.is_empty() && police.forgiven);
}
