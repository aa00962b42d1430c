use std::time::Duration;

use tokio::time::Instant;

use super::control::Arrivals;
use crate::config::SubscriptionConfig;
use crate::transport::Delivery;

/// Into how many the room for bytes is divided as long as the size of events is not known.
const FIRST_READ: usize = 16;

/// What a subscription has received and is not done with, and how much more it may receive.
///
/// Beyond a bound it reads nothing, until half of the window is free: reading one event whenever
/// one was settled would cost a round trip each.
#[derive(Debug)]
pub(super) struct Window {
    max_events: usize,
    max_bytes: usize,
    max_age: Option<Duration>,
    /// Deliveries that are not settled yet.
    events: usize,
    /// The bytes of deliveries that are not done yet.
    bytes: usize,
    /// What an event may be expected to have.
    expected_bytes: usize,
    arrivals: Arrivals,
}

impl Window {
    pub(super) fn new(settings: &SubscriptionConfig) -> Self {
        Self {
            max_events: settings.max_in_flight,
            max_bytes: settings.max_in_flight_bytes,
            max_age: settings.max_in_flight_age,
            events: 0,
            bytes: 0,
            expected_bytes: settings.max_in_flight_bytes.div_ceil(FIRST_READ),
            arrivals: Arrivals::default(),
        }
    }

    /// How many deliveries may be read now, at least 1, if any may.
    pub(super) fn room(&self) -> Option<usize> {
        let is_old = |oldest: Instant| self.max_age.is_some_and(|max| oldest.elapsed() >= max);
        let is_full = self.events > self.max_events / 2 || self.bytes > self.max_bytes / 2;
        if is_full || self.oldest().is_some_and(is_old) {
            return None;
        }
        let by_bytes = (self.max_bytes - self.bytes) / self.expected_bytes.max(1);
        Some((self.max_events - self.events).min(by_bytes).max(1))
    }

    /// Takes deliveries in, and gives the number under which they are done. What they have in bytes
    /// is told by [`hold`](Self::hold) and [`measured`](Self::measured).
    pub(super) fn received(&mut self, count: usize) -> u64 {
        self.events += count;
        self.arrivals.arrived(count)
    }

    /// Notes that a delivery stays for a while.
    pub(super) fn hold(&mut self, delivery: &Delivery) {
        self.bytes += delivery.size();
    }

    /// Learns how many bytes deliveries had that came together.
    pub(super) fn measured(&mut self, count: usize, bytes: usize) {
        let mean = bytes / count.max(1);
        // Large ones are expected at once, and small ones slowly.
        self.expected_bytes = mean.max((7 * self.expected_bytes + mean) / 8);
    }

    /// Notes that deliveries that came together are done, none of which was held.
    pub(super) fn done_at_once(&mut self, arrival: u64, count: usize) {
        if count > 0 {
            self.arrivals.done(arrival, count);
        }
    }

    /// Notes that a delivery that was held is done, and waits to be settled.
    pub(super) fn done(&mut self, arrival: u64, delivery: &Delivery) {
        self.bytes -= delivery.size();
        self.arrivals.done(arrival, 1);
    }

    /// Notes that a delivery is settled.
    pub(super) fn settled(&mut self) {
        self.events -= 1;
    }

    /// Deliveries that are not settled yet.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// The bytes of deliveries that are not done yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest came that is not done.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.arrivals.oldest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{AckToken, Position};
    use crate::{Event, Topic};

    fn window(events: usize, bytes: usize, age: Option<Duration>) -> Window {
        Window::new(&SubscriptionConfig {
            max_in_flight: events,
            max_in_flight_bytes: bytes,
            max_in_flight_age: age,
            ..SubscriptionConfig::default()
        })
    }

    fn deliveries(count: usize, bytes: usize) -> Vec<Delivery> {
        let delivery = || {
            let event = Event::builder("a").source("s").data(vec![0; bytes]);
            let (token, position) = (AckToken::new(0, 0, [0, 0]), Position::new(0, 0));
            Delivery::new(token, Topic::new("t"), position, event.build().unwrap())
        };
        (0..count).map(|_| delivery()).collect()
    }

    fn receive(window: &mut Window, deliveries: &[Delivery]) -> u64 {
        let arrival = window.received(deliveries.len());
        deliveries.iter().for_each(|it| window.hold(it));
        let bytes = deliveries.iter().map(Delivery::size).sum();
        window.measured(deliveries.len(), bytes);
        arrival
    }

    #[test]
    fn a_full_window_opens_again_when_half_of_it_is_free() {
        let mut window = window(10, 1 << 30, None);
        assert_eq!(window.room(), Some(10));
        receive(&mut window, &deliveries(10, 1));
        for settled in 0..5 {
            assert_eq!(window.room(), None, "after {settled}");
            window.settled();
        }
        assert_eq!(window.room(), Some(5));
    }

    #[test]
    fn the_bytes_of_what_is_not_done_leave_less_room() {
        let mut window = window(1_000, 160_000, None);
        assert_eq!(window.room(), Some(16), "nothing is known of their size");
        let first = deliveries(16, 10_000);
        let arrival = receive(&mut window, &first);
        assert_eq!(window.room(), None, "they fill it");
        for delivery in &first[..14] {
            window.done(arrival, delivery);
        }
        let room = window.room().unwrap();
        assert!((10..=14).contains(&room), "as many as fit: {room}");
    }

    #[test]
    fn one_event_that_fills_the_window_does_not_close_it_for_good() {
        let mut window = window(1_000, 100, None);
        let large = deliveries(1, 5_000);
        let arrival = receive(&mut window, &large);
        assert_eq!(window.room(), None);
        window.done(arrival, &large[0]);
        assert_eq!(window.room(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_event_closes_it_until_it_is_done() {
        let mut window = window(1_000, 1 << 30, Some(Duration::from_secs(60)));
        let old = deliveries(1, 1);
        let arrival = receive(&mut window, &old);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(window.room().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(window.room(), None);
        window.done(arrival, &old[0]);
        assert!(window.room().is_some());
    }
}
