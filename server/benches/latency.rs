//! From a byte on a serial line to the message in a subscriber's hands.
//!
//! The real programs, optimised, on this machine: a pseudo-terminal, the agent, the uplink over
//! loopback, the server, a WebSocket. A line is written, and the clock stops when the update that
//! holds its value has been read. Two paces: lines apart, each of which goes at once, and lines
//! faster than the agent's flush interval of 100 ms, which wait for each other.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// A program that ends with the benchmark.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone already when it has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let server = Path::new(env!("CARGO_BIN_EXE_valtronics-server"));
    let agent = build_agent(server);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut line, tty) = terminal();
    let (_server, address) = start_server(server, dir.path());
    let token = |sub: &str, scope: &str| {
        let mut command = Command::new(server);
        command.args(["token", "--sub", sub, "--scope", scope, "--data"]).arg(dir.path());
        String::from_utf8(command.output().expect("it signs").stdout).expect("a token is text")
    };
    std::fs::write(dir.path().join("token"), token("bench", "uplink")).expect("there is room");
    let config = format!(
        "name = \"bench\"\ndata_dir = \".\"\n[uplink]\nurl = \"ws://{address}/uplink\"\n\
         token_file = \"token\"\n[[serial]]\nport = \"{tty}\"\nname = \"bench\"\nformat = \"json\"\n"
    );
    std::fs::write(dir.path().join("agent.toml"), config).expect("there is room");
    let _agent = Program(
        Command::new(agent)
            .arg("--config")
            .arg(dir.path().join("agent.toml"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent starts"),
    );
    let mut socket = subscribe(&address, token("reader", "telemetry:read").trim());
    // The first reading also brings names into being.
    measure(&mut line, &mut socket, 10, Duration::from_millis(150));
    report("lines 150 ms apart", measure(&mut line, &mut socket, 200, Duration::from_millis(150)));
    report("lines 10 ms apart", measure(&mut line, &mut socket, 1000, Duration::from_millis(10)));
}

/// Builds the agent as the server was built, beside it.
fn build_agent(server: &Path) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "valtronics-agent", "--target-dir"])
        .arg(server.ancestors().nth(2).expect("target/release/program"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the agent builds");
    server.with_file_name("valtronics-agent")
}

fn terminal() -> (File, String) {
    let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
    grantpt(&line).and_then(|()| unlockpt(&line)).expect("it is ours");
    let mut settings = tcgetattr(&line).expect("it is a terminal");
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings).expect("it is a terminal");
    let name = ptsname(&line, Vec::new()).expect("it has a name");
    (File::from(line), name.into_string().expect("names of terminals are text"))
}

fn start_server(program: &Path, dir: &Path) -> (Program, String) {
    let mut server = Command::new(program)
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(dir)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut lines = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let address = lines.find_map(|line| {
        let said: Json = serde_json::from_str(&line.ok()?).ok()?;
        said.get("address")?.as_str().map(str::to_owned)
    });
    (Program(server), address.expect("it says where it listens"))
}

fn subscribe(address: &str, token: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).expect("it listens");
    let (mut socket, _) = client(format!("ws://{address}/ws"), stream).expect("it upgrades");
    for message in [
        json!({"type": "auth", "token": token}),
        json!({"type": "subscribe", "channel": "telemetry"}),
    ] {
        socket.send(Message::text(message.to_string())).expect("it listens");
        let answer = next(&mut socket);
        assert_eq!(answer.get("success"), Some(&Json::Bool(true)), "{answer}");
    }
    socket
}

fn next(socket: &mut WebSocket<TcpStream>) -> Json {
    loop {
        if let Message::Text(text) = socket.read().expect("the connection lasts") {
            return serde_json::from_str(&text).expect("messages are JSON");
        }
    }
}

/// Writes lines at a pace and returns how long each took, sorted.
fn measure(
    line: &mut File,
    socket: &mut WebSocket<TcpStream>,
    count: u64,
    pace: Duration,
) -> Vec<Duration> {
    let mut writer = line.try_clone().expect("there are descriptors");
    let begin = now() + pace;
    let write = move || {
        for n in 0..count {
            let due = begin + pace * u32::try_from(n).unwrap_or(u32::MAX);
            pause(due.saturating_duration_since(now()));
            writeln!(writer, "{{\"n\":{n},\"temp\":21.5,\"hum\":48.2}}").expect("somebody reads");
        }
    };
    let writing = std::thread::spawn(write);
    let mut took = Vec::new();
    while (took.len() as u64) < count {
        let update = next(socket);
        let n = update.pointer("/telemetry/n/value").and_then(Json::as_u64);
        if let Some(n) = n.filter(|n| *n == took.len() as u64) {
            let due = begin + pace * u32::try_from(n).unwrap_or(u32::MAX);
            took.push(now().saturating_duration_since(due));
        }
    }
    writing.join().expect("writing does not fail");
    took.sort();
    took
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the writer has a thread of its own")]
fn pause(period: Duration) {
    std::thread::sleep(period);
}

fn report(what: &str, took: Vec<Duration>) {
    let at = |part: usize| {
        let index = (took.len() * part / 100).min(took.len() - 1);
        took.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    println!("{what:<20} median {:.2} ms   p99 {:.2} ms", at(50), at(99));
}
