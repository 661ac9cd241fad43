//! The cluster's certificates: one authority, a server certificate for the API server and for each kubelet, a
//! client certificate for each identity. Every component has the identity that it has in a real cluster, so
//! that RBAC, the Node authorizer and `NodeRestriction` are tested as they are.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate authority, and the directory that its certificates go to.
pub struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key, readable by its owner only.
    pub key: PathBuf,
}

impl Authority {
    /// Creates an authority of its own for this cluster.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "pavise-testbed");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
            .context("signing the cluster's authority")?;
        let authority = Self { directory: directory.to_owned(), issuer };
        fs::write(authority.certificate(), authority.issuer.pem())
            .context("writing the authority's certificate")?;
        Ok(authority)
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A certificate for a server that is reached under `names` (DNS names and addresses).
    ///
    /// # Errors
    /// A name is neither, or the files can't be written.
    pub fn server(&self, file: &str, names: &[&str]) -> anyhow::Result<Identity> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, file);
        // etcd is its own client, too.
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for name in names {
            parameters.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    SanType::DnsName((*name).try_into().with_context(|| format!("{name} is no DNS name"))?)
                }
            });
        }
        self.issue(file, &parameters)
    }

    /// A certificate for a client that the API server knows as `user` in `group`.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn client(&self, file: &str, user: &str, group: &str) -> anyhow::Result<Identity> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, user);
        parameters.distinguished_name.push(DnType::OrganizationName, group);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(file, &parameters)
    }

    /// A pair of keys that signs `ServiceAccount` tokens and verifies them: private, public.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn signing_keys(&self, file: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let (private, public) =
            (self.directory.join(format!("{file}.key")), self.directory.join(format!("{file}.pub")));
        let keys = KeyPair::generate()?;
        write_private(&private, &keys.serialize_pem())?;
        fs::write(&public, keys.public_key_pem()).with_context(|| format!("writing {}", public.display()))?;
        Ok((private, public))
    }

    /// A kubeconfig for a client that the API server at `server` knows as `user` in `group`.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn kubeconfig(&self, file: &str, server: &str, user: &str, group: &str) -> anyhow::Result<PathBuf> {
        let identity = self.client(file, user, group)?;
        let path = self.directory.join(format!("{file}.kubeconfig"));
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": self.certificate()}}],
            "users": [{"name": user, "user": {"client-certificate": identity.certificate, "client-key": identity.key}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
            "current-context": "testbed",
        });
        write_private(&path, &format!("{kubeconfig:#}"))?;
        Ok(path)
    }

    fn issue(&self, file: &str, parameters: &CertificateParams) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate =
            parameters.signed_by(&key, &self.issuer).with_context(|| format!("signing {file}"))?;
        let identity = Identity {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        fs::write(&identity.certificate, certificate.pem())
            .with_context(|| format!("writing {}", identity.certificate.display()))?;
        write_private(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .with_context(|| format!("writing {}", path.display()))
}
