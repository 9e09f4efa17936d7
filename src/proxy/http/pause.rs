//! Waiting before a request goes on: never past its deadline, and not for a client that has left.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::Instant;

use super::deadline::Deadline;
use super::downstream::Downstream;
use super::forward::Ended;
use crate::model::OnHalfClose;
use crate::proxy::failure::Failure;

pub async fn until<D: Downstream>(
    at: Instant,
    deadline: Option<Deadline>,
    on_half_close: OnHalfClose,
    down: &mut D,
) -> Result<(), Ended> {
    if let Some(deadline) = deadline.filter(|deadline| deadline.at <= at) {
        poll_fn(|cx| down.timer().poll(cx, deadline.at)).await;
        return Err(Ended::Refused(deadline.missed()));
    }
    poll_fn(|cx| {
        if down.poll_gone(cx, on_half_close).is_ready() {
            return Poll::Ready(Err(Ended::Refused(Failure::ClientGone)));
        }
        down.timer().poll(cx, at).map(Ok)
    })
    .await
}
