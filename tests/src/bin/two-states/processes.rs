//! Processes: each server of the demonstration is one, started from this same executable and ended with it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long a server may take from start to serving.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to end what is under way when it is asked to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// The program of this role, as the operator would call it: the same code under its own command line.
fn command(program: &str, directory: &Path) -> anyhow::Result<Command> {
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(executable);
    command.arg("process").arg(program).current_dir(directory).stdin(Stdio::null());
    // Ctrl-C is for the story alone, which then ends its servers in order.
    command.process_group(0);
    Ok(command)
}

/// A program that was run to its end.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed, if it succeeded.
    pub(crate) fn success(self, what: &str) -> anyhow::Result<String> {
        ensure!(self.code == Some(0), "{what}: {}{}", self.stderr.trim(), self.stdout.trim());
        Ok(self.stdout)
    }
}

/// Runs `program` in `directory` to its end.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, directory: &Path, args: &[A]) -> anyhow::Result<Ran> {
    let output = command(program, directory)?.args(args).output();
    Ok(Ran::of(output.with_context(|| format!("cannot run {program}"))?))
}

/// A program that goes on by itself. Dropping it kills it.
pub(crate) struct Running {
    name: String,
    program: String,
    args: Vec<OsString>,
    directory: PathBuf,
    child: Option<Child>,
    /// What it says of itself: appended, over all its starts.
    output: PathBuf,
}

impl Running {
    /// Starts `program` in `directory`; what it says is written to `name.log` there.
    pub(crate) fn start(name: &str, program: &str, directory: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let mut running = Self {
            name: name.into(),
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            directory: directory.into(),
            child: None,
            output: directory.join(format!("{name}.log")),
        };
        running.start_again()?;
        Ok(running)
    }

    /// Starts it once more after its end.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&self.output)
            .with_context(|| format!("cannot write {}", self.output.display()))?;
        let child = command(&self.program, &self.directory)?
            .args(&self.args)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it accepts connections at each of `addresses`; returns how long that took.
    pub(crate) async fn serving(&mut self, addresses: &[SocketAddr]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for address in addresses {
            while TcpStream::connect(address).await.is_err() {
                if let Some(child) = &mut self.child
                    && let Some(status) = child.try_wait()?
                {
                    bail!("{} ended with {status}: {}", self.name, self.last_words());
                }
                ensure!(
                    began.elapsed() < PATIENCE,
                    "{} does not serve {address}: {}",
                    self.name,
                    self.last_words()
                );
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(began.elapsed())
    }

    /// Waits for its end; returns its exit code and how long that took.
    pub(crate) async fn ended(&mut self, patience: Duration) -> anyhow::Result<Option<i32>> {
        let began = Instant::now();
        let Some(child) = &mut self.child else { return Ok(None) };
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status.code());
            }
            ensure!(began.elapsed() < patience, "{} does not end", self.name);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// kill -9: no chance to write or to say anything.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().with_context(|| format!("cannot kill {}", self.name))?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))?;
        if self.ended(DRAIN).await.is_err() {
            self.kill()?;
            bail!("{} did not stop within {} s", self.name, DRAIN.as_secs());
        }
        Ok(())
    }

    /// Everything it has said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The end of what it said: why it is not there.
    fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Processor time that it has used, as Linux counts it: to 10 ms.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.as_ref()?.id())).ok()?;
        // proc(5): after the name in parentheses, the 12th and 13th field count ticks of 1/100 s in user and system mode.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 10))
    }

    /// Its resident memory in KiB, as Linux counts it.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; there is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
