//! The server as a child process.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{io::AsyncWriteExt as _, sync::watch};

use crate::{PATIENCE, within};

/// Where the binary under test is: `MESSENGER_SERVER_BINARY`, else beside the test executables.
///
/// # Panics
///
/// When it was not built.
pub fn server_binary() -> PathBuf {
    let binary = match std::env::var_os("MESSENGER_SERVER_BINARY") {
        Some(binary) => PathBuf::from(binary),
        None => {
            let test = std::env::current_exe().expect("a test knows its own path");
            let profile = test.parent().and_then(Path::parent);
            profile
                .expect("a test lives in target/<profile>/deps")
                .join("messenger-server")
        }
    };
    let how = "cargo build -p messenger-server --bin messenger-server";
    assert!(
        binary.is_file(),
        "no {}: build it with `{how}`",
        binary.display()
    );
    binary
}

/// A running server. Dropping it kills it, and prints its log when the test is failing.
#[derive(Debug)]
pub struct Server {
    child: Mutex<Child>,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    ended: watch::Receiver<bool>,
}

/// What a run of the binary to its end left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code, if it was not killed.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Server {
    /// Starts the binary in a folder with nothing but these variables and waits until it listens.
    pub(crate) async fn start(folder: &Path, settings: &BTreeMap<String, String>) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        let mut command = command(folder, settings);
        command.stdin(Stdio::null());
        command
            .stdout(writer.try_clone().expect("a pipe has two ends"))
            .stderr(writer);
        let child = command.spawn().expect("the binary can be started");
        // The command holds writing ends of the pipe: with them the end of the log never comes.
        drop(command);

        let log = Arc::new(Mutex::new(String::new()));
        let (address_sender, mut address) = watch::channel(None);
        let (ended_sender, ended) = watch::channel(false);
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                let text = String::from_utf8_lossy(&line);
                if address_sender.borrow().is_none() {
                    address_sender.send_replace(address_of(&text));
                }
                lines
                    .lock()
                    .expect("nobody panics with the log")
                    .push_str(&text);
                line.clear();
            }
            ended_sender.send_replace(true);
        });

        // Whatever happens from here on, dropping this kills the child.
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            child: Mutex::new(child),
            address: unbound,
            log,
            ended,
        };
        let found = within(
            2 * PATIENCE,
            "the server to listen",
            address.wait_for(Option::is_some),
        );
        match found.await {
            Ok(found) => server.address = found.expect("waited for it"),
            Err(_) => panic!("the server ended before it listened"),
        }
        server
    }

    /// Runs the binary with arguments, and a line to read, to its end.
    pub(crate) async fn run(
        folder: &Path,
        settings: &BTreeMap<String, String>,
        arguments: &[&str],
        line: &str,
    ) -> Finished {
        let mut command = tokio::process::Command::from(command(folder, settings));
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let run = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read may be gone already.
                let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = within(2 * PATIENCE, "the program to end by itself", run).await;
        let output = output.expect("the binary can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Finished {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells its metrics, which it says before it listens.
    pub fn metrics_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, told) = log
            .split_once("metrics=")
            .expect("METRICS_LISTEN is set for this server");
        let address = told.split_whitespace().next().unwrap_or_default();
        address.parse().expect("an address follows")
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with the log").clone()
    }

    /// The most memory that it has had, in MiB.
    pub fn memory_peak_mib(&self) -> u64 {
        let id = self.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"));
        let status = status.expect("Linux tells how a process is");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the peak is a number") / 1_024
    }

    /// Takes the memory that it has now for the most that it ever had.
    ///
    /// # Panics
    ///
    /// If the system does not let it.
    pub fn forget_memory_peak(&self) {
        let file = format!("/proc/{}/clear_refs", self.id());
        std::fs::write(file, "5").expect("it is a process of ours");
    }

    fn id(&self) -> u32 {
        let child = self.child.lock().expect("nobody panics with the child");
        child.id()
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("nobody panics with the child");
        // It may have ended by itself; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let child = self.child.lock().expect("nobody panics with the child");
        let (script, id) = ("kill -\"$0\" \"$1\"", child.id().to_string());
        let sent = Command::new("sh").args(["-c", script, name, &id]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "SIG{name} can be sent"
        );
    }

    /// Waits for its end.
    pub async fn end(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        let gone = within(
            2 * PATIENCE,
            "the server to end",
            ended.wait_for(|ended| *ended),
        );
        gone.await.expect("the reader tells before it goes");
        let mut child = self.child.lock().expect("nobody panics with the child");
        child.wait().expect("a child can be waited for")
    }
}

impl Drop for Server {
    #[expect(
        clippy::print_stderr,
        reason = "a failing test shows what the server saw"
    )]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}--- end of the log", self.log());
        }
    }
}

fn command(folder: &Path, settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(server_binary());
    command.current_dir(folder).env_clear().envs(settings);
    command
}

/// The address in a log line that has `addr=…` or `"addr":"…"`, whatever colours surround it.
fn address_of(line: &str) -> Option<SocketAddr> {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let key = ["addr=", "\"addr\":\""]
        .into_iter()
        .find(|key| plain.contains(key))?;
    let (_, address) = plain.split_once(key)?;
    let end = address.find(|letter: char| letter.is_whitespace() || letter == '"');
    address[..end.unwrap_or(address.len())].parse().ok()
}
