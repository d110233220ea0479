//! Looks all the time whether a process of a host shows a secret, in its arguments or its environment.

use std::time::Duration;

use crate::bed::{Bed, script};
use crate::program::{Running, wait_for};

/// Where the watcher of a host keeps the secret, what it found, and how often it has looked; not a place of ours.
const FOLDER: &str = "/run/watched";

/// The secret is in a file, so that the watcher does not see itself.
const LOOK: &str = r#"
cd /run/watched
while [ ! -e stop ]; do
  for file in $(grep -lsaF -f secret /proc/[0-9]*/cmdline /proc/[0-9]*/environ); do
    echo "${file##*/}: $(tr '\0\n' '  ' <"$file" 2>/dev/null)" >>hits
  done
  echo >>looks
  sleep 0.05
done
"#;

/// A host that is watched for a secret.
pub struct Watched<'a> {
    bed: &'a Bed,
    host: String,
    looking: Running,
}

impl<'a> Watched<'a> {
    /// From now on.
    pub fn start(bed: &'a Bed, host: &str, secret: &str) -> Self {
        let file = bed.folder.path().join("secret");
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        bed.send(host, &[&file], FOLDER);
        std::fs::remove_file(&file).unwrap();
        bed.sh(host, &format!("cd {FOLDER} && : >hits && : >looks"));
        let looking = Running::start(&script(), &["host", "sh", host, "--", "bash", "-c", LOOK], &[]);
        let watched = Self { bed, host: host.to_owned(), looking };
        wait_for("a first look", Duration::from_secs(10), || watched.looks() > 0);
        watched
    }

    fn looks(&self) -> usize {
        self.bed.sh(&self.host, &format!("wc -l <{FOLDER}/looks")).trim().parse().unwrap()
    }

    /// What was found until now.
    pub fn hits(&self) -> String {
        self.bed.sh(&self.host, &format!("cat {FOLDER}/hits"))
    }

    /// What was found until the end: `cmdline: sudo ...`, a line for each look that found a process. Nothing of the
    /// watcher stays.
    pub fn end(mut self) -> String {
        let before = self.looks();
        wait_for("one more look", Duration::from_secs(10), || self.looks() > before);
        self.bed.sh(&self.host, &format!("touch {FOLDER}/stop"));
        let finished = self.looking.finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        let hits = self.hits();
        self.bed.sh(&self.host, &format!("rm -r {FOLDER}"));
        hits
    }
}
