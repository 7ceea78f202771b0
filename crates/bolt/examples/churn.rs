//! Writes a file by a random history, for `bbolt check` to judge: `churn FILE SEED TRANSACTIONS`.

use bolt::{Db, Fill, Options};
use bytes::Bytes;
use disk::RealDisk;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, file, seed, transactions] = args.as_slice() else {
        return Err("usage: churn FILE SEED TRANSACTIONS".into());
    };
    let mut random: u64 = seed.parse::<u64>()? * 2 + 1;
    let mut draw = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let db = Db::open(RealDisk::shared(), file.as_ref(), Options::default())?;
    for _ in 0..transactions.parse::<u64>()? {
        let mut tx = db.begin()?;
        for name in [&b"key"[..], b"meta", b"lease"] {
            tx.create_bucket(name)?;
        }
        for _ in 0..draw(500) {
            let bucket = [&b"key"[..], b"key", b"meta", b"lease"][draw(4) as usize];
            let key = Bytes::from(format!("{:06}", draw(20_000)));
            if draw(3) == 0 {
                tx.delete(bucket, &key)?;
            } else {
                tx.put(bucket, key, vec![b'x'; draw(400) as usize].into(), Fill::Half)?;
            }
        }
        tx.commit()?;
    }
    db.check()?;
    println!("{} bytes, {} in use", db.size(), db.in_use_bytes());
    Ok(())
}
