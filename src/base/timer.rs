//! One timer for a connection, however often its deadline moves.
//!
//! Inserting a timer costs as much as parsing a head, so the timer is armed once and, when it fires before the
//! deadline of that moment, armed again for what is left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

#[derive(Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `deadline` has passed. A later call may name another deadline; one that moves later costs nothing.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                // Armed far away, so that the next call resets it to its own deadline.
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_later_fires_late_and_one_that_moves_earlier_fires_early() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let early = start + Duration::from_secs(1);
        let late = start + Duration::from_secs(5);
        let pending = poll_fn(|cx| Poll::Ready(timer.poll(cx, early).is_pending())).await;
        assert!(pending);
        poll_fn(|cx| timer.poll(cx, late)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        let pending =
            poll_fn(|cx| Poll::Ready(timer.poll(cx, late + Duration::from_secs(60)).is_pending()))
                .await;
        assert!(pending);
        poll_fn(|cx| timer.poll(cx, late + Duration::from_secs(1))).await;
        assert_eq!(start.elapsed(), Duration::from_secs(6));
    }
}
