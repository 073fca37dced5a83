//! A zone of a real name server, changed by dynamic update (RFC 2136) with `knsupdate`.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::real;

/// The zone `buttress.test` of the server of `DNS_URL`.
#[derive(Clone)]
pub struct Zone {
    pub server: SocketAddr,
}

impl Zone {
    pub fn real() -> Option<Self> {
        let url = real("DNS_URL")?;
        let server = url.trim_start_matches("dns://").parse();
        let server = server.expect("DNS_URL must be dns://ADDRESS:PORT");
        Some(Self { server })
    }

    /// Makes all of `changes` at once: `add NAME TTL TYPE DATA`, `del NAME`, with names relative to the zone.
    pub async fn change(&self, changes: impl IntoIterator<Item = impl AsRef<str>>) {
        let (ip, port) = (self.server.ip(), self.server.port());
        let mut script =
            format!("server {ip} {port}\nzone buttress.test.\norigin buttress.test.\n");
        for change in changes {
            script += &format!("{}\n", change.as_ref());
        }
        script += "send\n";
        let mut command = Command::new("knsupdate");
        let mut running = command
            .args(["-t", "2", "-r", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect(NEEDS);
        let mut stdin = running.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        drop(stdin);
        let done = running.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}{said}");
    }

    /// What the records of that name and type say.
    pub async fn list(&self, name: &str, kind: &str) -> Vec<String> {
        let (ip, port) = (self.server.ip(), self.server.port());
        let mut command = Command::new("kdig");
        command.args(["+tcp", "+short", "+retry=0", "-p", &port.to_string()]);
        command.args([&format!("@{ip}"), &format!("{name}.buttress.test"), kind]);
        let done = command.output().await.expect(NEEDS);
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{said}");
        said.lines().map(str::to_owned).collect()
    }
}

const NEEDS: &str = "needs knsupdate and kdig, which Debian has in the package knot-dnsutils";
