//! Discovery of Kubernetes Services through their EndpointSlices. See the [guide](crate::docs::registries::kubernetes).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::Resolver;
//! use buttress::registries::kubernetes::Kubernetes;
//!
//! let kubernetes = Kubernetes::in_cluster()?.port("http");
//! let stock = Resolver::new(kubernetes).watch("stock.shop").resolved().await?;
//! println!("{} instances of stock", stock.instances().len());
//! # Ok(())
//! # }
//! ```

mod access;
mod follow;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod name;
mod port;
mod slices;
mod wire;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::ClientBuilder;
use secrecy::SecretString;

use self::access::{Access, Token};
use self::follow::Follow;
use self::name::{ServiceName, is_label};
use self::port::Wanted;
use super::http::wrong;
use crate::discovery::{BoxFuture, ErrorKind, Instance, Registry, RegistryError, Updates};

/// The API server of a Kubernetes cluster. A cheap clone talks to the same one.
#[derive(Clone)]
pub struct Kubernetes {
    access: Access,
    /// Of services that do not name theirs.
    namespace: String,
    port: Wanted,
}

impl Kubernetes {
    /// The cluster that this process runs in, as its pod is told: address from `KUBERNETES_SERVICE_HOST` and
    /// `KUBERNETES_SERVICE_PORT`; token, CA and namespace from `/var/run/secrets/kubernetes.io/serviceaccount`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if one of them is missing or cannot be read.
    pub fn in_cluster() -> Result<Self, RegistryError> {
        Self::told(|name| std::env::var(name).ok(), Path::new(SERVICE_ACCOUNT))
    }

    /// The API server at `url`: `https://10.0.0.1:6443`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if it is no URL of `http` or `https`, or has a user or password.
    pub fn new(url: &str) -> Result<Self, RegistryError> {
        Ok(Self {
            access: Access::new(url)?,
            namespace: "default".to_owned(),
            port: Wanted::Any,
        })
    }

    /// Sends `token` with every request. It is shown nowhere. White space around it is left out, since files end in a
    /// new line.
    #[must_use]
    pub fn token(mut self, token: impl Into<SecretString>) -> Self {
        self.access.token = Token::Given(token.into());
        self
    }

    /// Sends the token in the file at `path`, which is read again before each request: a token that Kubernetes writes
    /// there is replaced before it expires.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.access.token = Token::File(path.into());
        self
    }

    /// Trusts an API server whose certificate is signed by one of those in `pem`, and no other. Default: what the
    /// system trusts. Replaces the [`client`](Self::client).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if there is no certificate in it.
    pub fn ca(mut self, pem: &[u8]) -> Result<Self, RegistryError> {
        self.access.trust(pem)?;
        Ok(self)
    }

    /// Talks through a client built by `builder`: for certificates, proxies and the like. Redirects stay refused and
    /// the time limits are set here. Replaces the [`ca`](Self::ca).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if it cannot be built.
    pub fn client(mut self, builder: ClientBuilder) -> Result<Self, RegistryError> {
        self.access.http.client(builder)?;
        Ok(self)
    }

    /// Looks in `namespace` for services that do not name theirs, as `orders.shop` does. Default: that of the pod in
    /// a cluster, otherwise `default`.
    ///
    /// # Panics
    ///
    /// If no namespace can be called that.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        assert!(
            is_label(&self.namespace),
            "`{}` is no name of a namespace",
            self.namespace
        );
        self
    }

    /// Calls the port of that name or number, which is that of the pod, not of the Service. Default: the only one over
    /// TCP, and of several the one named `http`, else `https`, else `grpc`.
    #[must_use]
    pub fn port(mut self, port: &str) -> Self {
        self.port = Wanted::new(port);
        self
    }

    fn told(
        variable: impl Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Result<Self, RegistryError> {
        let told = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| wrong(WHAT, format!("{name} is not set, as it is in a pod")))
        };
        let [host, port] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"].map(told);
        let (host, port) = (host?, port?);
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let kubernetes = Self::new(&format!("https://{host}:{port}"))?;

        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|error| {
                wrong(WHAT, format!("cannot read {}", path.display())).caused_by(error)
            })
        };
        let namespace = read("namespace")?.trim().to_owned();
        if !is_label(&namespace) {
            return Err(wrong(
                WHAT,
                format!("`{namespace}` is no name of a namespace"),
            ));
        }
        read("token")?;
        let kubernetes = kubernetes.ca(read("ca.crt")?.as_bytes())?;
        Ok(kubernetes
            .token_file(folder.join("token"))
            .namespace(namespace))
    }
}

impl Registry for Kubernetes {
    fn name(&self) -> &str {
        self.access.http.name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let Some(name) = ServiceName::new(service) else {
            // There cannot be one, now or later.
            return Box::pin(async move {
                updates.instances(Vec::new()).await;
                std::future::pending().await
            });
        };
        let namespace = name.namespace.unwrap_or_else(|| self.namespace.clone());
        let (access, port) = (self.access.clone(), self.port.clone());
        let follow = Follow::new(access, namespace, name.service, port, updates);
        Box::pin(async move {
            match follow.run().await {
                Err(error) => error,
                Ok(never) => match never {},
            }
        })
    }

    /// Kubernetes registers pods by itself.
    fn register(
        &self,
        _: &str,
        _: &Instance,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let message = "cannot register an instance: Kubernetes does so by itself, for the pods that a Service selects";
        let error = self.access.http.error(ErrorKind::Unsupported, message);
        Box::pin(async move { Err(error) })
    }
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes")
            .field("server", &self.access.http)
            .field("namespace", &self.namespace)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

const WHAT: &str = "kubernetes";
/// Where a pod finds what it needs to know.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(host: &str, folder: &Path) -> Result<Kubernetes, RegistryError> {
        let variable = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        };
        Kubernetes::told(variable, folder)
    }

    #[test]
    fn a_pod_is_told_all_that_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
        for (name, text, missing) in [
            ("namespace", "", "cannot read"),
            ("namespace", "no name", "`no name`"),
            ("namespace", "shop\n", "token"),
            ("token", "t0ken\n", "ca.crt"),
            ("ca.crt", "garbage", "no certificate"),
            ("ca.crt", &*certificate.cert.pem(), ""),
        ] {
            if !missing.starts_with("cannot") {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            match told("10.0.0.1", folder.path()) {
                Ok(_) => assert_eq!(missing, ""),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unsupported);
                    assert!(error.message().contains(missing), "{}", error.message());
                }
            }
        }
        let kubernetes = told("10.0.0.1", folder.path()).unwrap();
        assert_eq!(kubernetes.name(), "kubernetes at https://10.0.0.1");
        assert_eq!(kubernetes.namespace, "shop");
        let six = told("fd00::1", folder.path()).unwrap();
        assert_eq!(six.name(), "kubernetes at https://[fd00::1]");
        assert!(!format!("{six:?}").contains("t0ken"));
    }

    #[test]
    fn outside_of_a_pod_it_says_what_is_missing() {
        let error = Kubernetes::told(|_| None, Path::new("/")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kubernetes: KUBERNETES_SERVICE_HOST is not set, as it is in a pod"
        );
    }
}
