//! The server as a process, and what the system says about processes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The unit of the times in `/proc`, which for programs is the same everywhere.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts the server in a folder, on a free port, and waits until it listens.
    pub(crate) fn start(folder: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_messenger-server"))
            .current_dir(folder)
            .env_clear()
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("DATABASE_URL", "sqlite:///./messenger.db")
            .env("DATABASE_DURABILITY", "full")
            .env("AUTH_RATE_LIMIT_MAX_REQUESTS", "1000000")
            // Nobody logs in again or pings, however long it takes.
            .env("ACCESS_TOKEN_EXPIRE_MINUTES", "1440")
            .env("WS_IDLE_TIMEOUT_SEC", "86400")
            .env("WS_MAX_CONNECTIONS", "1000000")
            .env("WS_MAX_CONNECTIONS_PER_USER", "1000000")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            child,
            address: unknown,
        };
        let mut log = BufReader::new(server.child.stderr.take().unwrap()).lines();
        let address = log.find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once("addr=")?;
            address.split_whitespace().next()?.parse().ok()
        });
        server.address = address.unwrap();
        // A log that nobody reads would stop who writes it.
        std::thread::spawn(move || log.for_each(drop));
        server
    }

    /// Asks it to stop and waits until it has, which it must do in order.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status();
        assert!(asked.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_whitespace().next();
        number.unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time used so far, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) generator: f64,
    /// By whatever else ran on the machine.
    pub(crate) others: f64,
}

impl Cpu {
    pub(crate) fn now(server: &Server) -> Self {
        let of_server = of_process(&server.id().to_string());
        let generator = of_process("self");
        Self {
            server: of_server,
            generator,
            others: of_machine() - of_server - generator,
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            server: self.server - before.server,
            generator: self.generator - before.generator,
            others: (self.others - before.others).max(0.0),
        }
    }
}

fn of_process(id: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name of the program comes second, in parentheses, and may have spaces in it.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    sum(fields.split(' ').skip(11).take(2))
}

fn of_machine() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let fields: Vec<&str> = stat.lines().next().unwrap().split_whitespace().collect();
    sum(fields[1..4].iter().chain(&fields[6..9]).copied())
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> f64 {
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / TICKS_PER_SECOND
}

/// How many files, sockets included, a process may have open.
pub(crate) fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.unwrap().split_whitespace().next().unwrap();
    soft.parse().unwrap_or(usize::MAX)
}

/// The median time of what a commit waits for: a page appended to a file, and on the disk.
pub(crate) fn sync_time(folder: &Path) -> Duration {
    use std::io::Write;

    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let begun = std::time::Instant::now();
            file.write_all(&[0; 4_096]).unwrap();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
