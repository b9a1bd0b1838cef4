//! A security server as a process of its own: started, killed without warning, measured.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use super::server::Server;

/// Ticks of `/proc/PID/stat` in a second: the same on every Linux that this runs on.
const TICKS: u64 = 100;
/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(60);

/// A running process. It ends with this one: killed when this is dropped, and by itself when this process has gone without
/// a word, as its standard input tells it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    address: SocketAddr,
    begun: Instant,
}

impl Process {
    /// Starts `server` as `command`, which must serve with the configuration file that it is told in `TRAVE_SERVE`.
    pub fn start(mut command: Command, server: &Server) -> Self {
        let file = server.configuration_file();
        let told = std::fs::File::create(file.with_extension("told")).unwrap();
        command.env("TRAVE_SERVE", &file).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(told);
        Self { child: command.spawn().unwrap(), address: server.peer, begun: Instant::now() }
    }

    /// Waits until it serves; how long that took.
    pub async fn serving(&mut self) -> Duration {
        loop {
            if TcpStream::connect(self.address).await.is_ok() {
                return self.begun.elapsed();
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended by itself");
            assert!(self.begun.elapsed() < START, "the server does not serve");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Kills it (SIGKILL): nothing in it runs any more, nothing is finished.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it see what it would see if this process were gone, and waits until it has ended.
    pub async fn abandon(mut self) {
        drop(self.child.stdin.take());
        self.ended().await;
    }

    async fn ended(&mut self) -> ExitStatus {
        let told = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(told.elapsed() < START, "the server does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tells it to stop (SIGTERM), as a service manager does, and waits until it has ended as it should.
    pub async fn terminate(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.ended().await;
        assert!(status.success(), "{status}");
    }

    /// Processor time that it has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The fields after the name, which may hold anything: utime and stime are the 14th and 15th of all.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }

    /// Resident memory in MiB.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program does that may have been started as a security server: it serves, or goes on with what it is for.
pub fn serve_if_told() {
    let Some(file) = std::env::var_os("TRAVE_SERVE") else { return };
    std::thread::spawn(|| {
        // Nothing is ever said: it ends when whoever started this process has gone.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let arguments = ["trave-gateway".into(), "--config".into(), file, "run".into()];
    let code = trave_gateway::cli::run(arguments);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}
