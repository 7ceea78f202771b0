//! What is told before anything is made.

use super::{Finding, Found};
use crate::standing::Standing;
use crate::{Format, table};
use cobra::Exit;

/// Entries of a log that the most advanced one lacks, or has others for: how many, the first index and the last.
fn lacking(best: &Standing, other: &Standing) -> Option<(usize, u64, u64)> {
    // What lies before its first entry, a log's snapshot vouches for.
    let differs = |index: u64, term: u64| index > best.snapshot.1 && best.term_at(index) != Some(term);
    let others: Vec<u64> =
        other.entries.iter().filter(|entry| differs(entry.index, entry.term)).map(|entry| entry.index).collect();
    Some((others.len(), *others.first()?, *others.last()?))
}

/// Whether the best log does not reach back to where this one ends: nothing can be said of what is between.
fn is_far_behind(best: &Standing, other: &Standing) -> bool {
    other.last().1 < best.snapshot.1
}

fn remark(finding: &Finding, at: usize) -> String {
    let (Some(best), Some(Found { standing: Ok(here), .. })) = (finding.best(), finding.found.get(at)) else {
        return "can't be used".into();
    };
    let mut words = Vec::new();
    if at == 0 {
        words.push("has most".to_owned());
    } else if here.last() == best.last() {
        words.push("has as much".to_owned());
    } else if is_far_behind(best, here) {
        words.push("is far behind".to_owned());
    }
    if let Some((count, first, last)) = lacking(best, here) {
        words.push(format!("has {count} entries that the first lacks, indexes {first} to {last}"));
    }
    match best.members.get(&here.member) {
        None => words.push("was removed from the cluster".to_owned()),
        Some(member) if member.is_learner => words.push("is a learner".to_owned()),
        Some(_) => {}
    }
    words.join("; ")
}

const HEADERS: [&str; 10] =
    ["", "data dir", "member id", "name", "term", "index", "commit", "applied", "revision", "remark"];

fn cells(finding: &Finding, at: usize) -> Vec<String> {
    let found = &finding.found[at];
    let mut cells = vec![(at + 1).to_string(), found.dir.clone()];
    match &found.standing {
        Err(why) => {
            cells.resize(HEADERS.len() - 1, String::new());
            cells.push(format!("can't be used: {why}"));
        }
        Ok(standing) => {
            let ((term, index), name) = (standing.last(), standing.name().to_owned());
            cells.extend([format!("{:x}", standing.member), name, term.to_string(), index.to_string()]);
            let numbers = [standing.state.commit.to_string(), standing.applied.to_string()];
            cells.extend(numbers.into_iter().chain([standing.revision.to_string(), remark(finding, at)]));
        }
    }
    cells
}

/// What would be lost, in a sentence or two.
fn loss(finding: &Finding) -> String {
    let Some(best) = finding.best() else { return "No directory can be used.".into() };
    let (Finding { voters, present, .. }, (term, index)) = (finding, best.last());
    let missing = voters.saturating_sub(*present);
    let mut text = match finding.is_quorum() {
        true => format!(
            "{present} of {voters} voters are here, a quorum: the first directory has everything that was acknowledged."
        ),
        false => format!(
            "{present} of {voters} voters are here, no quorum: what was acknowledged with the {missing} that are missing, \
             behind term {term}, index {index}, would be lost."
        ),
    };
    let lacked = finding.found.iter().skip(1).filter_map(|found| {
        let (count, first, last) = lacking(best, found.standing.as_ref().ok()?)?;
        Some(format!(" {} has {count} entries, indexes {first} to {last}, that would be left out", found.dir))
    });
    let why = match finding.is_quorum() {
        true => ": they were never committed.",
        false => ": a leader had replaced them, so they were never committed.",
    };
    lacked.for_each(|lacked| text += &(lacked + why));
    if present < voters && best.entries.iter().any(|entry| entry.index > best.state.commit) {
        let unknown = index - best.state.commit;
        text += &format!(
            " Its last {unknown} entries may not have been committed: they would be kept, for a log learns of that with what \
             follows."
        );
    }
    text
}

/// Prints the report.
pub fn print(finding: &Finding, format: Format) -> Result<(), Exit> {
    let rows: Vec<Vec<String>> = (0..finding.found.len()).map(|at| cells(finding, at)).collect();
    match format {
        Format::Simple => {
            let line = |row: &Vec<String>| format!("{}\n", row.join(", "));
            println!("{}{}", rows.iter().map(line).collect::<String>(), loss(finding));
        }
        Format::Table => println!("{}{}", table::draw(&HEADERS, &rows), loss(finding)),
        Format::Json => println!("{}", json(finding)),
        Format::Fields => return Err(Exit::feature("fields not supported as output format")),
        Format::Protobuf => return Err(Exit::feature("protobuf not supported as output format")),
    }
    Ok(())
}

