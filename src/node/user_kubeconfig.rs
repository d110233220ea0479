//! A kubeconfig for another user of the cluster, signed on a control plane.

use std::path::Path;

use super::{defaults, files};
use crate::failure::{Failure, Kind, Result};
use crate::host::{Host, observe};
use crate::kubernetes::certificates::{Authority, KeyAlgorithm, KeyPool, Subject, Usage};
use crate::kubernetes::configuration::{Documents, Duration};
use crate::kubernetes::kubeconfig::Kubeconfig;
use crate::secret::Secret;

/// The administrator's, which names the cluster and its server where no document does.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// Who the kubeconfig is for.
#[derive(Debug, Clone, Copy)]
pub struct UserKubeconfig<'a> {
    /// The user: common name of the certificate.
    pub name: &'a str,
    /// Groups: organizations of the certificate.
    pub organizations: &'a [String],
    /// How long the certificate is valid.
    pub validity: Duration,
    /// A token in place of a certificate.
    pub token: Option<&'a Secret>,
}

/// What the documents or admin.conf say of the cluster.
struct Cluster {
    name: String,
    server: String,
    certificates: String,
    algorithm: String,
}

/// Makes the kubeconfig. `documents` name the cluster; without them admin.conf does.
///
/// # Errors
/// Kind `Configuration` when the CA, its key or admin.conf are not there or cannot be used.
pub async fn user_kubeconfig(
    host: &dyn Host,
    documents: Option<Documents>,
    wanted: &UserKubeconfig<'_>,
) -> Result<Secret> {
    let cluster = match documents {
        Some(documents) => of_documents(host, documents).await?,
        None => of_admin(host)?,
    };
    let path = |name: &str| Path::new(&cluster.certificates).join(name);
    let certificate = path("ca.crt");
    let text = files::text(host, &certificate)?
        .ok_or_else(|| Failure::new(Kind::Configuration, format!("there is no {}", certificate.display())))?;
    let key = files::text(host, &path("ca.key"))?.map(Secret::new);
    let unusable = |cause: Failure| {
        Failure::new(Kind::Configuration, format!("{} cannot be used", certificate.display())).because(&cause)
    };
    let authority = Authority::from_pem(&text, key.as_ref()).map_err(unusable)?;
    let ca = authority.first_pem();
    if let Some(token) = wanted.token {
        return Ok(Kubeconfig::with_token(&cluster.server, &cluster.name, wanted.name, &ca, token).to_text());
    }
    if authority.is_external() {
        let sentence = format!("{} is not on this host, so it can sign nothing", path("ca.key").display());
        return Err(Failure::new(Kind::Configuration, sentence)
            .advise("have the certificate signed where the key is, or give the user a token with --token"));
    }
    let algorithm: KeyAlgorithm = cluster.algorithm.parse()?;
    let mut keys = KeyPool::new(algorithm);
    keys.fill(1)?;
    let key = keys.take()?;
    let subject = Subject {
        common_name: wanted.name.to_owned(),
        organizations: wanted.organizations.to_vec(),
        usages: vec![Usage::Client],
        ..Default::default()
    };
    let signed = authority.sign(&subject, &key, defaults::now_seconds()?, wanted.validity.0.as_secs())?;
    let kubeconfig =
        Kubeconfig::with_certificate(&cluster.server, &cluster.name, wanted.name, &ca, &signed.pem(), key.pem());
    Ok(kubeconfig.to_text())
}

async fn of_documents(host: &dyn Host, documents: Documents) -> Result<Cluster> {
    let facts = observe::facts(host).await?;
    let mut init = documents.init.unwrap_or_default();
    let mut cluster = documents.cluster.unwrap_or_default();
    init.complete(&defaults::without_runtime(&facts))?;
    cluster.complete(init.local_api_endpoint.bind_port)?;
    init.validate()?;
    cluster.validate()?;
    Ok(Cluster {
        server: cluster.control_plane_url(&init.local_api_endpoint)?,
        algorithm: cluster.key_algorithm().to_owned(),
        name: cluster.cluster_name,
        certificates: cluster.certificates_dir,
    })
}

