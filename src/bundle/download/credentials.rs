//! What `docker login` left: credentials of registries in `~/.docker/config.json`, or in the helpers it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::failure::{Failure, Kind, Result};
use crate::host::machine::Machine;
use crate::host::{Command, Host as _};
use crate::secret::Secret;

/// The name under which Docker keeps what is for Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The user name with which helpers mark a token.
const TOKEN_USER: &str = "<token>";

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// Name and password.
    Password {
        /// Name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// A token that is exchanged for others.
    Token(Secret),
}

/// All that is known.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    file: File,
    /// Where helpers are looked for.
    folders: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: Secret,
}

impl Credentials {
    /// Those of this user: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; none where there is no such file.
    ///
    /// # Errors
    /// Kind `Configuration` when the file cannot be read.
    pub fn of_this_user() -> Result<Self> {
        let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| etcetera::home_dir().ok().map(|home| home.join(".docker")));
        folder.map_or_else(|| Ok(Self::default()), |folder| Self::read(&folder.join("config.json")))
    }

    /// Those in a file.
    ///
    /// # Errors
    /// Kind `Configuration` when there is one and it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let Some(text) = Machine.read(path)? else { return Ok(Self::default()) };
        let file = serde_json::from_slice(&text).map_err(|error| {
            Failure::new(Kind::Configuration, format!("{} cannot be read", path.display()))
                .because(&error)
                .advise("correct it, or log in to the registries again with `docker login`")
        })?;
        let folders = std::env::var_os("PATH").map(|folders| std::env::split_paths(&folders).collect());
        Ok(Self { file, folders: folders.unwrap_or_default() })
    }

    /// What to show a registry: what is kept for the server that is asked, a mirror or the registry itself.
    ///
    /// # Errors
    /// Kind `Configuration` when an entry cannot be read, or a helper does not run.
    pub(super) async fn of(&self, registry: &str, base: &str) -> Result<Option<Credential>> {
        let server = base.split("://").nth(1).unwrap_or(base).split('/').next().unwrap_or_default();
        let mut names = vec![server.to_owned(), format!("https://{server}"), format!("http://{server}")];
        if registry == "docker.io" && server == "registry-1.docker.io" {
            names.push(DOCKER_HUB.to_owned());
        }
        let helper = names.iter().find_map(|name| self.file.cred_helpers.get_key_value(name));
        let entry = names.iter().find_map(|name| self.file.auths.get_key_value(name));
        if let Some((name, helper)) = helper {
            return self.ask_helper(helper, name).await;
        }
        match (entry, &self.file.creds_store) {
            (Some((name, entry)), Some(store)) if entry.is_empty() => self.ask_helper(store, name).await,
            (Some((name, entry)), _) => entry.credential(name),
            // What another program than `docker login` has put there has no entry. Many servers want no login: a store that
            // is not installed must not keep from them.
            (None, Some(store)) if self.helper(store)?.is_some() => {
                for name in names {
                    if let Some(credential) = self.ask_helper(store, &name).await? {
                        return Ok(Some(credential));
                    }
                }
                Ok(None)
            }
            (None, _) => Ok(None),
        }
    }

    /// The program of a helper, where it is installed.
    fn helper(&self, helper: &str) -> Result<Option<PathBuf>> {
        let plain = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain {
            return Err(Failure::new(
                Kind::Configuration,
                "Docker's config.json names a credential helper that is no name",
            ));
        }
        let program = format!("docker-credential-{helper}");
        Ok(self.folders.iter().map(|folder| folder.join(&program)).find(|path| path.is_file()))
    }

    /// Asks `docker-credential-HELPER`, as Docker does: in the surroundings of the user, whose keys it opens.
    async fn ask_helper(&self, helper: &str, server: &str) -> Result<Option<Credential>> {
        let program = self.helper(helper)?.ok_or_else(|| {
            Failure::new(
                Kind::Configuration,
                format!("Docker's config.json names docker-credential-{helper}, which is not installed"),
            )
            .advise("install it, or log in again with `docker login`")
        })?;
        let mut command = Command::new(program.to_string_lossy(), &["get"]).input(server);
        let user =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        command.environment = user.collect();
        let output = Machine.run(command).await?;
        if output.status != 0 {
            // That is how a helper says that it knows nothing of the server.
            return Ok(None);
        }
        let helped: Helped = serde_json::from_slice(&output.stdout).map_err(|error| {
            let sentence = format!("{} says nothing that can be read", program.display());
            Failure::new(Kind::Configuration, sentence).because(&error)
        })?;
        Ok(Some(match helped.username == TOKEN_USER {
            true => Credential::Token(helped.secret),
            false => Credential::Password { user: helped.username, password: helped.secret },
        }))
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.auth.as_ref().is_none_or(|auth| auth.expose().is_empty())
            && self.identitytoken.is_none()
            && self.password.is_none()
    }

    fn credential(&self, name: &str) -> Result<Option<Credential>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.expose().is_empty()) {
            return Ok(Some(Credential::Token(token.clone())));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credential::Password { user: user.clone(), password: password.clone() }));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.expose().is_empty()) else { return Ok(None) };
        let wrong = || {
            Failure::new(
                Kind::Configuration,
                format!("the credentials of {name} in Docker's config.json cannot be read"),
            )
            .advise(format!("log in again with `docker login {name}`"))
        };
        let pair = STANDARD.decode(auth.expose()).map_err(|_| wrong())?;
        let pair = Secret::new(String::from_utf8(pair).map_err(|_| wrong())?);
        let (user, password) = pair.expose().split_once(':').ok_or_else(wrong)?;
        Ok(Some(Credential::Password { user: user.to_owned(), password: Secret::new(password) }))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Credential, Credentials};
    use crate::secret::Secret;

    const FILE: &str = r#"{"auths": {
        "registry.lan": {"auth": "YW5uOmh1bnRlcjI="},
        "https://other.lan": {"username": "bob", "password": "pass"},
        "token.lan": {"auth": "", "identitytoken": "refresh"},
        "broken.lan": {"auth": "!!"},
        "https://index.docker.io/v1/": {"auth": "aHViOnB3"}
    }, "credHelpers": {"helped.lan": "no/such"}}"#;

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.into(), password: Secret::new(password) })
    }

    #[rstest]
    #[case("registry.lan", "https://registry.lan", password("ann", "hunter2"))]
    #[case("other.lan", "https://other.lan", password("bob", "pass"))]
    #[case("token.lan", "https://token.lan", Some(Credential::Token(Secret::new("refresh"))))]
    #[case("docker.io", "https://registry-1.docker.io", password("hub", "pw"))]
    // A mirror is shown what is its own, never what belongs to the registry it stands for.
    #[case("registry.lan", "https://mirror.lan/k8s", None)]
    #[case("unknown.lan", "https://registry.lan/k8s", password("ann", "hunter2"))]
    #[tokio::test]
    async fn credentials_are_those_of_the_server(
        #[case] registry: &str,
        #[case] base: &str,
        #[case] expected: Option<Credential>,
    ) {
        let credentials = Credentials { file: serde_json::from_str(FILE).unwrap(), folders: Vec::new() };
        assert_eq!(credentials.of(registry, base).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_said_without_the_secret() {
        let credentials = Credentials { file: serde_json::from_str(FILE).unwrap(), folders: Vec::new() };
        for server in ["broken.lan", "helped.lan"] {
            let failure = credentials.of(server, &format!("https://{server}")).await.unwrap_err();
            assert!(failure.sentence.contains("config.json") && !failure.sentence.contains("!!"), "{failure}");
        }
    }

    /// A helper that knows one server, and writes down what it is asked.
    fn with_helper(file: &str, knows: &str, user: &str) -> (tempfile::TempDir, Credentials) {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked");
        let script = format!(
            "#!/bin/sh\nread -r server\necho \"$1 $server\" >>{}\n[ \"$server\" = {knows} ] || {{ echo none; exit 1; }}\n\
             echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"kept\"}}'\n",
            asked.display()
        );
        let program = folder.path().join("docker-credential-x");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let folders = vec![folder.path().to_owned()];
        (folder, Credentials { file: serde_json::from_str(file).unwrap(), folders })
    }

    #[rstest]
    // A store answers also for servers of which the file says nothing.
    #[case(r#"{"credsStore": "x"}"#, "registry.lan", "ann", password("ann", "kept"), "get registry.lan")]
    #[case(r#"{"credsStore": "x"}"#, "other.lan", "ann", None, "get registry.lan")]
    #[case(
        r#"{"credsStore": "x", "auths": {"https://registry.lan": {}}}"#,
        "https://registry.lan",
        "ann",
        password("ann", "kept"),
        "get https://registry.lan"
    )]
    // A helper is asked by the name it was found under.
    #[case(
        r#"{"credHelpers": {"https://registry.lan": "x"}}"#,
        "https://registry.lan",
        "ann",
        password("ann", "kept"),
        "get https://registry.lan"
    )]
    #[case(
        r#"{"credHelpers": {"registry.lan": "x"}}"#,
        "registry.lan",
        "<token>",
        Some(Credential::Token(Secret::new("kept"))),
        "get registry.lan"
    )]
    #[tokio::test]
    async fn a_helper_is_asked(
        #[case] file: &str,
        #[case] knows: &str,
        #[case] user: &str,
        #[case] expected: Option<Credential>,
        #[case] asked: &str,
    ) {
        let (folder, credentials) = with_helper(file, knows, user);
        assert_eq!(credentials.of("registry.lan", "https://registry.lan").await.unwrap(), expected);
        let all = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert!(all.lines().any(|line| line == asked), "{all}");
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named_and_a_store_keeps_from_nothing() {
        let credentials = |file: &str| Credentials { file: serde_json::from_str(file).unwrap(), folders: Vec::new() };
        let named = credentials(r#"{"credHelpers": {"registry.lan": "x"}}"#);
        let failure = named.of("registry.lan", "https://registry.lan").await.unwrap_err();
        assert!(failure.sentence.contains("docker-credential-x, which is not installed"), "{failure}");
        let store = credentials(r#"{"credsStore": "x"}"#);
        assert_eq!(store.of("registry.lan", "https://registry.lan").await.unwrap(), None);
    }

    #[test]
    fn no_file_means_no_credentials_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(Credentials::read(&path).unwrap().file.auths.is_empty());
        std::fs::write(&path, "{").unwrap();
        assert!(Credentials::read(&path).unwrap_err().sentence.contains("config.json"));
    }
}
