//! The language of these tests: a server of their own, agents and subscribers.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

mod client;

pub(crate) use client::Client;

/// How long anything may take: far more than it does, so that only what is broken fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server, which ends with the test.
pub(crate) struct Server {
    child: Child,
    /// Reads what the server says, so that it never waits for us.
    _log: JoinSet<()>,
    /// What it has said so far.
    pub said: watch::Receiver<Vec<Json>>,
    /// Host and port.
    pub address: String,
    dir: tempfile::TempDir,
    config: String,
}

impl Server {
    /// Starts a server on an empty data directory.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// Starts a server with these lines of configuration.
    pub(crate) async fn with(config: &str) -> Self {
        Self::with_files(config, &[]).await
    }

    /// Starts a server whose data directory is a disk of so many MiB, where that may be made.
    pub(crate) async fn on_a_small_disk(mebibytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // Tokens are signed out here, where the disk in there is not seen.
        std::fs::write(data.join("secret"), "0123456789abcdef0123456789abcdef").unwrap();
        let data = data.display();
        let mount = format!(
            "secret=$(cat {data}/secret) && \
             mount -t tmpfs -o size={mebibytes}m,mode=700 none {data} && \
             (umask 077 && printf %s \"$secret\" > {data}/secret)"
        );
        let mut trial = Command::new("unshare");
        trial.args(["--mount", "sh", "-c", &mount]).stderr(Stdio::null());
        if !trial.status().await.is_ok_and(|status| status.success()) {
            return None;
        }
        let (child, _log, said, address) =
            spawn_after(&["unshare", "--mount", "sh"], &mount, dir.path(), "").await;
        Some(Self { child, _log, said, address, dir, config: String::new() })
    }

    /// A file of the data directory as the server sees it.
    pub(crate) fn inner_path(&self, name: &str) -> std::path::PathBuf {
        let data = self.dir.path().join("data").join(name);
        let root = format!("/proc/{}/root", self.child.id().unwrap());
        Path::new(&root).join(data.strip_prefix("/").unwrap())
    }

    /// The same, with these files beside its configuration.
    pub(crate) async fn with_files(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let (child, _log, said, address) = spawn(dir.path(), config).await;
        Self { child, _log, said, address, dir, config: config.to_owned() }
    }

    /// Waits until the server has said this so many times; returns all that it said.
    pub(crate) async fn has_said(&mut self, text: &str, times: usize) -> String {
        let lines = |said: &Vec<Json>| said.iter().map(Json::to_string).collect::<String>();
        let enough = |said: &Vec<Json>| lines(said).matches(text).count() >= times;
        let said = timeout(DEADLINE, self.said.wait_for(enough)).await;
        lines(&said.unwrap_or_else(|_| panic!("the server says {text}")).unwrap())
    }

    /// Kills the server as a power cut would, and starts it again on the same data.
    pub(crate) async fn crash_and_restart(&mut self) {
        self.child.kill().await.unwrap();
        (self.child, self._log, self.said, self.address) =
            spawn(self.dir.path(), &self.config).await;
    }

