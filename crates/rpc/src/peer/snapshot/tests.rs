use super::*;
use parking_lot::{Condvar, Mutex};

/// An image whose reads wait until they are let through.
struct Slow {
    bytes: Vec<u8>,
    open: Mutex<bool>,
    opened: Condvar,
    fails_at: u64,
}

impl Slow {
    fn new(bytes: Vec<u8>, open: bool) -> Arc<Slow> {
        Arc::new(Slow { bytes, open: Mutex::new(open), opened: Condvar::new(), fails_at: u64::MAX })
    }
}

impl Image for Slow {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        let begin = usize::try_from(offset).unwrap();
        if offset >= self.fails_at {
            return Err(io::Error::other("bad sector"));
        }
        buffer.copy_from_slice(&self.bytes[begin..begin + buffer.len()]);
        Ok(())
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn head_and_image_arrive_whole_and_in_order() {
    let image: Arc<dyn Image> = Slow::new(bytes(300_000), true);
    let (sender, mut pieces) = mpsc::channel(QUEUE);
    let feeding = tokio::spawn(async move { feed(&sender, Bytes::from_static(b"head"), &image, u64::MAX).await });
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece.unwrap());
    }
    feeding.await.unwrap();
    assert_eq!(all, [b"head".to_vec(), bytes(300_000)].concat());
}

#[tokio::test]
async fn a_late_disk_is_no_silence() {
    let slow = Slow::new(bytes(10), false);
    let image: Arc<dyn Image> = slow.clone();
    let (sender, mut pieces) = mpsc::channel(QUEUE);
    let feeding = tokio::spawn(async move { feed(&sender, Bytes::from_static(b"head"), &image, u64::MAX).await });
    let begin = Instant::now();
    assert_eq!(pieces.recv().await.unwrap().unwrap(), "h");
    assert!(begin.elapsed() < 2 * SILENCE);
    *slow.open.lock() = true;
    slow.opened.notify_all();
    let mut rest = Vec::new();
    while let Some(piece) = pieces.recv().await {
        rest.extend_from_slice(&piece.unwrap());
    }
    feeding.await.unwrap();
    assert_eq!(rest, [b"ead".to_vec(), bytes(10)].concat());
}

#[tokio::test]
async fn a_failed_read_cuts_the_body() {
    let image: Arc<dyn Image> =
        Arc::new(Slow { fails_at: PIECE, bytes: bytes(300_000), open: Mutex::new(true), opened: Condvar::new() });
    let (sender, mut pieces) = mpsc::channel(QUEUE);
    let feeding = tokio::spawn(async move { feed(&sender, Bytes::new(), &image, u64::MAX).await });
    let mut last = None;
    while let Some(piece) = pieces.recv().await {
        last = Some(piece);
    }
    feeding.await.unwrap();
    assert_eq!(last.unwrap().unwrap_err().to_string(), "bad sector");
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_at_their_rate_and_lateness_is_not_made_up_for() {
    let mut pace = Pace::new(1000);
    let begin = Instant::now();
    for _ in 0..10 {
        pace.pass(500).await;
    }
    assert_eq!(begin.elapsed().as_secs(), 5);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let begin = Instant::now();
    pace.pass(1000).await;
    pace.pass(1000).await;
    assert_eq!(begin.elapsed().as_secs(), 1);
}