fn of_admin(host: &dyn Host) -> Result<Cluster> {
    let text = files::text(host, Path::new(ADMIN))?.ok_or_else(|| {
        Failure::new(Kind::Configuration, format!("there is no {ADMIN} that would name the cluster"))
            .advise("run this on a control plane, or describe the cluster with --config")
    })?;
    let unusable =
        |cause: &Failure| Failure::new(Kind::Configuration, format!("{ADMIN} cannot be used")).because(cause);
    let admin = Kubeconfig::parse(&text).map_err(|failure| unusable(&failure))?;
    let context = admin.contexts.iter().find(|context| context.name == admin.current_context);
    let cluster = admin.current_cluster().zip(context);
    let (cluster, context) =
        cluster.ok_or_else(|| unusable(&Failure::new(Kind::Configuration, "its current context names no cluster")))?;
    Ok(Cluster {
        name: context.context.cluster.clone(),
        server: cluster.server.clone(),
        certificates: "/etc/kubernetes/pki".to_owned(),
        algorithm: "RSA-2048".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{UserKubeconfig, user_kubeconfig};
    use crate::failure::Kind;
    use crate::host::fake::FakeHost;
    use crate::kubernetes::certificates::{Authority, Certificate, KeyAlgorithm, KeyPool};
    use crate::kubernetes::configuration::Duration;
    use crate::kubernetes::kubeconfig::Kubeconfig;
    use crate::node::defaults;
    use crate::secret::Secret;

    fn control_plane() -> FakeHost {
        let mut keys = KeyPool::new(KeyAlgorithm::EcdsaP256);
        keys.fill(1).unwrap();
        let ca = Authority::fresh("kubernetes", keys.take().unwrap(), defaults::now_seconds().unwrap(), 3600).unwrap();
        let admin = Kubeconfig::with_token("https://x:6443", "demo", "a", ca.pem(), &Secret::new("t")).to_text();
        FakeHost::new()
            .file("/etc/kubernetes/admin.conf", admin.expose())
            .file("/etc/kubernetes/pki/ca.crt", ca.pem())
            .file("/etc/kubernetes/pki/ca.key", ca.key().unwrap().pem().expose())
    }

    #[tokio::test]
    async fn a_user_gets_a_certificate_of_the_cluster() {
        let organizations = ["devs".to_owned(), "ops".to_owned()];
        let mut wanted = UserKubeconfig {
            name: "ann",
            organizations: &organizations,
            validity: Duration::from_hours(1),
            token: None,
        };
        let text = user_kubeconfig(&control_plane(), None, &wanted).await.unwrap();
        let kubeconfig = Kubeconfig::parse(text.expose()).unwrap();
        assert_eq!(kubeconfig.current_context, "ann@demo");
        assert_eq!(kubeconfig.current_cluster().unwrap().server, "https://x:6443");
        let data = kubeconfig.current_user().unwrap().user.client_certificate_data.clone().unwrap();
        use base64::Engine as _;
        let pem = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        let certificate = Certificate::parse_pem(std::str::from_utf8(&pem).unwrap()).unwrap().remove(0);
        assert_eq!(certificate.common_name, "ann");
        assert!(certificate.not_after - certificate.not_before < 3600 + 301);

        let token = Secret::new("secret-token");
        wanted.token = Some(&token);
        let text = user_kubeconfig(&control_plane(), None, &wanted).await.unwrap();
        assert!(text.expose().contains("token: secret-token\n"));
    }

    #[tokio::test]
    async fn a_host_that_cannot_sign_says_so() {
        let wanted = UserKubeconfig { name: "ann", organizations: &[], validity: Duration::from_hours(1), token: None };
        let failure = user_kubeconfig(&FakeHost::new(), None, &wanted).await.unwrap_err();
        assert!(failure.sentence.starts_with("there is no /etc/kubernetes/admin.conf"), "{failure}");
        let host = control_plane();
        crate::host::Host::remove(&host, std::path::Path::new("/etc/kubernetes/pki/ca.key")).unwrap();
        let failure = user_kubeconfig(&host, None, &wanted).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Configuration);
        assert!(failure.sentence.contains("ca.key is not on this host"), "{failure}");
    }
}
