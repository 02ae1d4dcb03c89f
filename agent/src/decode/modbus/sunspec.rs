//! Devices that say themselves what they have: SunSpec, a chain of models in the holding registers.
//!
//! The chain begins with the letters `SunS` at one of three addresses; each model says its number and
//! its length, so that unknown ones are passed over. Read are inverters (101 to 103, 111 to 113),
//! their inputs (160) and meters (201 to 204, 211 to 214), as the models of the SunSpec Alliance
//! describe them.

use super::{Span, Table, register::Register};

/// Where the chain may begin.
const BASES: [u16; 3] = [40_000, 0, 50_000];
/// `SunS`.
const MARK: [u16; 2] = [0x5375, 0x6e53];
/// The end of the chain.
const END: u16 = 0xffff;
/// The most models: real chains have up to twenty, and one that never ends is none.
const MODELS: usize = 64;
/// The most modules of one model: an inverter has up to a few dozen inputs.
const MODULES: u16 = 64;
/// The words of a module in model 160, and those before the first.
const MODULE: (u16, u16) = (20, 10);

/// Looks for models.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// Which of the bases is tried.
    base: usize,
    /// Where the next model begins; none while there is no mark yet.
    next: Option<u16>,
    models: Vec<Model>,
}

/// A model of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Model {
    id: u16,
    /// Where it begins.
    first: u16,
    /// How many words follow its number and its length.
    length: u16,
}

/// How far the discovery has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It goes on.
    More,
    /// The registers that were found.
    Found(Vec<Register>),
    /// There is no chain.
    Nothing,
}

impl Discovery {
    /// Begins at the first address.
    #[must_use]
    pub fn new() -> Self {
        Self { base: 0, next: None, models: Vec::new() }
    }

    /// Returns what to ask next.
    #[must_use]
    pub fn ask(&self) -> Span {
        let base = BASES.get(self.base).copied().unwrap_or_default();
        Span { table: Table::Holding, first: self.next.unwrap_or(base), count: 2 }
    }

    /// Takes the answer; none where the device refused.
    pub fn take(&mut self, words: Option<&[u16]>) -> Step {
        let first = self.ask().first;
        match (self.next, words) {
            (None, Some(words)) if *words == MARK => self.next = first.checked_add(2),
            (None, Some(_) | None) => {
                self.base += 1;
                return if self.base < BASES.len() { Step::More } else { Step::Nothing };
            }
            (Some(_), Some([id, length])) if *id != END && self.models.len() < MODELS => {
                self.models.push(Model { id: *id, first, length: *length });
                self.next = first.checked_add(2).and_then(|first| first.checked_add(*length));
            }
            (Some(_), Some(_) | None) => self.next = None,
        }
        if self.next.is_some() { Step::More } else { Step::Found(self.registers()) }
    }

    /// Returns the numbers of the models, to be shown.
    pub fn models(&self) -> impl Iterator<Item = u16> {
        self.models.iter().map(|model| model.id)
    }

    fn registers(&self) -> Vec<Register> {
        let (mut inverters, mut meters, mut inputs) = (0, 0, 0);
        let mut registers = Vec::new();
        for Model { id, first, length } in &self.models {
            match id {
                101..=103 | 111..=113 => {
                    inverters += 1;
                    let points = if *id < 110 { INVERTER } else { INVERTER_FLOAT };
                    place(points, *first, *length, &prefix("", inverters), &mut registers);
                }
                201..=204 | 211..=214 => {
                    meters += 1;
                    let points = if *id < 210 { METER } else { METER_FLOAT };
                    place(points, *first, *length, &prefix("meter_", meters), &mut registers);
                }
                160 => {
                    let modules = length.saturating_add(2).saturating_sub(MODULE.1) / MODULE.0;
                    for module in 0..modules.min(MODULES) {
                        inputs += 1;
                        let points = MODULE_POINTS.iter().filter_map(|point| {
                            let address =
                                first.checked_add(MODULE.1)?.checked_add(module * MODULE.0)?;
                            let scale = point.scale.and_then(|at| first.checked_add(at));
                            point.register(&format!("input_{inputs}_"), address, scale)
                        });
                        registers.extend(points);
                    }
                }
                _ => {}
            }
        }
        registers
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self::new()
    }
}

/// Begins the names of a model's metrics: the first of its kind has no number.
fn prefix(kind: &str, number: u16) -> String {
    match (kind, number) {
        (_, 1) => kind.to_owned(),
        ("", _) => format!("inverter_{number}_"),
        _ => format!("{kind}{number}_"),
    }
}

