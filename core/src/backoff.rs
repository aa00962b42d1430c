use std::time::Duration;

/// The pause after a number of failures (1 is the first): `base` doubled for each further one,
/// at most `max`, and of that a random share of at least a half, so that many that failed
/// together do not come back together.
pub(crate) fn delay(base: Duration, max: Duration, failures: u32) -> Duration {
    let doubled = base.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(max).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The pause before a server is asked again after a number of failures.
pub(crate) fn reconnect(failures: u32) -> Duration {
    delay(Duration::from_millis(100), Duration::from_secs(5), failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_maximum_with_jitter_below() {
        let (base, max) = (Duration::from_millis(200), Duration::from_secs(30));
        for (failures, full) in [
            (1, 200),
            (2, 400),
            (3, 800),
            (8, 25_600),
            (9, 30_000),
            (99, 30_000),
        ] {
            let full = Duration::from_millis(full);
            for _ in 0..100 {
                let delay = delay(base, max, failures);
                assert!(delay >= full / 2 && delay <= full, "{failures}: {delay:?}");
            }
        }
    }
}
