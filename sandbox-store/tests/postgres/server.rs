//! A PostgreSQL server of a test's own: in a temporary folder, on a unix socket or the loopback, gone
//! with the test.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often another port is taken, where somebody else was quicker.
const PORT_ATTEMPTS: u32 = 5;

/// Where PostgreSQL's programs are: in Debian's folder of the newest version, or in the PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .chain(std::env::split_paths(&path))
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .expect("no PostgreSQL server here: install the package `postgresql` (Debian, Ubuntu)")
}

/// A program of PostgreSQL's, ended when this process ends. It refuses to be root, so root runs it
/// as another user, who may enter the test's folder nevertheless.
fn program(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if geteuid().is_root() {
        let user = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).unwrap())
            .expect("there is no user `postgres` or `nobody` to run a server as");
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .args(["--clear-groups", "--inh-caps=+dac_override"])
            .arg("--ambient-caps=+dac_override");
    }
    command.arg("--").arg(programs().join(name));
    command.env("LC_ALL", "C");
    command
}

pub(crate) struct Server {
    folder: TempDir,
    /// Where it listens on the loopback instead of a socket in its folder.
    port: Option<u16>,
    running: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut server = Self::made(&["--auth=trust"]);
        server.run();
        server
    }

    /// One that is reached over TCP, by those who know the password.
    pub(crate) fn start_with_password(password: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, password).unwrap();
        let password = format!("--pwfile={}", file.path().display());
        let mut server = Self::made(&["--auth=scram-sha-256", &password]);
        for _ in 0..PORT_ATTEMPTS {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            server.port = Some(free.local_addr().unwrap().port());
            drop(free);
            match server.try_run() {
                Ok(()) => return server,
                Err(log) => assert!(log.contains("Address already in use"), "{log}"),
            }
            server.stop(Signal::SIGQUIT);
        }
        panic!("no port is free for long enough");
    }

    fn made(authentication: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let output = program("initdb")
            .args(["--no-sync", "--username=sandbox"])
            .args(authentication)
            .args(["--locale=C", "--encoding=UTF8", "-D"])
            .arg(folder.path().join("data"))
            .output()
            .expect("`setpriv` can't be run: install the package `util-linux`");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {errors}");
        Self {
            folder,
            port: None,
            running: None,
        }
    }

    /// Runs the server and returns once it says that it is ready.
    pub(crate) fn run(&mut self) {
        if let Err(log) = self.try_run() {
            panic!("no server: {log}");
        }
    }

    /// As [`run`](Self::run); gives what the server said where it does not get ready.
    fn try_run(&mut self) -> Result<(), String> {
        assert!(self.running.is_none(), "the server runs already");
        let listen = match self.port {
            None => vec!["-c".to_owned(), "listen_addresses=".to_owned()],
            Some(port) => vec![
                "-c".to_owned(),
                "listen_addresses=127.0.0.1".to_owned(),
                "-p".to_owned(),
                port.to_string(),
            ],
        };
        let mut child = program("postgres")
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.folder.path())
            // The folder goes with the test: nothing needs to outlive a power cut.
            .args(listen)
            .args(["-c", "fsync=off"])
            .args(["-c", "autovacuum=off", "-c", "deadlock_timeout=200ms"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        self.running = Some(child);
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let mut lines = Vec::new();
        while !lines
            .last()
            .is_some_and(|line: &String| line.contains("ready to accept connections"))
        {
            match heard.recv_timeout(READY_TIMEOUT) {
                Ok(line) => lines.push(line),
                Err(error) => return Err(format!("{error}: {}", lines.join("\n"))),
            }
        }
        Ok(())
    }

    /// `SIGINT` ends it in order, its clients told; `SIGQUIT` is a crash.
    pub(crate) fn stop(&mut self, signal: Signal) {
        if let Some(mut child) = self.running.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            kill(pid, signal).unwrap();
            child.wait().unwrap();
        }
    }

    /// Where it listens, as `HOST:PORT`; of one that was started with a password.
    pub(crate) fn tcp(&self) -> String {
        format!("127.0.0.1:{}", self.port.unwrap())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        url(self.folder(), database)
    }

    /// An empty database; returns its URL.
    pub(crate) async fn database(&self, name: &str) -> String {
        sql(&self.url("postgres"), &format!("CREATE DATABASE {name}")).await;
        self.url(name)
    }
}

pub(crate) fn url(folder: &Path, database: &str) -> String {
    let folder = folder.display();
    format!("postgres:///{database}?host={folder}&user=sandbox")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Signal::SIGQUIT);
    }
}

/// Runs SQL over a connection of its own; returns the first column of each row.
pub(crate) async fn sql(url: &str, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let answers = client.simple_query(sql).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    answers
        .into_iter()
        .filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .collect()
}
