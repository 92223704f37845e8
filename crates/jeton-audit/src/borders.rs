//! What a start sees without reading everything: each segment is called after its first record and goes on where the one before ends,
//! and what is not there was removed by the broker itself.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    chain::{Link, MAX_LINE, Record, hex},
    segments::Segment,
};

/// Most places that are named: `jeton audit verify` names them all.
const MOST: usize = 10;
const PRUNED: &str = "log.pruned";

/// What does not fit at the borders of these segments, the oldest first.
pub(crate) fn check(segments: &[Segment]) -> io::Result<Vec<String>> {
    let (mut wrong, mut before, mut pruned) = (vec![], None::<Option<Link>>, 0);
    for (index, segment) in segments.iter().enumerate() {
        let (path, (first, last)) = (segment.path.display(), ends(&segment.path)?);
        let Some(first) = first else {
            // A kill may come right after the last one was begun.
            if index + 1 < segments.len() || segment.path.metadata()?.len() > 0 {
                wrong.push(format!("{path} does not begin with a record: it was changed"));
            }
            before = Some(None);
            continue;
        };
        if first.kind == PRUNED {
            pruned = pruned.max(first.through.unwrap_or(0));
        }
        if first.seq != segment.first {
            let (named, begins) = (segment.first, first.seq);
            wrong.push(format!("{path} is called after record {named} and begins with record {begins}"));
        } else if let Some(Some(before)) = before {
            if first.seq > before.seq + 1 {
                let (from, to) = (before.seq + 1, first.seq - 1);
                wrong.push(format!("records {from} to {to} are missing in front of {path}"));
            } else if first.seq <= before.seq || first.prev != hex(&before.hash) {
                wrong.push(format!("{path} does not go on where the segment before ends"));
            }
        }
        before = Some(last);
    }
    if let Some(oldest) = segments.first().filter(|oldest| oldest.first > pruned + 1)
        && oldest.first > removed(segments)? + 1
    {
        let (to, path) = (oldest.first - 1, oldest.path.display());
        let text =
            format!("records up to {to} are missing in front of {path}, and the broker did not remove them");
        wrong.insert(0, text);
    }
    wrong.truncate(MOST);
    Ok(wrong)
}

/// The first and the last whole line, where they are records.
fn ends(path: &Path) -> io::Result<(Option<Record>, Option<Link>)> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut line, longest) = (vec![], MAX_LINE as u64 + 1);
    reader.by_ref().take(longest).read_until(b'\n', &mut line)?;
    let first = line.strip_suffix(b"\n").and_then(Record::parse);
    let length = reader.get_ref().metadata()?.len();
    // The line, its newline and the one in front of it.
    let from = length.saturating_sub(longest + 1);
    reader.seek(SeekFrom::Start(from))?;
    let mut tail = vec![];
    reader.take(longest + 1).read_to_end(&mut tail)?;
    let last = tail.strip_suffix(b"\n").and_then(|tail| tail.rsplit(|byte| *byte == b'\n').next());
    let link = last.and_then(|line| Record::parse(line).map(|record| record.link(line)));
    Ok((first, link))
}

/// Up to which record the broker wrote that it removed them, wherever that stands: read only where the borders do not say it.
fn removed(segments: &[Segment]) -> io::Result<u64> {
    let mut through = 0;
    for segment in segments {
        for line in BufReader::new(File::open(&segment.path)?).split(b'\n') {
            let record = Record::parse(&line?).filter(|record| record.kind == PRUNED);
            through = through.max(record.and_then(|record| record.through).unwrap_or(0));
        }
    }
    Ok(through)
}
