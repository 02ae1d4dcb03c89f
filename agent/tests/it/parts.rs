//! The real parts around an agent: pseudo-terminals by socat, a broker by mosquitto.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::interval,
};

use crate::world::{World, within};

const CLIENT: &str = "these tests need mosquitto_pub: apt-get install mosquitto-clients";

/// A pair of pseudo-terminals: the agent reads one, the test writes the other.
pub(crate) struct Port {
    socat: Child,
    device: tokio::fs::File,
    pub(crate) path: PathBuf,
}

impl Port {
    /// Plugs a device in; its port is `tty` in the test's folder.
    pub(crate) async fn plug(world: &World) -> Self {
        let (path, far) = (world.path("tty"), world.path("device"));
        let end = |path: &PathBuf| format!("pty,raw,echo=0,link={}", path.display());
        let socat = Command::new("socat")
            .args([end(&path), end(&far)])
            .kill_on_drop(true)
            .spawn()
            .expect("these tests need socat: apt-get install socat");
        let opened = async {
            let mut again = interval(Duration::from_millis(10));
            loop {
                again.tick().await;
                let device = tokio::fs::File::options().write(true).open(&far).await;
                if let (Ok(device), true) = (device, path.exists()) {
                    return device;
                }
            }
        };
        let device = within("socat makes the ports", opened).await;
        Self { socat, device, path }
    }

    /// Sends what a device would.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.device.write_all(bytes.as_ref()).await.unwrap();
        self.device.flush().await.unwrap();
    }

    /// Pulls the cable.
    pub(crate) async fn unplug(mut self) {
        self.socat.start_kill().unwrap();
        self.socat.wait().await.unwrap();
        // A killed socat leaves its links; those of a real port go with it.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_file_name("device"));
    }
}

/// A broker without passwords.
pub(crate) struct Broker {
    mosquitto: Child,
    pub(crate) port: u16,
}

impl Broker {
    pub(crate) async fn start(world: &World) -> Self {
        // The broker cannot be asked for port 0, so a free one is looked up.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::start_at(world, free.port()).await
    }

    /// Starts one that keeps any number of messages, and sends them all at once.
    pub(crate) async fn start_unlimited(world: &World) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unlimited = "max_inflight_messages 0\nmax_queued_messages 0\n";
        Self::start_with(world, free.port(), unlimited).await
    }

    /// Comes back at the port that it had, with what it has kept.
    pub(crate) async fn start_at(world: &World, port: u16) -> Self {
        Self::start_with(world, port, "").await
    }

    pub(crate) async fn start_with(world: &World, port: u16, more: &str) -> Self {
        let config = format!(
            // Started by root it would become another user, who may not write here.
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n{more}\
             persistence_location {}/\n",
            world.path("").display()
        );
        let config = world.write("mosquitto.conf", config);
        let mosquitto = Command::new("mosquitto")
            .arg("-c")
            .arg(config)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("these tests need mosquitto: apt-get install mosquitto mosquitto-clients");
        let up = async {
            let mut again = interval(Duration::from_millis(10));
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                again.tick().await;
            }
        };
        within("mosquitto listens", up).await;
        Self { mosquitto, port }
    }

    /// Publishes one message.
    pub(crate) async fn publish(&self, topic: &str, payload: &[u8], more: &[&str]) {
        // An empty message is not read from standard input but asked for.
        let from = if payload.is_empty() { "-n" } else { "-s" };
        let mut client = self.client(topic).arg(from).args(more).spawn().expect(CLIENT);
        client.stdin.take().unwrap().write_all(payload).await.unwrap();
        let ended = within("the message is published", client.wait()).await;
        assert!(ended.unwrap().success());
    }

    /// Connects a device whose last will is a retained message; it is there when this returns.
    pub(crate) async fn connect_with_last_will(&self, topic: &str, will: &str) -> Child {
        let port = self.port.to_string();
        let mut device = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port, "-t", "$SYS/broker/version"])
            .args(["--will-topic", topic, "--will-payload", will, "--will-retain"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect(CLIENT);
        let mut output = BufReader::new(device.stdout.take().unwrap()).lines();
        within("the device is connected", output.next_line()).await.unwrap().unwrap();
        device
    }

    /// Publishes each line of a file.
    pub(crate) async fn publish_lines(&self, topic: &str, file: &Path) {
        let lines = std::fs::File::open(file).unwrap();
        let mut client = self.client(topic).arg("-l").stdin(lines).spawn().expect(CLIENT);
        assert!(within("the lines are published", client.wait()).await.unwrap().success());
    }

    fn client(&self, topic: &str) -> Command {
        let mut client = Command::new("mosquitto_pub");
        let port = self.port.to_string();
        client.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic]);
        client.stdin(Stdio::piped()).kill_on_drop(true);
        client
    }

    /// Ends the broker as its service would, so that it keeps its sessions.
    pub(crate) async fn stop(mut self) {
        let id = i32::try_from(self.mosquitto.id().unwrap()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        within("mosquitto ends", self.mosquitto.wait()).await.unwrap();
    }
}
