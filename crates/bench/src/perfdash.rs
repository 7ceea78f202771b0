//! The JSON file of `--report-perfdash`.

use crate::samples::Samples;
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes `$ARTIFACTS` (default `./_artifacts`)`/EtcdAPI_benchmark_<op>_<RFC 3339 UTC>.json`.
pub fn write(operation: &str, samples: &Samples) -> io::Result<PathBuf> {
    let folder = std::env::var_os("ARTIFACTS").map_or_else(|| PathBuf::from("./_artifacts"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = folder.join(format!("EtcdAPI_benchmark_{operation}_{}.json", rfc3339(now)));
    std::fs::write(&path, format!("{:#}", content(operation, samples)))?;
    Ok(path)
}

fn content(operation: &str, samples: &Samples) -> serde_json::Value {
    let [p50, p90, p99] = samples.distribution().percentiles([50.0, 90.0, 99.0]).map(millis);
    json!({
        "version": "v1",
        "dataItems": [{
            "data": {"Perc50": p50, "Perc90": p90, "Perc99": p99},
            "labels": {"Operation": operation.to_uppercase()},
            "unit": "ms",
        }],
    })
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1e7).round() / 1e4
}

/// A second of the Unix era as `2026-11-21T11:19:08Z` (civil-from-days, proleptic Gregorian).
fn rfc3339(unix: u64) -> String {
    let (days, second) = (unix / 86_400 + 719_468, unix % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_259_948, "2026-11-21T11:19:08Z"),
        ];
        for (unix, text) in table {
            assert_eq!(rfc3339(unix), text);
        }
    }

    #[test]
    fn percentiles_stand_in_milliseconds_of_four_digits() {
        let mut samples = Samples::default();
        (0..10).for_each(|_| samples.add(Duration::from_nanos(1_234_567)));
        let data = &content("put", &samples)["dataItems"][0];
        assert_eq!(
            (data["data"]["Perc50"].as_f64(), data["labels"]["Operation"].as_str()),
            (Some(1.2346), Some("PUT"))
        );
    }
}
