//! One of several is the leader: `election ENDPOINTS NAME [CANDIDATE]`.
//!
//! With a candidate: stands for election, prints `elected CANDIDATE` when it leads, waits for Enter, resigns (`resigned`). If its
//! session is lost it prints `lost` and ends with code 1. Without: prints `leader CANDIDATE` for each new leader, for ever.

use client::{Client, Config, Election, Session};
use std::time::Duration;

/// Seconds that a leader may be silent before another one is elected.
const TTL: i64 = 30;

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn stand(client: &Client, name: &str, candidate: &str) -> Outcome {
    let session = Session::new(client, TTL).await?;
    let election = Election::new(&session, name);
    let lead = async {
        // Waits until all that stood before us are gone. A campaign that failed is not repeated: the session goes, and with it
        // whatever place it had taken.
        election.campaign(candidate.to_owned().into()).await?;
        println!("elected {candidate}");
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await?;
        // The next one leads at once. Without this it would wait for the lease to run out.
        election.resign().await?;
        Outcome::Ok(())
    };
    tokio::select! {
        done = lead => done?,
        // A leader without a session is none: others may lead already. It must stop all that only a leader does.
        () = session.until_expired() => {
            println!("lost");
            std::process::exit(1);
        }
    }
    // If this fails the lease runs out by itself.
    drop(session.close().await);
    println!("resigned");
    Ok(())
}

async fn observe(client: &Client, name: &str) -> Outcome {
    // A member that lost its cluster shall say so, rather than stay silent while the others go on.
    let client = client.with_leader_required();
    let mut last = None;
    loop {
        // The newest leader and what follows: one that led for a moment only may be left out.
        let seen = Election::observe(&client, name, |response| {
            let leader = response.kvs.into_iter().next();
            // After a reconnect the same leader is told once more.
            let proposal = leader.as_ref().map(|kv| (kv.key.clone(), kv.mod_revision));
            if let Some(kv) = leader.filter(|_| proposal != last) {
                println!("leader {}", String::from_utf8_lossy(&kv.value));
                last = proposal;
            }
            true
        });
        // Observing changes nothing and may be repeated whatever the error was.
        if let Err(e) = seen.await {
            eprintln!("{e}; observing again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [endpoints, name, candidate @ ..] = &arguments[..] else {
        return Err("usage: election ENDPOINTS NAME [CANDIDATE]".into());
    };
    let endpoints = endpoints.split(',').map(str::to_owned).collect();
    let client = Client::connect(Config { endpoints, ..Config::default() }).await?;
    match candidate {
        [] => observe(&client, name).await,
        [candidate, ..] => stand(&client, name, candidate).await,
    }
}
