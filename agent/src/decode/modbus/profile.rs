//! The registers of common devices, by the name that a configuration gives as `profile`.
//!
//! Addresses, types and factors were compared with the register maps of the mbmd project, which has
//! them from the makers' documents (Eastron, ORNO). What is in kW there is W here, as it is where
//! the other meters say it. A device that lacks a register refuses it, and the register is left out.

use super::register::Register;

/// Returns the registers of a profile.
#[must_use]
pub fn registers(profile: &str) -> Option<Vec<Register>> {
    let (_, lines) = PROFILES.iter().find(|(name, _)| *name == profile)?;
    Some(lines.iter().filter_map(|line| line.parse().ok()).collect())
}

/// Returns the names of all profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROFILES.iter().map(|(name, _)| *name)
}

const PROFILES: [(&str, &[&str]); 8] = [
    ("sdm120", SDM120),
    ("sdm220", SDM220),
    ("sdm630", SDM630),
    ("sdm72", SDM72),
    ("sdm72v2", SDM72V2),
    ("orno-we-504", WE504),
    ("orno-we-516", WE516),
    ("orno-we-517", WE516),
];

/// Eastron SDM120, one phase.
const SDM120: &[&str] = &[
    "voltage V input 0x0000 f32",
    "current A input 0x0006 f32",
    "power W input 0x000c f32",
    "apparent_power VA input 0x0012 f32",
    "reactive_power var input 0x0018 f32",
    "power_factor input 0x001e f32",
    "frequency Hz input 0x0046 f32",
    "energy_import kWh input 0x0048 f32",
    "energy_export kWh input 0x004a f32",
    "reactive_energy_import kvarh input 0x004c f32",
    "reactive_energy_export kvarh input 0x004e f32",
    "energy kWh input 0x0156 f32",
    "reactive_energy kvarh input 0x0158 f32",
];

/// Eastron SDM220, one phase.
const SDM220: &[&str] = &[
    "voltage V input 0x0000 f32",
    "current A input 0x0006 f32",
    "power W input 0x000c f32",
    "apparent_power VA input 0x0012 f32",
    "reactive_power var input 0x0018 f32",
    "power_factor input 0x001e f32",
    "phase_angle ° input 0x0024 f32",
    "frequency Hz input 0x0046 f32",
    "energy_import kWh input 0x0048 f32",
    "energy_export kWh input 0x004a f32",
    "reactive_energy_import kvarh input 0x004c f32",
    "reactive_energy_export kvarh input 0x004e f32",
    "energy kWh input 0x0156 f32",
    "reactive_energy kvarh input 0x0158 f32",
];