    /// Stops the server, which writes down what it knows, and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        assert_eq!(self.stop().await, Some(0));
        (self.child, self._log, self.said, self.address) =
            spawn(self.dir.path(), &self.config).await;
    }

    /// Asks the server to stop; returns its exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
        let ended = timeout(DEADLINE, self.child.wait()).await;
        ended.expect("the server stops").unwrap().code()
    }

    /// Changes the configuration and has it read again.
    pub(crate) async fn reload(&self, config: &str) {
        write_config(self.dir.path(), config);
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().await.unwrap().success());
    }

    /// The folder of the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Signs a token.
    pub(crate) async fn token(
        &self,
        sub: &str,
        scope: Option<&str>,
        devices: Option<&str>,
    ) -> String {
        let scope = scope.into_iter().flat_map(|scope| ["--scope", scope]);
        let devices = devices.into_iter().flat_map(|devices| ["--devices", devices]);
        self.token_with(sub, scope.chain(devices)).await
    }

    /// Signs a token with these arguments.
    pub(crate) async fn token_with(
        &self,
        sub: &str,
        arguments: impl IntoIterator<Item = &str>,
    ) -> String {
        let mut command = Command::new(PROGRAM);
        command.args(["token", "--sub", sub, "--data"]).arg(self.dir.path().join("data"));
        let output = command.args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Connects to a path.
    pub(crate) async fn connect(&self, path: &str) -> Client {
        self.connect_over(path, TcpStream::connect(&self.address).await.unwrap()).await
    }

    /// The same over a stream of one's own.
    pub(crate) async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        path: &str,
        stream: S,
    ) -> Client<S> {
        let request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        let (socket, _) = client_async(request, stream).await.expect("the handshake succeeds");
        Client::over(socket)
    }

    /// Connects a subscriber who may do everything but send.
    pub(crate) async fn subscriber(&self) -> Client {
        let mut client = self.connect("/ws").await;
        client.authenticate(&self.token("ops", Some("admin"), None).await).await;
        client
    }

    /// Connects an agent that speaks JSON.
    pub(crate) async fn agent(&self, sub: &str, queue: Option<&str>) -> Client {
        let mut client = self.connect("/uplink").await;
        let token = self.token(sub, Some("uplink"), None).await;
        client.send(json!({"type": "auth", "token": token, "queue": queue})).await;
        let answer = client.next().await;
        assert_eq!(answer["success"], true, "{answer}");
        client
    }

    /// Sends a request; returns the status and the body.
    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> (u16, String) {
        let headers =
            format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        self.raw(method, path, &headers, body).await
    }

    /// The same with these headers.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String) {
        let (head, body) = self.exchange(method, path, headers, body).await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// The same; returns the answer's head and body.
    pub(crate) async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: impl AsRef<[u8]>,
    ) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let body = body.as_ref();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        stream.write_all(&[request.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        let head_end = loop {
            let mut piece = [0; 4096];
            let count = timeout(DEADLINE, stream.read(&mut piece)).await.unwrap().unwrap();
            answer.extend_from_slice(&piece[..count]);
            let found = answer.windows(4).position(|window| window == b"\r\n\r\n");
            assert!(count > 0 || found.is_some(), "the server answers {request}");
            if let Some(at) = found {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&answer[..head_end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let length: usize = length.unwrap_or(0);
        while answer.len() < head_end + length {
            let mut piece = [0; 4096];
            let count = timeout(DEADLINE, stream.read(&mut piece)).await.unwrap().unwrap();
            assert!(count > 0);
            answer.extend_from_slice(&piece[..count]);
        }
        (head, String::from_utf8(answer.split_off(head_end)).unwrap())
    }
}

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_valtronics-server");

fn write_config(dir: &Path, config: &str) {
    let text = format!("listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n{config}\n");
    std::fs::write(dir.join("server.toml"), text).unwrap();
}

/// Starts the program, and waits until it says on which port it listens.
async fn spawn(
    dir: &Path,
    config: &str,
) -> (Child, JoinSet<()>, watch::Receiver<Vec<Json>>, String) {
    spawn_after(&["sh"], "true", dir, config).await
}

/// The same, in a shell that does something first.
async fn spawn_after(
    shell: &[&str],
    first: &str,
    dir: &Path,
    config: &str,
) -> (Child, JoinSet<()>, watch::Receiver<Vec<Json>>, String) {
    write_config(dir, config);
    // So few descriptors are not enough for a server: it asks for more itself.
    let script = format!("{first} && ulimit -S -n 256 && exec \"$0\" \"$@\"");
    let mut child = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &script, PROGRAM])
        .arg("--config")
        .arg(dir.join("server.toml"))
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    let address = timeout(DEADLINE, async {
        loop {
            let line = lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("the server ended: {seen}"));
            let said: Json = serde_json::from_str(&line).unwrap_or_default();
            if said["message"] == "listening" {
                break said["address"].as_str().unwrap().to_owned();
            }
            seen.push_str(&line);
        }
    });
    let address = address.await.expect("the server listens");
    let (mut log, (say, said)) = (JoinSet::new(), watch::channel(Vec::new()));
    log.spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            say.send_modify(|said| said.push(serde_json::from_str(&line).unwrap_or(line.into())));
        }
    });
    (child, log, said, address)
}

/// Sends a byte now and then, the last one for ever, until the server has had enough.
pub(crate) async fn drip(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let last = bytes.last().unwrap();
    let sending = async {
        for byte in bytes.iter().chain(std::iter::repeat(last)) {
            if write.write_all(&[*byte]).await.and(write.flush().await).is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async { while let Ok(1..) = read.read(&mut [0; 256]).await {} };
    let ended = timeout(DEADLINE, async {
        tokio::select! { () = ended => {}, () = sending => {} }
    });
    ended.await.expect("the server ends what never ends");
}

impl Server {
    /// Connects with a request that is already made.
    pub(crate) async fn connect_with(
        &self,
        request: tokio_tungstenite::tungstenite::handshake::client::Request,
    ) -> Client {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (socket, _) = client_async(request, stream).await.expect("the handshake succeeds");
        Client::over(socket)
    }

    /// How much memory the server takes (`VmRSS`).
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Connects a subscriber for whom the kernel holds little.
    pub(crate) async fn narrow_subscriber(&self) -> Client {
        let request = format!("ws://{}/ws", self.address).into_client_request().unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let stream = socket.connect(self.address.parse().unwrap()).await.unwrap();
        let (socket, _) = client_async(request, stream).await.expect("the handshake succeeds");
        let mut client = Client::over(socket);
        client.authenticate(&self.token("slow", Some("admin"), None).await).await;
        client
    }
}
