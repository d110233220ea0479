//! What came of each case: a line of JSON as soon as it is known, so that a suite goes on where it was stopped, and a table
//! for people.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::faults::case::{Case, cases};

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The seed of the list.
    pub seed: u64,
    /// Its place in the list.
    pub number: usize,
    /// The beginning of the SHA-256 of the program that was disturbed.
    #[serde(default)]
    pub program: String,
    /// Which fault.
    pub fault: String,
    /// The case in words.
    pub case: String,
    /// Whether its moment came before the run's end, and what it is done to was there.
    pub injected: bool,
    /// How the disturbed run ended: `ended with 4`.
    pub disturbed: String,
    /// How long the `up` after it took, in seconds.
    pub again: Option<f64>,
    /// How many injections one after another that `up` made good.
    pub chain: usize,
    /// Why the case failed, if it did.
    pub failure: Option<String>,
}

/// All entries, and the files they are kept in.
pub struct Book {
    lines: PathBuf,
    table: PathBuf,
    /// By seed and number.
    entries: BTreeMap<(u64, usize), Entry>,
}

impl Book {
    /// The book of this checkout: `target/faults.jsonl`, and the table in `tests/faults.md`.
    pub fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lines = root.join("target/faults.jsonl");
        let text = std::fs::read_to_string(&lines).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let entries = entries.map(|entry| ((entry.seed, entry.number), entry)).collect();
        Self { lines, table: root.join("tests/faults.md"), entries }
    }

    /// Whether a case was survived already. Another case of that number is one of an earlier list.
    pub fn has(&self, seed: u64, case: &Case) -> bool {
        let same = |entry: &Entry| entry.failure.is_none() && entry.case == case.to_string();
        self.entries.get(&(seed, case.number)).is_some_and(same)
    }

    /// Whether a case was tried.
    pub fn was_tried(&self, seed: u64, case: &Case) -> bool {
        self.entries.get(&(seed, case.number)).is_some_and(|entry| entry.case == case.to_string())
    }

    /// Keeps an entry.
    pub fn enter(&mut self, entry: Entry) -> std::io::Result<()> {
        std::fs::create_dir_all(self.lines.parent().unwrap_or(Path::new(".")))?;
        let mut file = std::fs::File::options().create(true).append(true).open(&self.lines)?;
        writeln!(file, "{}", serde_json::to_string(&entry)?)?;
        self.entries.insert((entry.seed, entry.number), entry);
        Ok(())
    }

    /// Writes the table of one seed.
    pub fn write_table(&self, seed: u64) -> std::io::Result<()> {
        let list: BTreeMap<usize, String> = cases(seed).iter().map(|case| (case.number, case.to_string())).collect();
        let of_list = |entry: &&Entry| entry.seed == seed && list.get(&entry.number) == Some(&entry.case);
        let entries: Vec<&Entry> = self.entries.values().filter(of_list).collect();
        std::fs::write(&self.table, table(seed, &entries))
    }
}

/// Which programs were disturbed how often.
fn programs(entries: &[&Entry]) -> String {
    let mut of: BTreeMap<&str, usize> = BTreeMap::new();
    entries.iter().for_each(|entry| *of.entry(&entry.program).or_default() += 1);
    let words = of.iter().map(|(program, count)| match (*program, of.len()) {
        ("", _) => format!("{count} cases by a program whose sum was not kept"),
        (program, 1) => format!("all cases by the program whose SHA-256 begins with {program}"),
        (program, _) => format!("{count} cases by the program whose SHA-256 begins with {program}"),
    });
    format!("Run: {}.", words.collect::<Vec<_>>().join("; "))
}

/// The table: kinds of fault first, then every case.
fn table(seed: u64, entries: &[&Entry]) -> String {
    let injected = entries.iter().filter(|entry| entry.injected).count();
    let failed = entries.iter().filter(|entry| entry.failure.is_some()).count();
    let alone = entries.iter().filter(|entry| entry.chain == 1).count();
    let programs = programs(entries);
    let mut text = format!(
        "# Faults that were injected\n\nWritten by `make test-faults SEED={seed}`: {} cases of {}, {injected} injected before the \
         run had ended, {failed} not survived. (missed) says that the step did not come, that the run had ended,\nor that the \
         process to be hit did not run.\n\nAfter each fault the same command goes on from what the disturbed run left. \
         In the life of a cluster some runs are disturbed one\nafter another, each further on than the one before; then the \
         command runs to its end and is judged: it ends green, nothing was\nlost or made twice, one more `up` changes nothing, \
         and at the end of each cluster `down` leaves every host as it was. `judged`\nsays how many injections stood before a \
         verdict; {alone} were judged alone. `c` is the control plane, `w` the worker, `c2` a second control plane; `mend` is\nan \
         `up` on a whole cluster, `leave` a `down` that `down` follows.\n\n{programs}\n\nA clock jumps for all programs \
         of a host, those in pods too, until the disturbed run has ended: three minutes ahead, or\nan hour back. Then it is \
         right again, and the command goes on from what was made in the wrong time.\n\n| fault | cases | injected | survived | seconds of `up` afterwards |\n\
         |---|---:|---:|---:|---:|\n",
        entries.len(),
        cases(seed).len(),
    );
    let mut kinds: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        kinds.entry(&entry.fault).or_default().push(entry);
    }
    for (kind, of_kind) in kinds {
        let injected = of_kind.iter().filter(|entry| entry.injected).count();
        let survived = of_kind.iter().filter(|entry| entry.injected && entry.failure.is_none()).count();
        let times: Vec<f64> = of_kind.iter().filter_map(|entry| entry.again).collect();
        let mean = if times.is_empty() {
            String::new()
        } else {
            format!("{:.1}", times.iter().sum::<f64>() / times.len() as f64)
        };
        text.push_str(&format!("| {kind} | {} | {injected} | {survived} | {mean} |\n", of_kind.len()));
    }
    text.push_str(
        "\n| number | case | the disturbed run | judged | `up` afterwards | |\n|---:|---|---|---:|---:|---|\n",
    );
    for entry in entries {
        let again = entry.again.map_or_else(String::new, |seconds| format!("{seconds:.1} s"));
        let verdict = match (&entry.failure, entry.injected) {
            (Some(_), _) => "**not survived**",
            (None, true) => "survived",
            (None, false) => "",
        };
        let disturbed = if entry.injected { entry.disturbed.clone() } else { format!("{} (missed)", entry.disturbed) };
        let (number, case, chain) = (entry.number, &entry.case, entry.chain);
        text.push_str(&format!("| {number} | {case} | {disturbed} | {chain} | {again} | {verdict} |\n"));
    }
    text
}
