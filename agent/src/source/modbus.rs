//! Devices on a Modbus line or network: asked again and again, one request at a time.
//!
//! Each device has its own turn and its own back-off, so one that is dead costs the others a timeout
//! now and then. A port that is missing or unplugged is tried again for ever.

mod bus;
mod config;
mod device;

use std::convert::Infallible;

use tokio::time::sleep;
use tracing::info;

use super::{
    outlet::{Outlet, Stopping},
    port::{FIRST_WAIT, LONGEST_WAIT, OpenError},
};
use crate::{backoff::Backoff, clock};
use bus::{Bus, Closed, Said};
pub use config::Config;
use device::Device;

/// Why a line gives nothing; each is a sentence for a device's status.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// Asks for ever.
pub async fn run(config: Config, mut outlet: Outlet) {
    let now = clock::monotonic();
    let mut devices: Vec<_> = config.devices.iter().map(|own| Device::new(own, now)).collect();
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    for device in &devices {
        if outlet.meet(&device.name).await.is_err() {
            return;
        }
    }
    loop {
        let Err(lost) = read(&config, &mut devices, &mut outlet, &mut backoff).await;
        match lost {
            Lost::Stopping(_) => return,
            // Many devices end a connection on which nothing is asked for a while.
            Lost::Closed(Closed::AfterAnswers(_)) => continue,
            Lost::Open(_)
            | Lost::Closed(Closed::Unused(_) | Closed::Foreign(_) | Closed::Unplugged) => {}
        }
        if outlet.offline(&lost.to_string()).await.is_err() {
            return;
        }
        sleep(backoff.wait()).await;
        let now = clock::monotonic();
        devices.iter_mut().for_each(|device| device.restart(now));
    }
}

async fn read(
    config: &Config,
    devices: &mut [Device],
    outlet: &mut Outlet,
    backoff: &mut Backoff,
) -> Result<Infallible, Lost> {
    let mut bus = Bus::open(config).await?;
    info!(source = %outlet.name, "opened");
    loop {
        // A configuration without a device is refused.
        let Some(device) = devices.iter_mut().min_by_key(|device| device.due) else {
            std::future::pending().await
        };
        bus.rest_until(device.due).await?;
        ask(device, &mut bus, outlet, backoff).await?;
    }
}

/// Asks a device for all that it has.
async fn ask(
    device: &mut Device,
    bus: &mut Bus,
    outlet: &mut Outlet,
    backoff: &mut Backoff,
) -> Result<(), Lost> {
    device.begin(clock::monotonic());
    while let Some(span) = device.next() {
        let said = bus.ask(device.unit, span, outlet).await?;
        match &said {
            Said::Words(_) => outlet.tally.good += 1,
            Said::Refused(_) => outlet.tally.foreign += 1,
            Said::Damage | Said::Noise => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("an answer of unit {}", device.unit));
            }
            Said::Silence => {}
        }
        if !matches!(said, Said::Silence) {
            backoff.reset();
        }
        let (now, samples) = (clock::now(), device.take(said));
        let readings = device.normalizer.readings(samples, now, &mut outlet.tally);
        outlet.send(now, readings).await?;
    }
    if let Some(reason) = device.finish(clock::monotonic()) {
        outlet.device_offline(&device.name, &reason).await?;
    }
    Ok(())
}
