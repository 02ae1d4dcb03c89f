//! An edge node of Sparkplug B: payloads as `prost` writes them, and a client that sends them.

use prost::Message;
use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, QoS};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::world::within;

/// 2024-01-01T12:00:00Z.
pub(crate) const THEN: u64 = 1_704_110_400_000;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) seq: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) alias: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(crate) datatype: Option<u32>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) is_historical: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) is_null: Option<bool>,
    #[prost(message, optional, tag = "9")]
    pub(crate) properties: Option<PropertySet>,
    #[prost(oneof = "Value", tags = "10, 11, 12, 13, 14, 15, 16, 18")]
    pub(crate) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Value {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Bool(bool),
    #[prost(string, tag = "15")]
    Text(String),
    #[prost(bytes, tag = "16")]
    Bytes(Vec<u8>),
    #[prost(message, tag = "18")]
    Template(Template),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Template {
    #[prost(message, repeated, tag = "2")]
    pub(crate) metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PropertySet {
    #[prost(string, repeated, tag = "1")]
    pub(crate) keys: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) values: Vec<PropertyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PropertyValue {
    #[prost(uint32, optional, tag = "1")]
    pub(crate) datatype: Option<u32>,
    #[prost(bool, optional, tag = "2")]
    pub(crate) is_null: Option<bool>,
    #[prost(uint32, optional, tag = "3")]
    pub(crate) int: Option<u32>,
    #[prost(string, optional, tag = "8")]
    pub(crate) text: Option<String>,
}

/// Makes a metric of data that has an alias only.
pub(crate) fn by_alias(alias: u64, value: Value) -> Metric {
    Metric { alias: Some(alias), value: Some(value), ..Metric::default() }
}

/// Makes a metric that names itself.
pub(crate) fn named(name: &str, datatype: u32, value: Value) -> Metric {
    let (name, datatype) = (Some(name.into()), Some(datatype));
    Metric { name, datatype, value: Some(value), ..Metric::default() }
}

impl Metric {
    pub(crate) fn called(self, alias: u64) -> Self {
        Self { alias: Some(alias), ..self }
    }

    pub(crate) fn at(self, timestamp: u64) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// Adds a property.
    pub(crate) fn property(mut self, key: &str, value: PropertyValue) -> Self {
        let set = self.properties.get_or_insert_default();
        set.keys.push(key.into());
        set.values.push(value);
        self
    }

    pub(crate) fn unit(self, unit: &str) -> Self {
        self.property(
            "engUnit",
            PropertyValue { text: Some(unit.into()), ..PropertyValue::default() },
        )
    }
}

/// Writes a payload.
pub(crate) fn payload(seq: u64, metrics: impl Into<Vec<Metric>>) -> Vec<u8> {
    Payload { timestamp: Some(THEN), metrics: metrics.into(), seq: Some(seq) }.encode_to_vec()
}

/// Writes what pairs a birth with a death.
pub(crate) fn bd_seq(number: u64) -> Metric {
    named("bdSeq", 8, Value::Long(number))
}

/// A node of group "Plant 1" that is connected.
pub(crate) struct Edge {
    client: AsyncClient,
    commands: mpsc::Receiver<Payload>,
    polling: JoinSet<()>,
    name: &'static str,
    seq: u64,
}

impl Edge {
    /// Connects; the broker then tells of its death by itself.
    pub(crate) async fn connect(port: u16, name: &'static str, bd: u64) -> Self {
        let mut options = MqttOptions::new(format!("edge-{name}"), "127.0.0.1", port);
        let death = Payload { metrics: vec![bd_seq(bd)], ..Payload::default() }.encode_to_vec();
        let topic = format!("spBv1.0/Plant 1/NDEATH/{name}");
        options.set_last_will(LastWill::new(topic, death, QoS::AtLeastOnce, false));
        let (client, mut events) = AsyncClient::new(options, 100);
        client.subscribe(format!("spBv1.0/Plant 1/NCMD/{name}"), QoS::AtLeastOnce).await.unwrap();
        let (commanded, commands) = mpsc::channel(100);
        let (subscribed, is_subscribed) = oneshot::channel();
        let mut subscribed = Some(subscribed);
        let mut polling = JoinSet::new();
        polling.spawn(async move {
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => {
                        subscribed.take().map(|subscribed| subscribed.send(()));
                    }
                    Event::Incoming(Packet::Publish(command)) => {
                        let command = Payload::decode(&*command.payload).unwrap();
                        let _ = commanded.send(command).await;
                    }
                    _ => {}
                }
            }
        });
        within("the node is connected", is_subscribed).await.unwrap();
        Self { client, commands, polling, name, seq: 0 }
    }

    /// Sends its own birth.
    pub(crate) async fn birth(&mut self, bd: u64, metrics: impl Into<Vec<Metric>>) {
        self.seq = 0;
        let mut metrics = metrics.into();
        metrics.push(bd_seq(bd));
        self.send("NBIRTH", "", metrics).await;
    }

    /// Sends the next message; `device` is empty for its own.
    pub(crate) async fn send(&mut self, kind: &str, device: &str, metrics: impl Into<Vec<Metric>>) {
        let message = payload(self.seq, metrics);
        self.send_bytes(kind, device, message).await;
        self.seq = (self.seq + 1) % 256;
    }

    /// Sends these bytes.
    pub(crate) async fn send_bytes(&self, kind: &str, device: &str, message: Vec<u8>) {
        let end = if device.is_empty() { String::new() } else { format!("/{device}") };
        let topic = format!("spBv1.0/Plant 1/{kind}/{}{end}", self.name);
        self.client.publish(topic, QoS::AtLeastOnce, false, message).await.unwrap();
    }

    /// Loses a message on its way.
    pub(crate) fn lose_one(&mut self) {
        self.seq = (self.seq + 1) % 256;
    }

    /// Waits for a command, which is the one for births.
    pub(crate) async fn asked(&mut self) {
        let command = within("the node is asked", self.commands.recv()).await.unwrap();
        let expected = named("Node Control/Rebirth", 11, Value::Bool(true));
        assert_eq!(command.metrics, [expected]);
    }

    /// Tells whether no command has come that was not waited for.
    pub(crate) fn was_left_alone(&mut self) -> bool {
        self.commands.try_recv().is_err()
    }

    /// Breaks the connection.
    pub(crate) async fn die(mut self) {
        self.polling.shutdown().await;
    }
}