fn place(points: &[Point], first: u16, length: u16, prefix: &str, out: &mut Vec<Register>) {
    // A device may end a model early.
    let is_there = |point: &&Point| point.offset < length.saturating_add(2);
    out.extend(points.iter().filter(is_there).filter_map(|point| {
        let scale = point.scale.and_then(|at| first.checked_add(at));
        point.register(prefix, first, scale)
    }));
}

/// A value of a model.
struct Point {
    metric: &'static str,
    unit: &'static str,
    /// Where it stands in its model, whose number stands at 0.
    offset: u16,
    /// The type, and what it says where there is no value.
    kind: &'static str,
    /// Where its scale factor stands.
    scale: Option<u16>,
}

impl Point {
    fn register(&self, prefix: &str, first: u16, scale: Option<u16>) -> Option<Register> {
        let Self { metric, unit, offset, kind, .. } = self;
        let address = first.checked_add(*offset)?;
        let line = format!("{prefix}{metric} {unit} holding {address} {kind}");
        let register: Register = line.parse().ok()?;
        Some(match scale {
            Some(scale) => register.scaled_at(scale),
            None => register,
        })
    }
}

const fn point(
    metric: &'static str,
    unit: &'static str,
    offset: u16,
    kind: &'static str,
    scale: u16,
) -> Point {
    Point { metric, unit, offset, kind, scale: Some(scale) }
}

const fn float(metric: &'static str, unit: &'static str, offset: u16) -> Point {
    Point { metric, unit, offset, kind: "f32", scale: None }
}

const U16: &str = "u16 absent 0xffff";
const I16: &str = "i16 absent 0x8000";
/// A counter that says 0 does not count.
const ACC32: &str = "u32 absent 0";

/// Models 101 to 103.
const INVERTER: &[Point] = &[
    point("current", "A", 2, U16, 6),
    point("current_l1", "A", 3, U16, 6),
    point("current_l2", "A", 4, U16, 6),
    point("current_l3", "A", 5, U16, 6),
    point("voltage_l1_l2", "V", 7, U16, 13),
    point("voltage_l2_l3", "V", 8, U16, 13),
    point("voltage_l3_l1", "V", 9, U16, 13),
    point("voltage_l1", "V", 10, U16, 13),
    point("voltage_l2", "V", 11, U16, 13),
    point("voltage_l3", "V", 12, U16, 13),
    point("power", "W", 14, I16, 15),
    point("frequency", "Hz", 16, U16, 17),
    point("apparent_power", "VA", 18, I16, 19),
    point("reactive_power", "var", 20, I16, 21),
    point("power_factor", "%", 22, I16, 23),
    point("energy", "Wh", 24, ACC32, 26),
    point("dc_current", "A", 27, U16, 28),
    point("dc_voltage", "V", 29, U16, 30),
    point("dc_power", "W", 31, I16, 32),
    point("temperature", "°C", 33, I16, 37),
    point("temperature_heat_sink", "°C", 34, I16, 37),
    point("temperature_transformer", "°C", 35, I16, 37),
    point("temperature_other", "°C", 36, I16, 37),
    Point { metric: "state", unit: "", offset: 38, kind: U16, scale: None },
];

/// Models 111 to 113.
const INVERTER_FLOAT: &[Point] = &[
    float("current", "A", 2),
    float("current_l1", "A", 4),
    float("current_l2", "A", 6),
    float("current_l3", "A", 8),
    float("voltage_l1_l2", "V", 10),
    float("voltage_l2_l3", "V", 12),
    float("voltage_l3_l1", "V", 14),
    float("voltage_l1", "V", 16),
    float("voltage_l2", "V", 18),
    float("voltage_l3", "V", 20),
    float("power", "W", 22),
    float("frequency", "Hz", 24),
    float("apparent_power", "VA", 26),
    float("reactive_power", "var", 28),
    float("power_factor", "%", 30),
    float("energy", "Wh", 32),
    float("dc_current", "A", 34),
    float("dc_voltage", "V", 36),
    float("dc_power", "W", 38),
    float("temperature", "°C", 40),
    float("temperature_heat_sink", "°C", 42),
    float("temperature_transformer", "°C", 44),
    float("temperature_other", "°C", 46),
    Point { metric: "state", unit: "", offset: 48, kind: U16, scale: None },
];

