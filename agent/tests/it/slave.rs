//! Modbus devices of the tests: they answer what they are told to, on a terminal or the network.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    process::{Child, Command},
    task::JoinSet,
    time::{interval, sleep},
};

use crate::world::{World, within};

/// How frames are marked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Rtu,
    Tcp,
}

/// A request that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) unit: u8,
    pub(crate) function: u8,
    pub(crate) first: u16,
    pub(crate) count: u16,
}

impl Asked {
    /// Tells whether it asks for this item.
    pub(crate) fn holds(&self, address: u16) -> bool {
        (self.first..self.first + self.count).contains(&address)
    }
}

/// What a device does.
pub(crate) enum Reply {
    /// The words that were asked for; only the first `count` are sent.
    Words(Vec<u16>),
    /// The same, so long after the request.
    Late(Duration, Vec<u16>),
    Exception(u8),
    Silence,
    /// The words, with a wrong checksum.
    Damaged(Vec<u16>),
    /// These bytes: unit, function and content, which get a checksum or a header.
    Content(Vec<u8>),
    /// The words, and then the connection ends.
    Last(Vec<u16>),
}

type Answer = Arc<Mutex<dyn FnMut(Asked) -> Reply + Send>>;

/// Devices at one address of the network.
pub(crate) struct Slave {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

impl Slave {
    pub(crate) async fn start(
        framing: Framing,
        answer: impl FnMut(Asked) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, answer) = (Arc::default(), Arc::new(Mutex::new(answer)));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, framing, Arc::clone(&asked), answer));
        Self { address, asked, _serving: serving }
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Forgets it.
    pub(crate) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

async fn serve(
    listener: TcpListener,
    framing: Framing,
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Answer,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(converse(stream, framing, Arc::clone(&asked), Arc::clone(&answer)));
    }
}

async fn converse(
    stream: TcpStream,
    framing: Framing,
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Answer,
) {
    let (mut reading, writing) = stream.into_split();
    let writing = Arc::new(tokio::sync::Mutex::new(writing));
    let mut late = JoinSet::new();
    let mut header = [0; 6];
    loop {
        if framing == Framing::Tcp && reading.read_exact(&mut header).await.is_err() {
            return;
        }
        let mut content = [0; 6];
        if reading.read_exact(&mut content).await.is_err() {
            return;
        }
        if framing == Framing::Rtu {
            let checksum = reading.read_u16_le().await.unwrap();
            assert_eq!(checksum, crc(&content), "a request has a good checksum");
        }
        let [unit, function, a, b, c, d] = content;
        let (first, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let request = Asked { unit, function, first, count };
        asked.lock().unwrap().push(request);
        let reply = (answer.lock().unwrap())(request);
        let marked = |content: &[u8]| mark(framing, &header, content);
        let words = |words: &[u16]| marked(&words_content(request, words));
        let (wait, bytes) = match &reply {
            Reply::Silence => continue,
            Reply::Words(given) | Reply::Last(given) => (Duration::ZERO, words(given)),
            Reply::Late(wait, given) => (*wait, words(given)),
            Reply::Exception(code) => (Duration::ZERO, marked(&[unit, function | 0x80, *code])),
            Reply::Content(content) => (Duration::ZERO, marked(content)),
            Reply::Damaged(given) => {
                let mut bytes = words(given);
                *bytes.last_mut().unwrap() ^= 1;
                (Duration::ZERO, bytes)
            }
        };
        if wait.is_zero() {
            send(&writing, bytes).await;
        } else {
            let writing = Arc::clone(&writing);
            late.spawn(async move {
                sleep(wait).await;
                send(&writing, bytes).await;
            });
        }
        if matches!(reply, Reply::Last(_)) {
            return;
        }
    }
}

async fn send(writing: &tokio::sync::Mutex<OwnedWriteHalf>, bytes: Vec<u8>) {
    // An agent that has closed the connection needs no answer.
    let _ = writing.lock().await.write_all(&bytes).await;
}

fn words_content(request: Asked, words: &[u16]) -> Vec<u8> {
    let Asked { unit, function, count, .. } = request;
    let items: Vec<u8> = if function <= 2 {
        let bits: Vec<u16> = words.iter().copied().take(count.into()).collect();
        bits.chunks(8)
            .map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | *bit as u8))
            .collect()
    } else {
        words.iter().take(count.into()).flat_map(|word| word.to_be_bytes()).collect()
    };
    [vec![unit, function, items.len() as u8], items].concat()
}

fn mark(framing: Framing, request: &[u8; 6], content: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Rtu => [content, &crc(content).to_le_bytes()].concat(),
        Framing::Tcp => [&request[..5], &[content.len() as u8], content].concat(),
    }
}

/// The checksum of RTU, bit by bit as the standard describes it.
pub(crate) fn crc(bytes: &[u8]) -> u16 {
    let mut register = 0xffff_u16;
    for byte in bytes {
        register ^= u16::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register >>= 1;
            if carry == 1 {
                register ^= 0xa001;
            }
        }
    }
    register
}

/// A serial port of this world, `tty`, with a slave at its other end.
pub(crate) struct Cable(Child);

impl Cable {
    pub(crate) async fn plug(world: &World, slave: &Slave) -> Self {
        let tty = world.path("tty");
        let socat = Command::new("socat")
            .arg(format!("pty,raw,echo=0,link={}", tty.display()))
            .arg(format!("tcp:{}", slave.address))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("these tests need socat: apt-get install socat");
        let mut again = interval(Duration::from_millis(10));
        within("socat makes the port", async {
            while !tty.exists() {
                again.tick().await;
            }
        })
        .await;
        Self(socat)
    }

    /// Pulls it.
    pub(crate) async fn unplug(mut self, world: &World) {
        self.0.start_kill().unwrap();
        within("socat ends", self.0.wait()).await.unwrap();
        let _ = std::fs::remove_file::<&Path>(&world.path("tty"));
    }
}
