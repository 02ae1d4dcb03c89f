//! A look at what is announced, before a session is resumed.
//!
//! A broker sends what it has kept for a session at once, and announcements only when they are
//! subscribed to: what devices said meanwhile would come before it is known what it means. So the
//! announcements are read first, on a connection that leaves nothing behind. Whatever is wrong
//! with it shows on the real connection, too.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, Packet, QoS, SubscribeFilter};
use tokio::time::timeout_at;

use super::{Broker, Lost, QUIET, options};
use crate::{
    clock,
    source::{messages::Messages, outlet::Outlet},
};

/// How long to look at most: a broker may be far away, and thousands of devices be announced.
const AT_MOST: Duration = Duration::from_secs(10);
/// A subscription is all that is sent.
const REQUESTS: usize = 4;

/// Looks until no announcement has come for a while.
pub(super) async fn look(
    broker: &Broker,
    messages: &mut Messages,
    outlet: &mut Outlet,
) -> Result<(), Lost> {
    if messages.announcements().next().is_none() {
        return Ok(());
    }
    let mut options = options(broker, &format!("{}-look", outlet.name))?;
    options.set_clean_session(true);
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let end = clock::monotonic() + AT_MOST;
    let mut quiet_at = end;
    while let Ok(event) = timeout_at(quiet_at.min(end), events.poll()).await {
        match event? {
            Event::Incoming(Packet::ConnAck(_)) => {
                let filters = messages.announcements();
                let filters = filters.map(|filter| SubscribeFilter::new(filter, QoS::AtMostOnce));
                client.try_subscribe_many(filters).map_err(|_| Lost::overrun())?;
            }
            Event::Incoming(Packet::SubAck(_)) => quiet_at = clock::monotonic() + QUIET,
            Event::Incoming(Packet::Publish(publish)) => {
                let taken = messages.take(&publish, clock::now(), outlet);
                for (device, silence) in &taken.silences {
                    outlet.declare(device, *silence).await?;
                }
                quiet_at = clock::monotonic() + QUIET;
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
    Ok(())
}