fn json(finding: &Finding) -> String {
    let directory = |at: usize| {
        let found = &finding.found[at];
        match &found.standing {
            Err(why) => serde_json::json!({"dataDir": found.dir, "error": why}),
            Ok(standing) => serde_json::json!({
                "dataDir": found.dir,
                "clusterID": standing.cluster,
                "memberID": standing.member,
                "name": standing.name(),
                "term": standing.last().0,
                "index": standing.last().1,
                "commit": standing.state.commit,
                "applied": standing.applied,
                "revision": standing.revision,
                "remark": remark(finding, at),
            }),
        }
    };
    serde_json::json!({
        "directories": (0..finding.found.len()).map(directory).collect::<Vec<_>>(),
        "voters": finding.voters,
        "present": finding.present,
        "quorum": finding.is_quorum(),
        "loss": loss(finding),
    })
    .to_string()
}

/// What to type next.
pub fn next(finding: &Finding) {
    let Some(best) = finding.best() else { return };
    let name = if best.name().is_empty() { "default" } else { best.name() };
    eprintln!(
        "Nothing was made. To found a new cluster with it: etcdutl recover {} --data-dir NEW-DIR --name {name} \
         --initial-cluster {name}=URL --initial-advertise-peer-urls URL --bump-revision 1000000000 --mark-compacted\n\
         Then start etcd with that --data-dir and --name, and add the other members, with empty directories, by etcdctl \
         member add.",
        best.dir.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::raft::{Entry, HardState};
    use disk::{SimDisk, SimOptions};
    use std::collections::BTreeMap;
    use std::path::Path;

    /// A member of a cluster of three whose log has entries of these terms, and knows this commit index.
    fn standing(member: u64, terms: &[u64], commit: u64) -> Found {
        let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
        let db = bolt::Db::open(disk.shared(), Path::new("/db"), bolt::Options::default()).unwrap();
        let entry = |(index, term): (u64, &u64)| Entry { index, term: *term, ..Entry::default() };
        let members: BTreeMap<_, _> = (1..4).map(|id| (id, store::Member { id, ..store::Member::default() })).collect();
        let dir = format!("m{member}");
        let standing = Standing {
            dir: Path::new(&dir).to_owned(),
            member,
            cluster: 9,
            state: HardState { term: 9, vote: 0, commit },
            snapshot: (0, 0),
            entries: (1..).zip(terms).map(entry).collect(),
            applied: 1,
            revision: 1,
            members,
            db,
        };
        Found { dir, standing: Ok(standing) }
    }

    fn finding(found: Vec<Found>) -> Finding {
        let present = found.len();
        Finding { found, voters: 3, present }
    }

    #[test]
    fn entries_that_a_later_leader_replaced_are_told() {
        // The second one led in term 2, alone; the first one has what the leader of term 3 wrote.
        let finding = finding(vec![standing(1, &[1, 1, 3], 3), standing(2, &[1, 1, 2, 2, 2], 2)]);
        assert_eq!(remark(&finding, 0), "has most");
        assert_eq!(remark(&finding, 1), "has 3 entries that the first lacks, indexes 3 to 5");
        assert_eq!(
            loss(&finding),
            "2 of 3 voters are here, a quorum: the first directory has everything that was acknowledged. m2 has 3 entries, \
             indexes 3 to 5, that would be left out: they were never committed."
        );
    }

    #[test]
    fn without_a_quorum_what_the_others_had_is_lost() {
        let finding = finding(vec![standing(1, &[1, 1, 1], 1)]);
        let text = loss(&finding);
        assert!(
            text.starts_with("1 of 3 voters are here, no quorum: what was acknowledged with the 2 that are missing, ")
        );
        assert!(
            text.contains("behind term 1, index 3, would be lost. Its last 2 entries may not have been committed"),
            "{text}"
        );
    }

    #[test]
    fn who_has_as_much_lacks_nothing() {
        let finding = finding(vec![standing(1, &[1, 2], 2), standing(2, &[1, 2], 1), standing(3, &[1], 1)]);
        assert_eq!((remark(&finding, 1), remark(&finding, 2)), ("has as much".into(), String::new()));
        assert!(!loss(&finding).contains("left out"));
    }
}
