//! How long to wait before the next attempt at something that failed.
//!
//! The wait doubles up to a cap. Each is shortened at random by up to half, so that a thousand
//! gateways do not come back in the same moment.

use std::time::Duration;

/// The waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with about `first` and grows to about `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// Returns how long to wait now: between half of the step and all of it.
    pub fn wait(&mut self) -> Duration {
        // Without random bytes the wait is merely not spread.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        self.wait_with(f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts anew: what was attempted has worked.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    fn wait_with(&mut self, random: f64) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.cap);
        step.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits =
            |backoff: &mut Backoff, random| [(); 4].map(|()| backoff.wait_with(random).as_millis());
        assert_eq!(waits(&mut backoff, 1.0), [1000, 2000, 4000, 5000]);
        backoff.reset();
        assert_eq!(waits(&mut backoff, 0.0), [500, 1000, 2000, 2500]);
        for _ in 0..100 {
            let wait = backoff.wait();
            assert!((2500..=5000).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