/// Models 201 to 204.
const METER: &[Point] = &[
    point("current", "A", 2, I16, 6),
    point("current_l1", "A", 3, I16, 6),
    point("current_l2", "A", 4, I16, 6),
    point("current_l3", "A", 5, I16, 6),
    point("voltage", "V", 7, I16, 15),
    point("voltage_l1", "V", 8, I16, 15),
    point("voltage_l2", "V", 9, I16, 15),
    point("voltage_l3", "V", 10, I16, 15),
    point("voltage_line_to_line", "V", 11, I16, 15),
    point("voltage_l1_l2", "V", 12, I16, 15),
    point("voltage_l2_l3", "V", 13, I16, 15),
    point("voltage_l3_l1", "V", 14, I16, 15),
    point("frequency", "Hz", 16, I16, 17),
    point("power", "W", 18, I16, 22),
    point("power_l1", "W", 19, I16, 22),
    point("power_l2", "W", 20, I16, 22),
    point("power_l3", "W", 21, I16, 22),
    point("apparent_power", "VA", 23, I16, 27),
    point("apparent_power_l1", "VA", 24, I16, 27),
    point("apparent_power_l2", "VA", 25, I16, 27),
    point("apparent_power_l3", "VA", 26, I16, 27),
    point("reactive_power", "var", 28, I16, 32),
    point("reactive_power_l1", "var", 29, I16, 32),
    point("reactive_power_l2", "var", 30, I16, 32),
    point("reactive_power_l3", "var", 31, I16, 32),
    point("power_factor", "%", 33, I16, 37),
    point("power_factor_l1", "%", 34, I16, 37),
    point("power_factor_l2", "%", 35, I16, 37),
    point("power_factor_l3", "%", 36, I16, 37),
    point("energy_export", "Wh", 38, ACC32, 54),
    point("energy_export_l1", "Wh", 40, ACC32, 54),
    point("energy_export_l2", "Wh", 42, ACC32, 54),
    point("energy_export_l3", "Wh", 44, ACC32, 54),
    point("energy_import", "Wh", 46, ACC32, 54),
    point("energy_import_l1", "Wh", 48, ACC32, 54),
    point("energy_import_l2", "Wh", 50, ACC32, 54),
    point("energy_import_l3", "Wh", 52, ACC32, 54),
];

/// Models 211 to 214.
const METER_FLOAT: &[Point] = &[
    float("current", "A", 2),
    float("current_l1", "A", 4),
    float("current_l2", "A", 6),
    float("current_l3", "A", 8),
    float("voltage", "V", 10),
    float("voltage_l1", "V", 12),
    float("voltage_l2", "V", 14),
    float("voltage_l3", "V", 16),
    float("voltage_line_to_line", "V", 18),
    float("voltage_l1_l2", "V", 20),
    float("voltage_l2_l3", "V", 22),
    float("voltage_l3_l1", "V", 24),
    float("frequency", "Hz", 26),
    float("power", "W", 28),
    float("power_l1", "W", 30),
    float("power_l2", "W", 32),
    float("power_l3", "W", 34),
    float("apparent_power", "VA", 36),
    float("apparent_power_l1", "VA", 38),
    float("apparent_power_l2", "VA", 40),
    float("apparent_power_l3", "VA", 42),
    float("reactive_power", "var", 44),
    float("reactive_power_l1", "var", 46),
    float("reactive_power_l2", "var", 48),
    float("reactive_power_l3", "var", 50),
    float("power_factor", "%", 52),
    float("power_factor_l1", "%", 54),
    float("power_factor_l2", "%", 56),
    float("power_factor_l3", "%", 58),
    float("energy_export", "Wh", 60),
    float("energy_export_l1", "Wh", 62),
    float("energy_export_l2", "Wh", 64),
    float("energy_export_l3", "Wh", 66),
    float("energy_import", "Wh", 68),
    float("energy_import_l1", "Wh", 70),
    float("energy_import_l2", "Wh", 72),
    float("energy_import_l3", "Wh", 74),
];

/// A module of model 160; its scale factors stand before the first.
const MODULE_POINTS: &[Point] = &[
    point("current", "A", 9, U16, 2),
    point("voltage", "V", 10, U16, 3),
    point("power", "W", 11, U16, 4),
    point("energy", "Wh", 12, ACC32, 5),
    Point { metric: "temperature", unit: "°C", offset: 16, kind: I16, scale: None },
];

#[cfg(test)]
mod tests;
