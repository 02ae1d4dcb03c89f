//! What the labels mean (VE.Direct protocol, version 3.33, section "Text mode").

use valtronics_protocol::value::Value;

use crate::decode::{Context, Sample};

/// How a value is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// An integer; so many decimals are to be pointed off.
    Number(i32),
    /// `ON` or `OFF`.
    Switch,
    /// An integer, or one in hexadecimal (`0x0042`).
    Code,
    /// A word.
    Text,
    /// Minutes; -1 is "never".
    Minutes,
}

use Form::{Code, Minutes, Number, Switch, Text};

/// Label, metric, unit, and how it is written.
const LABELS: &[(&str, &str, &str, Form)] = &[
    ("V", "battery_voltage", "V", Number(3)),
    ("V2", "battery_voltage_2", "V", Number(3)),
    ("V3", "battery_voltage_3", "V", Number(3)),
    ("VS", "starter_voltage", "V", Number(3)),
    ("VM", "midpoint_voltage", "V", Number(3)),
    ("DM", "midpoint_deviation", "%", Number(1)),
    ("VPV", "panel_voltage", "V", Number(3)),
    ("PPV", "panel_power", "W", Number(0)),
    ("I", "battery_current", "A", Number(3)),
    ("I2", "battery_current_2", "A", Number(3)),
    ("I3", "battery_current_3", "A", Number(3)),
    ("IL", "load_current", "A", Number(3)),
    ("LOAD", "load", "", Switch),
    ("T", "battery_temperature", "°C", Number(0)),
    ("P", "battery_power", "W", Number(0)),
    ("CE", "consumed_charge", "Ah", Number(3)),
    ("SOC", "state_of_charge", "%", Number(1)),
    ("TTG", "time_to_go", "min", Minutes),
    ("Alarm", "alarm", "", Switch),
    ("Relay", "relay", "", Switch),
    ("AR", "alarm_reason", "", Code),
    ("OR", "off_reason", "", Code),
    ("H1", "deepest_discharge", "Ah", Number(3)),
    ("H2", "last_discharge", "Ah", Number(3)),
    ("H3", "average_discharge", "Ah", Number(3)),
    ("H4", "charge_cycles", "", Number(0)),
    ("H5", "full_discharges", "", Number(0)),
    ("H6", "total_charge_drawn", "Ah", Number(3)),
    ("H7", "battery_voltage_min", "V", Number(3)),
    ("H8", "battery_voltage_max", "V", Number(3)),
    ("H9", "time_since_full_charge", "s", Number(0)),
    ("H10", "automatic_synchronisations", "", Number(0)),
    ("H11", "low_voltage_alarms", "", Number(0)),
    ("H12", "high_voltage_alarms", "", Number(0)),
    ("H13", "low_starter_voltage_alarms", "", Number(0)),
    ("H14", "high_starter_voltage_alarms", "", Number(0)),
    ("H15", "starter_voltage_min", "V", Number(3)),
    ("H16", "starter_voltage_max", "V", Number(3)),
    ("H17", "energy_discharged", "kWh", Number(2)),
    ("H18", "energy_charged", "kWh", Number(2)),
    ("H19", "yield_total", "kWh", Number(2)),
    ("H20", "yield_today", "kWh", Number(2)),
    ("H21", "panel_power_max_today", "W", Number(0)),
    ("H22", "yield_yesterday", "kWh", Number(2)),
    ("H23", "panel_power_max_yesterday", "W", Number(0)),
    ("ERR", "error_code", "", Code),
    ("CS", "operation_state", "", Code),
    ("BMV", "model", "", Text),
    ("FW", "firmware", "", Text),
    ("FWE", "firmware", "", Text),
    ("PID", "product_id", "", Text),
    ("SER#", "serial_number", "", Text),
    ("HSDS", "day", "", Number(0)),
    ("MODE", "device_mode", "", Code),
    ("AC_OUT_V", "ac_output_voltage", "V", Number(2)),
    ("AC_OUT_I", "ac_output_current", "A", Number(1)),
    ("AC_OUT_S", "ac_output_apparent_power", "VA", Number(0)),
    ("WARN", "warning_reason", "", Code),
    ("MPPT", "tracker_mode", "", Code),
    ("MON", "monitor_mode", "", Code),
    ("DC_IN_V", "dc_input_voltage", "V", Number(2)),
    ("DC_IN_I", "dc_input_current", "A", Number(1)),
    ("DC_IN_P", "dc_input_power", "W", Number(0)),
];

/// Tells whether a label is known.
pub(super) fn is_known(label: &str) -> bool {
    LABELS.iter().any(|(known, ..)| *known == label)
}

/// Reads one line of a block; `---` and what is not understood is no value.
pub(super) fn read(label: &str, text: &str, context: &mut Context, out: &mut Vec<Sample>) {
    let known = LABELS.iter().find(|(known, ..)| *known == label);
    let (metric, unit, form) = match known {
        Some((_, metric, unit, form)) => (*metric, *unit, *form),
        // A label of a later product: its number as it stands.
        None => (label, "", Number(0)),
    };
    let number = || text.parse::<i64>().ok();
    let value = match form {
        Number(0) => number().map(Value::Int),
        Number(decimals) => {
            number().map(|number| Value::Float(number as f64 / 10_f64.powi(decimals)))
        }
        Minutes => number().filter(|minutes| *minutes >= 0).map(Value::Int),
        Switch => match text {
            "ON" | "On" => Some(Value::Bool(true)),
            "OFF" | "Off" => Some(Value::Bool(false)),
            _ => None,
        },
        Code => match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok().map(Value::Int),
            None => number().map(Value::Int),
        },
        Text => (!text.is_empty()).then(|| Value::Text(text.into())),
    };
    let Some(value) = value else { return };
    let metric = context.name(metric);
    let unit = (!unit.is_empty()).then(|| context.name(unit));
    out.push(context.sample(metric, value, unit));
}
