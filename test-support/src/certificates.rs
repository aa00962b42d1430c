//! Certificates for servers and clients of a test, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::native::{in_path, new_directory};

/// An authority of its own, and certificates from it for a server (`localhost` and `127.0.0.1`) and a
/// client, as PEM files. Valid for a day. Dropping it removes the files.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them, which takes about 0.1 s.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without `openssl`, [`Error::Io`] when it fails or cannot be run.
    pub fn generate() -> Result<Self, Error> {
        let openssl = in_path("openssl").ok_or_else(|| Error::NotInstalled {
            server: "TLS",
            missing: "openssl in PATH".to_owned(),
            install: "apt-get install openssl",
        })?;
        let directory = new_directory("certificates");
        std::fs::create_dir(&directory).map_err(Error::io("make the directory of certificates"))?;
        let made = Self { directory };
        let names = made.directory.join("names.txt");
        std::fs::write(names, "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            .map_err(Error::io("write the names of a certificate"))?;
        let authority = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout ca.key -out ca.pem -days 1 -subj /CN=test-authority";
        made.run(&openssl, &words(authority))?;
        for name in ["server", "client"] {
            made.run(&openssl, &request(name))?;
            made.run(&openssl, &sign(name))?;
        }
        Ok(made)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    /// The server's private key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.directory.join("server.key")
    }

    /// The client's certificate.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.directory.join("client.pem")
    }

    /// The client's private key.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.directory.join("client.key")
    }

    fn run(&self, openssl: &Path, arguments: &[String]) -> Result<(), Error> {
        let mut command = Command::new(openssl);
        let output = command
            .args(arguments)
            .current_dir(&self.directory)
            .output();
        let output = output.map_err(Error::io("run openssl"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::io("make certificates by openssl")(
            std::io::Error::other(said),
        ))
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // What is left behind is small, and of use to nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn request(name: &str) -> Vec<String> {
    words(&format!(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
         -keyout {name}.key -out {name}.csr"
    ))
}

fn sign(name: &str) -> Vec<String> {
    words(&format!(
        "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
         -extfile names.txt -out {name}.pem"
    ))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