/// Eastron SDM630, three phases.
const SDM630: &[&str] = &[
    "voltage_l1 V input 0x0000 f32",
    "voltage_l2 V input 0x0002 f32",
    "voltage_l3 V input 0x0004 f32",
    "current_l1 A input 0x0006 f32",
    "current_l2 A input 0x0008 f32",
    "current_l3 A input 0x000a f32",
    "power_l1 W input 0x000c f32",
    "power_l2 W input 0x000e f32",
    "power_l3 W input 0x0010 f32",
    "apparent_power_l1 VA input 0x0012 f32",
    "apparent_power_l2 VA input 0x0014 f32",
    "apparent_power_l3 VA input 0x0016 f32",
    "reactive_power_l1 var input 0x0018 f32",
    "reactive_power_l2 var input 0x001a f32",
    "reactive_power_l3 var input 0x001c f32",
    "power_factor_l1 input 0x001e f32",
    "power_factor_l2 input 0x0020 f32",
    "power_factor_l3 input 0x0022 f32",
    "power W input 0x0034 f32",
    "apparent_power VA input 0x0038 f32",
    "reactive_power var input 0x003c f32",
    "power_factor input 0x003e f32",
    "phase_angle ° input 0x0042 f32",
    "frequency Hz input 0x0046 f32",
    "energy_import kWh input 0x0048 f32",
    "energy_export kWh input 0x004a f32",
    "reactive_energy_import kvarh input 0x004c f32",
    "reactive_energy_export kvarh input 0x004e f32",
    "voltage_thd_l1 % input 0x00ea f32",
    "voltage_thd_l2 % input 0x00ec f32",
    "voltage_thd_l3 % input 0x00ee f32",
    "voltage_thd % input 0x00f8 f32",
    "energy kWh input 0x0156 f32",
    "reactive_energy kvarh input 0x0158 f32",
    "energy_import_l1 kWh input 0x015a f32",
    "energy_import_l2 kWh input 0x015c f32",
    "energy_import_l3 kWh input 0x015e f32",
    "energy_export_l1 kWh input 0x0160 f32",
    "energy_export_l2 kWh input 0x0162 f32",
    "energy_export_l3 kWh input 0x0164 f32",
    "energy_l1 kWh input 0x0166 f32",
    "energy_l2 kWh input 0x0168 f32",
    "energy_l3 kWh input 0x016a f32",
    "reactive_energy_import_l1 kvarh input 0x016c f32",
    "reactive_energy_import_l2 kvarh input 0x016e f32",
    "reactive_energy_import_l3 kvarh input 0x0170 f32",
    "reactive_energy_export_l1 kvarh input 0x0172 f32",
    "reactive_energy_export_l2 kvarh input 0x0174 f32",
    "reactive_energy_export_l3 kvarh input 0x0176 f32",
    "reactive_energy_l1 kvarh input 0x0178 f32",
    "reactive_energy_l2 kvarh input 0x017a f32",
    "reactive_energy_l3 kvarh input 0x017c f32",
];

/// Eastron SDM72D, three phases: the first version, which knows sums only.
const SDM72: &[&str] = &[
    "power W input 0x0034 f32",
    "energy_import kWh input 0x0048 f32",
    "energy_export kWh input 0x004a f32",
    "energy kWh input 0x0156 f32",
];

/// Eastron SDM72D-M-2, three phases.
const SDM72V2: &[&str] = &[
    "voltage_l1 V input 0x0000 f32",
    "voltage_l2 V input 0x0002 f32",
    "voltage_l3 V input 0x0004 f32",
    "current_l1 A input 0x0006 f32",
    "current_l2 A input 0x0008 f32",
    "current_l3 A input 0x000a f32",
    "power_l1 W input 0x000c f32",
    "power_l2 W input 0x000e f32",
    "power_l3 W input 0x0010 f32",
    "apparent_power_l1 VA input 0x0012 f32",
    "apparent_power_l2 VA input 0x0014 f32",
    "apparent_power_l3 VA input 0x0016 f32",
    "reactive_power_l1 var input 0x0018 f32",
    "reactive_power_l2 var input 0x001a f32",
    "reactive_power_l3 var input 0x001c f32",
    "power_factor_l1 input 0x001e f32",
    "power_factor_l2 input 0x0020 f32",
    "power_factor_l3 input 0x0022 f32",
    "power W input 0x0034 f32",
    "apparent_power VA input 0x0038 f32",
    "reactive_power var input 0x003c f32",
    "power_factor input 0x003e f32",
    "frequency Hz input 0x0046 f32",
    "energy_import kWh input 0x0048 f32",
    "energy_export kWh input 0x004a f32",
    "energy kWh input 0x0156 f32",
    "reactive_energy kvarh input 0x0158 f32",
];

/// ORNO OR-WE-504 and 505, one phase.
const WE504: &[&str] = &[
    "voltage V holding 0x0000 u16 /10",
    "current A holding 0x0001 u16 /10",
    "frequency Hz holding 0x0002 u16 /10",
    "power W holding 0x0003 u16",
    "reactive_power var holding 0x0004 u16",
    "apparent_power VA holding 0x0005 u16",
    "power_factor holding 0x0006 u16 /1000",
    "energy kWh holding 0x0007 u32 /1000",
    "reactive_energy kvarh holding 0x0009 u32 /1000",
];

