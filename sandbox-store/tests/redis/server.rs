//! A Redis server of a test's own: in a temporary folder, on a unix socket and the loopback, gone
//! with the test.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often another port is taken, where somebody else was quicker.
const PORT_ATTEMPTS: u32 = 5;

pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    password: Option<String>,
    running: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::made(None)
    }

    pub(crate) fn start_with_password(password: &str) -> Self {
        Self::made(Some(password.to_owned()))
    }

    fn made(password: Option<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("redis").tempdir().unwrap();
        let mut server = Self {
            folder,
            port: 0,
            password,
            running: None,
        };
        for _ in 0..PORT_ATTEMPTS {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            server.port = free.local_addr().unwrap().port();
            drop(free);
            match server.try_run() {
                Ok(()) => return server,
                Err(log) => assert!(log.contains("Address already in use"), "{log}"),
            }
            server.stop(Signal::SIGKILL);
        }
        panic!("no port is free for long enough");
    }

    /// Runs it again where it was.
    pub(crate) fn run(&mut self) {
        if let Err(log) = self.try_run() {
            panic!("no server: {log}");
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Returns once it says that it is ready; gives what it said where it does not get there.
    fn try_run(&mut self) -> Result<(), String> {
        assert!(self.running.is_none(), "the server runs already");
        let config = self.folder.path().join("redis.conf");
        let password = match &self.password {
            Some(password) => format!("requirepass \"{password}\"\n"),
            None => String::new(),
        };
        let text = format!(
            "bind 127.0.0.1\nport {}\nunixsocket {}\ndir {}\nsave \"\"\nappendonly no\n\
             daemonize no\ndatabases 4\n{password}",
            self.port,
            self.socket().display(),
            self.folder.path().display(),
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "redis-server"])
            .arg(&config)
            // By this `scripts/leftovers.sh` knows it: Redis writes over its environment.
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`setpriv` can't be run: install the package `util-linux`");
        let (said, heard) = mpsc::channel();
        let log = BufReader::new(child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        self.running = Some(child);
        let other = said.clone();
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = other.send(line);
            }
        });
        // The last thing that it says before it takes connections.
        let ready = "ready to accept connections at";
        let mut lines = Vec::new();
        while !lines
            .last()
            .is_some_and(|line: &String| line.contains(ready))
        {
            match heard.recv_timeout(READY_TIMEOUT) {
                Ok(line) => lines.push(line),
                Err(error) => {
                    let hint = "is `redis-server` installed (Debian, Ubuntu: redis-server)?";
                    return Err(format!("{error}: {}; {hint}", lines.join("\n")));
                }
            }
        }
        Ok(())
    }

    fn pid(&self) -> Pid {
        let child = self.running.as_ref().unwrap();
        Pid::from_raw(i32::try_from(child.id()).unwrap())
    }

    /// Sends it a signal and leaves it at that.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Ends it by a signal.
    pub(crate) fn stop(&mut self, signal: Signal) {
        if self.running.is_some() {
            self.signal(signal);
            self.running.take().unwrap().wait().unwrap();
        }
    }

    /// By its socket.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Over TCP.
    pub(crate) fn tcp(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also where it is stopped.
        self.stop(Signal::SIGKILL);
    }
}
