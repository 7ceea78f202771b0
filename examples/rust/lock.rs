//! A lock that guards something outside etcd: `lock ENDPOINTS NAME STORE TEXT`.
//!
//! Takes the lock NAME, waits for Enter (the work), writes TEXT to the file STORE, gives the lock back. Prints `locked NAME, token
//! T`, then `wrote TEXT` or `refused: …` (and ends with code 1), then `unlocked`.
//!
//! No lock service can promise that two holders never overlap: a holder that stands still (a full disk, a paused machine) longer
//! than its lease lives wakes up and still believes that it holds the lock. So every write carries a *fencing token* that grows
//! from holder to holder, and the store refuses a token that is smaller than one it has seen.

use api::pb::etcdserverpb::RangeRequest;
use client::{Client, Config, Mutex, Session};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

/// Seconds that a holder may be silent before the lock is given to the next one.
const TTL: i64 = 60;

/// A store that others write, too: a file with the largest token seen in its first line and the text in its second.
///
/// It stands for a database, a disk or a service of yours. What matters: comparing and writing are one step.
fn write(store: &Path, token: i64, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut file: File = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(store)?;
    // Held until the file is closed. It makes this one step; it is not the lock of the example.
    file.lock()?;
    let mut content = String::new();
    file.read_to_string(&mut content)?;
    let seen: i64 = content.lines().next().map_or(Ok(0), str::parse)?;
    if token < seen {
        return Err(format!("token {token} is older than {seen}").into());
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{token}\n{text}\n")?;
    Ok(file.sync_all()?)
}

/// The revision at which the lock's key was created. Holders are served in this order, so it only grows; and every language can
/// read it, so all have the same tokens. `None`: the key is gone, and with it the lock.
async fn token(client: &Client, mutex: &Mutex<'_>) -> Result<Option<i64>, client::Error> {
    let response = client.range(RangeRequest { key: mutex.key(), ..Default::default() }).await?;
    Ok(response.kvs.first().map(|kv| kv.create_revision))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, name, store, text] = &arguments[..] else {
        return Err("usage: lock ENDPOINTS NAME STORE TEXT".into());
    };
    let endpoints = endpoints.split(',').map(str::to_owned).collect();
    let client = Client::connect(Config { endpoints, ..Config::default() }).await?;
    let session = Session::new(&client, TTL).await?;
    let mutex = Mutex::new(&session, name);
    let work = async {
        // After an error nobody knows whether our place in the queue was taken. It goes with the session; a second try with
        // another session is always right, sending the same write again is not.
        mutex.lock().await?;
        let token = token(&client, &mutex).await?.ok_or("the lease ran out")?;
        println!("locked {name}, token {token}");
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await?;
        // Asking etcd "do I still hold it?" here would prove nothing: we could stand still right after the answer.
        if let Err(refused) = write(Path::new(store), token, text) {
            println!("refused: {refused}");
            std::process::exit(1);
        }
        println!("wrote {text}");
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    // The lease is renewed while we work. That it ran out is no reason to stop in the middle: the store knows.
    let renewed = async {
        session.until_expired().await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        done = work => done?,
        () = renewed => {}
    }
    // If either fails the lease's end frees the lock, later.
    drop(mutex.unlock().await);
    drop(session.close().await);
    println!("unlocked");
    Ok(())
}
