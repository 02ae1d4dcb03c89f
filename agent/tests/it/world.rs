//! A folder with a configuration, and the program that runs on it.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long a fact may take to come true: far more than it takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a fact.
pub(crate) async fn within<T>(what: &str, fact: impl Future<Output = T>) -> T {
    timeout(DEADLINE, fact).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// The folder of one test.
pub(crate) struct World {
    dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "a-token\n").unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Writes the configuration of a gateway `gw` that sends to `server`.
    pub(crate) fn configure(&self, server: &str, sources: &str) -> PathBuf {
        self.configure_uplink(&format!("url = \"ws://{server}/uplink\""), sources)
    }

    /// The same, with these lines for the uplink.
    pub(crate) fn configure_uplink(&self, uplink: &str, sources: &str) -> PathBuf {
        let uplink = format!("[uplink]\ntoken_file = \"token\"\n{uplink}\n");
        let config = format!("name = \"gw\"\ndata_dir = \"data\"\n{uplink}{sources}");
        self.write("gw.toml", config)
    }

    /// Starts the agent on the configuration.
    pub(crate) fn run(&self) -> Agent {
        self.start(&["run", "--config", "gw.toml"])
    }

    /// Starts `try`, which prints readings.
    pub(crate) fn try_sources(&self) -> Agent {
        self.start(&["try", "--config", "gw.toml"])
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Agent {
        let log =
            std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap()).lines();
        Agent { child, printed }
    }

    /// Runs a command to its end.
    pub(crate) async fn ask(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feed = async {
            // A program that refuses its arguments reads nothing.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let (output, ()) =
            within("the command ends", async { tokio::join!(child.wait_with_output(), feed) })
                .await;
        output.unwrap()
    }

    /// What the agent has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until the agent has logged `text`.
    pub(crate) async fn logged(&self, text: &str) {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        within(text, async {
            while !self.log().contains(text) {
                again.tick().await;
            }
        })
        .await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_valtronics-agent")));
        command.args(arguments).current_dir(self.dir.path()).env_remove("RUST_LOG");
        command
    }
}

/// A running agent; it dies with its test.
pub(crate) struct Agent {
    child: Child,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// Returns the next reading that was printed.
    pub(crate) async fn reading(&mut self) -> Value {
        let line = within("a reading is printed", self.printed.next_line()).await;
        serde_json::from_str(&line.unwrap().expect("the agent has ended")).unwrap()
    }

    /// Reads what is printed until `metric` has `value`.
    pub(crate) async fn until(&mut self, metric: &str, value: impl Into<Value>) -> Value {
        let value = value.into();
        loop {
            let reading = self.reading().await;
            if reading["metric"] == metric && reading["value"] == value {
                return reading;
            }
        }
    }

    /// Reads what is printed until `metric` comes.
    pub(crate) async fn until_metric(&mut self, metric: &str) -> Value {
        loop {
            let reading = self.reading().await;
            if reading["metric"] == metric {
                return reading;
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id().expect("the agent runs")).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Asks the agent to stop, and returns its exit code.
    pub(crate) async fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Waits for the end, and returns the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        within("the agent ends", self.child.wait()).await.unwrap().code()
    }

    /// The most memory that the agent has ever had, in KiB.
    pub(crate) fn memory_peak(&self) -> u64 {
        let id = self.child.id().expect("the agent runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
