//! A request at the lane in front of its application, or of the service it is for: let in, or waiting for its turn, or refused.

use std::future::poll_fn;
use std::task::Poll;

use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forward::{Ended, Plan};
use super::head::RequestHead;
use crate::lane::{Reason, Refusal};
use crate::proxy::failure::Failure;
use crate::proxy::lane::{Asked, Entered, Lane, Place, Slot};
use crate::proxy::session::Session;

/// The slot that the request holds until its answer has ended.
pub async fn admit<D: Downstream>(
    session: &Session,
    lane: &Lane,
    plan: &Plan<'_>,
    down: &mut D,
    request: &RequestHead,
    exchange: &Exchange,
) -> Result<Slot, Ended> {
    let deadline = plan.deadline.map(|deadline| deadline.at);
    let asked = Asked::of(lane, &request.fields, session.peer.ip(), deadline);
    let admitted = match lane.enter(asked, exchange.start) {
        Entered::Slot(slot) => return Ok(slot),
        Entered::Refused(refusal) => Err(refusal),
        Entered::Place(place) => Box::pin(wait(place, plan, down, exchange)).await?,
    };
    admitted.map_err(|refusal| Ended::Refused(shed(lane, refusal, exchange)))
}

/// Until its turn comes, its patience or its time ends, or the client has left.
async fn wait<D: Downstream>(
    mut place: Place,
    plan: &Plan<'_>,
    down: &mut D,
    exchange: &Exchange,
) -> Result<Result<Slot, Refusal>, Ended> {
    let patience = exchange.start + place.patience;
    let (until, reason) = match plan.deadline {
        Some(deadline) if deadline.at < patience => (deadline.at, Reason::Deadline),
        _ => (patience, Reason::Timeout),
    };
    let decided = poll_fn(|cx| {
        if let Poll::Ready(decided) = place.poll(cx) {
            return Poll::Ready(Ok(Some(decided)));
        }
        if down.poll_gone(cx, plan.on_half_close).is_ready() {
            return Poll::Ready(Err(Ended::Refused(Failure::ClientGone)));
        }
        down.timer().poll(cx, until).map(|()| Ok(None))
    })
    .await?;
    Ok(decided.unwrap_or_else(|| place.expire(reason)))
}

fn shed(lane: &Lane, refusal: Refusal, exchange: &Exchange) -> Failure {
    Failure::Shed {
        service: lane.label().to_owned(),
        refusal,
        admits: lane.admits(exchange.start),
    }
}
