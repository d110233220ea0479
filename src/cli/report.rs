//! `clusterctl report`: one archive with everything a bug report needs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::up::Login;
use super::{Context, login};
use crate::cluster::{self, Report};
use crate::event::Events;
use crate::failure::{Failure, Kind, Result};
use crate::inventory;

/// Arguments of `report`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The archive to write; a name with the time in it, in this folder, unless said
    #[arg(short, long = "to", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub to: Option<PathBuf>,
    /// How to log in to the hosts.
    #[command(flatten)]
    pub login: Login,
}

/// Gathers and writes the archive. Hosts that cannot be reached are warned of: they are why one reports.
pub async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode> {
    let inventory = login::inventory(context, &arguments.login).await?;
    let (events, happened) = Events::channel();
    let display = context.screen.start(happened);
    let settings = login::settings(context, &arguments.login, &events);
    let gathered = cluster::report(&inventory, &settings).await;
    drop((events, settings));
    display.finish().await;
    let mut report = gathered?;
    context.cancel.check()?;
    report.add("version.txt", &format!("clusterctl {}\n", env!("CARGO_PKG_VERSION")));
    let text = std::fs::read_to_string(&context.inventory).unwrap_or_default();
    report.add("inventory.yaml", &inventory::masked(&text));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = format!("{}-report-{seconds}", inventory.cluster.name);
    let path = arguments.to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    write(&path, &name, &report, seconds)?;
    context.screen.failures(&report.failures);
    context.screen.say(&format!(
        "{} texts without secrets are in {}; names and addresses of hosts are in them",
        report.texts.len(),
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes the archive, for its owner only, and only as a whole.
fn write(path: &Path, name: &str, report: &Report, seconds: u64) -> Result<()> {
    let failed = |error: std::io::Error| {
        Failure::new(Kind::Usage, format!("cannot write the report {}", path.display()))
            .because(&error)
            .advise("name another file with --to")
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let encoder = flate2::write::GzEncoder::new(temporary.as_file_mut(), flate2::Compression::default());
    let mut archive = tar::Builder::new(encoder);
    for (file, text) in &report.texts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("{name}/{file}"), text.as_bytes()).map_err(failed)?;
    }
    archive.into_inner().and_then(|encoder| encoder.finish()).and_then(|file| file.flush()).map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::write;
    use crate::cluster::Report;

    #[test]
    fn the_archive_has_every_text_below_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        let mut report = Report::default();
        report.add("hosts/cp1/kubelet.log", "words\n");
        write(&path, "demo-report-1", &report, 1).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap()));
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("demo-report-1/hosts/cp1/kubelet.log"));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "words\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
