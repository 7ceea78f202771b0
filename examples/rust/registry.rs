//! Where a service is to be found: `registry ENDPOINTS SERVICE [NAME ADDRESS]`.
//!
//! With a name: registers an instance for as long as this runs, prints `registered NAME ADDRESS`, and takes it back when Enter is
//! pressed (`deregistered`). Without: prints `+ NAME ADDRESS` and `- NAME`, first for all that are there, then as they come and go.

use client::naming::{Endpoint, Naming, Update};
use client::{Client, Config, Error, Session};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Seconds until an instance that died without a word is forgotten.
const TTL: i64 = 15;

/// Registers, and renews the lease until it is lost (then the caller begins anew) or `enter` is pressed. Answers whether it was.
async fn register(
    client: &Client,
    service: &Naming,
    name: &str,
    address: &str,
    enter: &mut JoinHandle<()>,
) -> Result<bool, Error> {
    let session = Session::new(client, TTL).await?;
    service.add(name, &Endpoint::new(address), session.lease()).await?;
    println!("registered {name} {address}");
    tokio::select! {
        () = session.until_expired() => Ok(false),
        _ = enter => {
            // The lease's end deletes the key, and nothing can put it back: a put with a lease that is gone is refused. If this
            // fails the lease runs out by itself.
            drop(session.close().await);
            Ok(true)
        }
    }
}

async fn stay_registered(client: &Client, service: &Naming, name: &str, address: &str) {
    let mut enter = tokio::task::spawn_blocking(|| drop(std::io::stdin().read_line(&mut String::new())));
    loop {
        match register(client, service, name, address, &mut enter).await {
            Ok(true) => return println!("deregistered"),
            Ok(false) => eprintln!("the lease ran out; registering again"),
            // Registering puts the same value at the same key: doing it again, after whatever error, does no harm. A lease that
            // an answer was lost for runs out by itself.
            Err(e) => eprintln!("{e}; registering again"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The updates go on over lost connections and compactions. An error here is a refusal.
async fn watch(service: &Naming) {
    let mut updates = service.watch();
    loop {
        match updates.next().await {
            Ok(updates) => updates.iter().for_each(print),
            Err(e) => {
                eprintln!("{e}; watching again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn print(update: &Update) {
    match update {
        Update::Add { name, endpoint } => println!("+ {} {}", String::from_utf8_lossy(name), endpoint.addr),
        Update::Delete { name } => println!("- {}", String::from_utf8_lossy(name)),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (endpoints, service, instance) = match &arguments[..] {
        [endpoints, service] => (endpoints, service, None),
        [endpoints, service, name, address] => (endpoints, service, Some((name, address))),
        _ => return Err("usage: registry ENDPOINTS SERVICE [NAME ADDRESS]".into()),
    };
    let endpoints = endpoints.split(',').map(str::to_owned).collect();
    let client = Client::connect(Config { endpoints, ..Config::default() }).await?;
    match instance {
        Some((name, address)) => stay_registered(&client, &Naming::new(&client, service)?, name, address).await,
        // A member that lost its cluster shall say so, rather than stay silent while the others go on.
        None => watch(&Naming::new(&client.with_leader_required(), service)?).await,
    }
    Ok(())
}
