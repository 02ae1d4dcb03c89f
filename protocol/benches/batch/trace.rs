//! What sensors say, a `Vec` a second.

use std::sync::Arc;

use valtronics_protocol::{
    reading::{Reading, TimeSource},
    time::UnixMillis,
    value::Value,
};

/// Ten devices with five metrics each, in order and with some milliseconds of jitter. Synthetic.
pub(crate) fn sensors(seconds: i64) -> Vec<Vec<Reading>> {
    let mut noise = Noise(42);
    let mut devices: Vec<Device> = (1..=10).map(|n| Device::new(n, &mut noise)).collect();
    let second = |second| {
        devices.iter_mut().flat_map(|device| device.read(second * 1000, &mut noise)).collect()
    };
    (0..seconds).map(second).collect()
}

struct Device {
    name: Arc<str>,
    metrics: [(Arc<str>, Arc<str>); 5],
    phase: i64,
    state: [f64; 5],
}

impl Device {
    fn new(number: i64, noise: &mut Noise) -> Self {
        let metrics = [
            ("temperature", "°C"),
            ("humidity", "%"),
            ("energy", "Wh"),
            ("voltage", "V"),
            ("load", "%"),
        ];
        Self {
            name: format!("edge-{number:04}").into(),
            metrics: metrics.map(|(metric, unit)| (metric.into(), unit.into())),
            phase: (1000.0 * noise.uniform()) as i64,
            state: [22.0, 50.0, (1e7 * noise.uniform()).floor(), 230.0, 20.0],
        }
    }

    fn read(&mut self, at: i64, noise: &mut Noise) -> Vec<Reading> {
        let [temperature, humidity, energy, voltage, load] = &mut self.state;
        *temperature += 0.03 * noise.normal();
        *humidity += 0.08 * noise.normal();
        *energy += (3.0 * noise.uniform()).floor();
        *voltage = 230.0 + 0.6 * noise.normal();
        *load = (*load + 4.0 * noise.normal()).clamp(0.0, 100.0);
        let rounded = |number: f64, power: f64| Value::Float((number * power).round() / power);
        let values = [
            rounded(*temperature, 10.0),
            rounded(*humidity, 10.0),
            Value::Int(*energy as i64),
            rounded(*voltage, 100.0),
            rounded(*load, 100.0),
        ];
        let jitter = (3.0 * noise.normal()).round() as i64;
        let timestamp = UnixMillis(1_790_000_000_000 + at + self.phase + jitter);
        let reading = |((metric, unit), value): (&(Arc<str>, Arc<str>), Value)| Reading {
            device: Arc::clone(&self.name),
            metric: Arc::clone(metric),
            value,
            unit: Some(Arc::clone(unit)),
            timestamp,
            time_source: TimeSource::Receive,
        };
        self.metrics.iter().zip(values).map(reading).collect()
    }
}

/// Xorshift: the same numbers each time.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..6).map(|_| self.uniform()).sum::<f64>() - 3.0
    }
}

/// Five minutes of a Linux machine under load: processors, memory, counters. Recorded from `/proc`.
pub(crate) fn host() -> Vec<Vec<Reading>> {
    let mut lines = include_str!("host.csv").lines();
    let device: Arc<str> = "gateway".into();
    let columns = lines.next().unwrap().split(',').skip(1).map(|column| {
        let (metric, unit) = column.split_once(' ').unwrap_or((column, ""));
        (Arc::<str>::from(metric), (!unit.is_empty()).then(|| Arc::<str>::from(unit)))
    });
    let columns: Vec<_> = columns.collect();
    let second = |line: &str| {
        let (at, values) = line.split_once(',').unwrap();
        let timestamp = UnixMillis(at.parse().unwrap());
        let reading = |((metric, unit), value): (&(Arc<str>, Option<Arc<str>>), &str)| Reading {
            device: Arc::clone(&device),
            metric: Arc::clone(metric),
            value: Value::parse_number(value).unwrap(),
            unit: unit.clone(),
            timestamp,
            time_source: TimeSource::Device,
        };
        columns.iter().zip(values.split(',')).map(reading).collect()
    };
    lines.map(second).collect()
}
