//! Serial ports: real pseudo-terminals that come and go, and bytes that are no lines.

use tokio::{io::AsyncWriteExt, net::TcpListener};
use valtronics_protocol::{event::Status, value::Value};

use crate::{
    parts::Port,
    server::Server,
    world::{World, within},
};

const SERIAL: &str = "[[serial]]\nport = \"tty\"\nname = \"greenhouse\"\nformat = \"json\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_unplugged_port_is_reported_and_opened_again() {
    let (world, server) = (World::new(), Server::start().await);
    world.configure(&server.address, SERIAL);
    let mut port = Port::plug(&world).await;
    let agent = world.run();
    let mut session = server.welcome(None).await;
    port.send("{\"temp\":21.5}\n").await;
    let (seq, reading) = session.numbered(1).await.remove(0);
    assert_eq!((seq, &*reading.device, &*reading.metric), (1, "greenhouse", "temp"));
    assert_eq!(reading.value, Value::Float(21.5));

    port.send("{\"temp\":22").await;
    port.unplug().await;
    let event = session.status().await;
    assert_eq!((event.device.as_str(), event.status), ("greenhouse", Status::Offline));
    assert_eq!(event.reason, "Serial port unplugged");
    assert!(session.status().await.reason.starts_with("Serial port not found: "));

    let mut port = Port::plug(&world).await;
    let sent_until_read = async {
        // What is sent before the agent has opened the port again is nobody's.
        let mut again = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tokio::select! {
                _ = again.tick() => port.send(".9}\n{\"temp\":23.5}\n").await,
                found = session.numbered(1) => return found,
            }
        }
    };
    let (_, reading) = within("the port is opened again", sent_until_read).await.remove(0);
    // Half a line from before the break does not complete one from after it.
    assert_eq!(reading.value, Value::Float(23.5));
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_port_is_waited_for() {
    let (world, server) = (World::new(), Server::start().await);
    world.configure(&server.address, SERIAL);
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    let event = session.status().await;
    assert_eq!(event.device, "greenhouse");
    assert!(event.reason.starts_with("Serial port not found: "), "{}", event.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_stop_nothing() {
    let world = World::new();
    world.configure("127.0.0.1:1", SERIAL);
    let mut port = Port::plug(&world).await;
    let mut agent = world.try_sources();
    let damaged: [&[u8]; 7] = [
        b"boot v1.2\n",
        b"\xff\xfe{\"temp\":1}\n",
        b"{\"temp\":NaN}\n",
        b"{\"temp\":null,\"hum\":\"\"}\n",
        b"\0\0\0\n",
        b"{\"temp\":\n",
        b"\n\r\n\r\r\n",
    ];
    // The first line after opening may be torn, so one goes ahead.
    port.send("{\"temp\":1.5}\n{\"temp\":2.5}\n").await;
    agent.until("temp", 2.5).await;
    for bytes in damaged {
        port.send(bytes).await;
    }
    port.send("{\"temp\":3.5}\n").await;
    let reading = agent.reading().await;
    assert_eq!(reading["value"], 3.5);
    assert_eq!(reading["time_source"], "receive");
    assert_eq!(agent.stop().await, Some(0));
    let log = world.log();
    let complaints = log.matches("damaged input").count();
    assert_eq!(complaints, 1, "once a minute: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_without_an_end_take_no_memory() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{address}\"\nname = \"a\"\nformat = \"kv\"\n");
    world.configure("127.0.0.1:1", &serial);
    let mut agent = world.try_sources();
    let (mut stream, _) = within("the agent connects", listener.accept()).await.unwrap();
    stream.write_all(b"t=1\nt=2\n").await.unwrap();
    agent.until("t", 2).await;
    let before = agent.memory_peak();
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..160 {
        stream.write_all(&piece).await.unwrap();
    }
    stream.write_all(b"\nt=3\n").await.unwrap();
    assert_eq!(agent.reading().await["value"], 3);
    let grown = agent.memory_peak() - before;
    assert!(grown < 2 * 1024, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_again() {
    let (world, server) = (World::new(), Server::start().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{address}\"\nname = \"a\"\nformat = \"kv\"\n");
    world.configure(&server.address, &serial);
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    for value in [1, 2] {
        let (mut stream, _) = within("the agent connects", listener.accept()).await.unwrap();
        stream.write_all(format!("t=0\nt={value}\n").as_bytes()).await.unwrap();
        drop(stream);
        // The end is told after what came before it.
        while session.numbered(1).await.iter().all(|(_, found)| found.value != Value::Int(value)) {}
        assert_eq!(session.status().await.reason, format!("Connection closed by {address}"));
    }
}
