//! How fast the link is, and so how much may be under way: plain values in and out.
//!
//! The server's window bounds what it has to hold. A slow link needs less: what is handed to it
//! beyond its speed only waits somewhere on the way, and all that is live waits behind it. So the
//! **goodput** is measured, which is bytes acknowledged a second, and no more is under way than the
//! link takes in the shortest round trip seen so far and a quarter of a second.

use std::time::Duration;

use tokio::time::Instant;

/// For how long a frame may hold back what is live, and how much longer than the round trip.
const QUARTER: Duration = Duration::from_millis(250);
/// The smallest frame: below this its header and names would be most of it.
const LEAST_FRAME: f64 = 1024.0;
/// The largest frame, so that an acknowledgement comes back soon.
const MOST_FRAME: f64 = 64.0 * 1024.0;
/// How much may be under way before anything is known: less than any network takes at once.
const BEGIN: f64 = 4096.0;
/// What a reading takes in a frame, until it is known.
const BEGIN_READING: f64 = 8.0;

/// What was measured on one connection.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second, once something was acknowledged.
    goodput: Option<f64>,
    round_trip: Duration,
    acknowledged: u64,
    reading_bytes: f64,
}

/// A frame as it left.
#[derive(Debug, Clone, Copy)]
pub struct Departure {
    at: Instant,
    acknowledged: u64,
    more_waited: bool,
}

impl Default for Pace {
    fn default() -> Self {
        let round_trip = Duration::MAX;
        Self { goodput: None, round_trip, acknowledged: 0, reading_bytes: BEGIN_READING }
    }
}

impl Pace {
    /// Returns how many bytes may be under way before the next frame has to wait.
    #[must_use]
    pub fn under_way(&self) -> usize {
        let bytes = self.goodput.map_or(BEGIN, |goodput| {
            (goodput * self.round_trip.saturating_add(QUARTER).as_secs_f64()).max(2.0 * LEAST_FRAME)
        });
        bytes as usize
    }

    /// Returns how many readings a frame may hold.
    #[must_use]
    pub fn frame_readings(&self) -> usize {
        let bytes = self.goodput.map_or(LEAST_FRAME, |goodput| goodput * QUARTER.as_secs_f64());
        (bytes.clamp(LEAST_FRAME, MOST_FRAME) / self.reading_bytes) as usize
    }

    /// Returns how long the link needs for so many bytes; zero while nothing is known.
    #[must_use]
    pub fn time_for(&self, bytes: usize) -> Duration {
        let seconds = self.goodput.map_or(0.0, |goodput| bytes as f64 / goodput);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }

    /// Notes a frame that goes now, and whether more waits behind it.
    pub fn departed(
        &mut self,
        readings: usize,
        bytes: usize,
        more_waits: bool,
        at: Instant,
    ) -> Departure {
        let a_reading = bytes as f64 / readings.max(1) as f64;
        self.reading_bytes = ((3.0 * self.reading_bytes + a_reading) / 4.0).max(1.0);
        Departure { at, acknowledged: self.acknowledged, more_waited: more_waits }
    }

    /// Notes that so many bytes are acknowledged, the last of them those of this frame.
    pub fn arrived(&mut self, departure: Departure, bytes: usize, now: Instant) {
        self.acknowledged += bytes as u64;
        let took = now.saturating_duration_since(departure.at).max(Duration::from_millis(1));
        self.round_trip = self.round_trip.min(took);
        let measured = (self.acknowledged - departure.acknowledged) as f64 / took.as_secs_f64();
        self.goodput = Some(match self.goodput {
            Some(known) if measured < known && departure.more_waited => {
                (3.0 * known + measured) / 4.0
            }
            // Where nothing waited, the agent was slow and not the link.
            Some(known) => known.max(measured),
            None => measured,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Sends for so many seconds over a link, as one that is behind does; a reading takes a byte.
    fn after(seconds: u64, bytes_a_second: f64, round_trip: Duration) -> Pace {
        let (mut pace, mut now) = (Pace::default(), crate::clock::monotonic());
        let (end, mut free_at) = (now + Duration::from_secs(seconds), now);
        let (mut under_way, mut bytes_under_way) = (VecDeque::new(), 0);
        while now < end {
            if bytes_under_way < pace.under_way() {
                let bytes = pace.frame_readings();
                let departure = pace.departed(bytes, bytes, true, now);
                free_at = free_at.max(now) + Duration::from_secs_f64(bytes as f64 / bytes_a_second);
                under_way.push_back((free_at + round_trip, departure, bytes));
                bytes_under_way += bytes;
            } else if let Some((at, departure, bytes)) = under_way.pop_front() {
                now = at;
                bytes_under_way -= bytes;
                pace.arrived(departure, bytes, now);
            }
        }
        pace
    }

    #[test]
    fn a_fast_link_is_filled_and_a_slow_one_is_not_flooded() {
        let lan = after(10, 10e6, Duration::from_millis(20));
        assert!(lan.under_way() > 1024 * 1024, "{lan:?}");
        assert!(lan.frame_readings() > 64_000, "{lan:?}");
        let far = after(60, 100e3, Duration::from_millis(600));
        assert!((60_000..130_000).contains(&far.under_way()), "{far:?}");
        let slow = after(60, 4e3, Duration::from_millis(50));
        assert!((2048..6000).contains(&slow.under_way()), "{slow:?}");
        assert!((1000..=1024).contains(&slow.frame_readings()), "{slow:?}");
    }

    #[test]
    fn an_agent_with_little_to_say_does_not_make_the_link_slow() {
        let mut pace = after(10, 1e6, Duration::from_millis(20));
        let before = pace.under_way();
        let now = crate::clock::monotonic();
        let departure = pace.departed(10, 10, false, now);
        pace.arrived(departure, 10, now + Duration::from_secs(1));
        assert_eq!(pace.under_way(), before);
    }

    #[test]
    fn frames_are_as_large_as_their_bytes_allow() {
        let mut pace = Pace::default();
        assert_eq!(pace.frame_readings(), 128);
        for _ in 0..40 {
            pace.departed(1000, 2000, true, crate::clock::monotonic());
        }
        assert!((510..=514).contains(&pace.frame_readings()), "{pace:?}");
    }
}