/// ORNO OR-WE-516 and 517, three phases, with two of their four tariffs.
const WE516: &[&str] = &[
    "voltage_l1 V holding 0x000e f32",
    "voltage_l2 V holding 0x0010 f32",
    "voltage_l3 V holding 0x0012 f32",
    "frequency Hz holding 0x0014 f32",
    "current_l1 A holding 0x0016 f32",
    "current_l2 A holding 0x0018 f32",
    "current_l3 A holding 0x001a f32",
    "power W holding 0x001c f32 *1000",
    "power_l1 W holding 0x001e f32 *1000",
    "power_l2 W holding 0x0020 f32 *1000",
    "power_l3 W holding 0x0022 f32 *1000",
    "reactive_power var holding 0x0024 f32 *1000",
    "reactive_power_l1 var holding 0x0026 f32 *1000",
    "reactive_power_l2 var holding 0x0028 f32 *1000",
    "reactive_power_l3 var holding 0x002a f32 *1000",
    "apparent_power VA holding 0x002c f32 *1000",
    "apparent_power_l1 VA holding 0x002e f32 *1000",
    "apparent_power_l2 VA holding 0x0030 f32 *1000",
    "apparent_power_l3 VA holding 0x0032 f32 *1000",
    "power_factor holding 0x0034 f32",
    "power_factor_l1 holding 0x0036 f32",
    "power_factor_l2 holding 0x0038 f32",
    "power_factor_l3 holding 0x003a f32",
    "energy kWh holding 0x0100 f32",
    "energy_l1 kWh holding 0x0102 f32",
    "energy_l2 kWh holding 0x0104 f32",
    "energy_l3 kWh holding 0x0106 f32",
    "energy_import kWh holding 0x0108 f32",
    "energy_import_l1 kWh holding 0x010a f32",
    "energy_import_l2 kWh holding 0x010c f32",
    "energy_import_l3 kWh holding 0x010e f32",
    "energy_export kWh holding 0x0110 f32",
    "energy_export_l1 kWh holding 0x0112 f32",
    "energy_export_l2 kWh holding 0x0114 f32",
    "energy_export_l3 kWh holding 0x0116 f32",
    "reactive_energy kvarh holding 0x0118 f32",
    "reactive_energy_l1 kvarh holding 0x011a f32",
    "reactive_energy_l2 kvarh holding 0x011c f32",
    "reactive_energy_l3 kvarh holding 0x011e f32",
    "reactive_energy_import kvarh holding 0x0120 f32",
    "reactive_energy_import_l1 kvarh holding 0x0122 f32",
    "reactive_energy_import_l2 kvarh holding 0x0124 f32",
    "reactive_energy_import_l3 kvarh holding 0x0126 f32",
    "reactive_energy_export kvarh holding 0x0128 f32",
    "reactive_energy_export_l1 kvarh holding 0x012a f32",
    "reactive_energy_export_l2 kvarh holding 0x012c f32",
    "reactive_energy_export_l3 kvarh holding 0x012e f32",
    "energy_tariff_1 kWh holding 0x0130 f32",
    "energy_import_tariff_1 kWh holding 0x0132 f32",
    "energy_export_tariff_1 kWh holding 0x0134 f32",
    "reactive_energy_tariff_1 kvarh holding 0x0136 f32",
    "reactive_energy_import_tariff_1 kvarh holding 0x0138 f32",
    "reactive_energy_export_tariff_1 kvarh holding 0x013a f32",
    "energy_tariff_2 kWh holding 0x013c f32",
    "energy_import_tariff_2 kWh holding 0x013e f32",
    "energy_export_tariff_2 kWh holding 0x0140 f32",
    "reactive_energy_tariff_2 kvarh holding 0x0142 f32",
    "reactive_energy_import_tariff_2 kvarh holding 0x0144 f32",
    "reactive_energy_export_tariff_2 kvarh holding 0x0146 f32",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_is_a_register_with_a_name_of_its_own() {
        for (profile, lines) in PROFILES {
            let mut names = BTreeSet::new();
            for line in lines {
                let register: Register = line.parse().unwrap_or_else(|bad| panic!("{line}: {bad}"));
                assert!(names.insert(register.metric), "{profile}: {line}");
            }
            assert_eq!(registers(profile).unwrap().len(), lines.len());
        }
        assert_eq!(registers("sdm9"), None);
    }
}
