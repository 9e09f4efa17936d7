//! One attempt on one endpoint: a connection, the request, and the head of its answer; and what a failure leaves to do.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::body::{Copy, CopyError, Cut, Size};
use super::deadline::{self, Deadline, Whose};
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forward::{Ended, Plan, Scratch, Session};
use super::head::RequestHead;
use super::replay::Replay;
use crate::model::OnHalfClose;
use crate::proxy::cluster::{EndpointId, Lease, Outcome};
use crate::proxy::failure::{ConnectError, Failure};
use crate::proxy::upstream::{OpenError, Upstream, Wanted};

/// What an attempt that failed leaves to do.
pub enum Again {
    /// The failure is the answer.
    No,
    /// Another endpoint may have it.
    Elsewhere,
    /// The same endpoint, on a new connection: the reused one was being closed.
    Fresh,
}

pub struct Failed {
    pub failure: Failure,
    pub outcome: Outcome,
    pub again: Again,
}

impl Failed {
    /// Nothing has moved for so long.
    pub fn idle(limit: Duration) -> Self {
        Self {
            failure: Failure::StreamIdle { limit },
            outcome: Outcome::Timeout,
            again: Again::No,
        }
    }
}

/// One attempt on one endpoint.
pub struct Attempt<'a> {
    pub session: &'a Session,
    pub plan: &'a Plan<'a>,
    /// Of the request's body.
    pub size: Size,
    pub replayable: bool,
    pub fresh: bool,
    pub began: Instant,
    pub endpoint: EndpointId,
}

impl Attempt<'_> {
    pub async fn once<D: Downstream>(
        &self,
        lease: &Lease,
        down: &mut D,
        scratch: &mut Scratch,
        exchange: &mut Exchange,
        replay: &mut Replay,
    ) -> Result<Result<(Upstream, Copy), Failed>, Ended> {
        let deadline = self.announce(&mut scratch.request);
        let mut upstream = match self.open(lease, down, &scratch.request, deadline).await {
            Ok(upstream) => upstream,
            Err(Unopened::Error(error)) => return Ok(Err(self.not_opened(lease, error))),
            Err(Unopened::Missed(missed)) => return Ok(Err(self.missed(missed, replay))),
            Err(Unopened::Client(cut)) => return Err(client_failure(cut)),
        };
        let mut request = Copy::default();
        let result = self
            .head(&mut upstream, &mut request, down, scratch, replay, deadline)
            .await;
        exchange.bytes_in = exchange.bytes_in.max(request.bytes);
        match result {
            Ok(()) => {
                exchange.first_byte = Some(Instant::now());
                Ok(Ok((upstream, request)))
            }
            Err(Broken::Upstream(cut)) => Ok(Err(self.broken(&upstream, cut, replay, lease))),
            Err(Broken::Missed(missed)) => {
                upstream.cut();
                Ok(Err(self.missed(missed, replay)))
            }
            Err(Broken::Idle(limit)) => {
                upstream.cut();
                Ok(Err(Failed::idle(limit)))
            }
            Err(Broken::Client(cut)) => {
                upstream.cut();
                Err(client_failure(cut))
            }
        }
    }

    /// Tells the next hop how long it has: until the deadline that is returned.
    pub fn announce(&self, head: &mut RequestHead) -> Option<Deadline> {
        let deadline = self.deadline();
        if let Some(Deadline { at, whose, .. }) = deadline {
            let left = at.saturating_duration_since(self.began);
            deadline::forward(&mut head.fields, left, self.plan.grpc, whose);
        }
        deadline
    }

    /// The earlier of the request's deadline and this attempt's.
    fn deadline(&self) -> Option<Deadline> {
        let Some(limit) = self.plan.timeouts.backend_request else {
            return self.plan.deadline;
        };
        let at = self.began + limit;
        match self.plan.deadline {
            Some(deadline) if deadline.at <= at => Some(deadline),
            _ => Some(Deadline {
                at,
                limit,
                whose: Whose::BackendRequest,
            }),
        }
    }

    /// Sends the head, on a connection that may have to be made first.
    async fn open<D: Downstream>(
        &self,
        lease: &Lease,
        down: &mut D,
        head: &RequestHead,
        deadline: Option<Deadline>,
    ) -> Result<Upstream, Unopened> {
        let worker = &self.session.worker;
        let wanted = Wanted {
            destination: &self.plan.destination,
            endpoint: lease.endpoint(),
            guise: self.session.guise(),
            http2: self
                .plan
                .destination
                .wants_http2(down.has_prior_knowledge(), self.plan.grpc),
            fresh: self.fresh,
            replayable: self.replayable,
        };
        let mut opening =
            pin!(
                worker
                    .pool
                    .open(&wanted, head, self.size, self.began, &worker.settings)
            );
        poll_fn(|cx| {
            if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                return Poll::Ready(opened.map_err(Unopened::Error));
            }
            if let Poll::Ready(cut) = down.poll_gone(cx, self.plan.on_half_close) {
                return Poll::Ready(Err(Unopened::Client(cut)));
            }
            match deadline {
                Some(deadline) => {
                    let timer = down.timer().poll(cx, deadline.at);
                    timer.map(|()| Err(Unopened::Missed(deadline)))
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Sends the request and waits for the final head; informational ones go on as they come.
    async fn head<D: Downstream>(
        &self,
        upstream: &mut Upstream,
        request: &mut Copy,
        down: &mut D,
        scratch: &mut Scratch,
        replay: &mut Replay,
        deadline: Option<Deadline>,
    ) -> Result<(), Broken> {
        let settings = &self.session.worker.settings;
        let limit = self
            .plan
            .idle_limit(settings)
            .filter(|_| deadline.is_none());
        let mut idle = None;
        let mut sending = true;
        poll_fn(|cx| {
            if sending {
                match request.poll(cx, &mut replay.source(down), upstream) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => sending = false,
                    // It may have answered before it stopped reading; the answer, or its absence, tells.
                    Poll::Ready(Err(CopyError::Sink(_))) => sending = false,
                    Poll::Ready(Err(CopyError::Source(cut))) => {
                        return Poll::Ready(Err(Broken::Client(cut)));
                    }
                }
            }
            loop {
                let Scratch {
                    request,
                    response,
                    limits,
                    ..
                } = &mut *scratch;
                match upstream.poll_head(cx, limits, &request.method, response) {
                    Poll::Ready(Ok(())) if response.is_interim() => {
                        if let Err(cut) = down.send_interim(response) {
                            return Poll::Ready(Err(Broken::Client(cut)));
                        }
                        let _ = down.poll_flush(cx);
                    }
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(cut)) => return Poll::Ready(Err(Broken::Upstream(cut))),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(cut) = poll_left(cx, down, sending, self.plan.on_half_close) {
                return Poll::Ready(Err(Broken::Client(cut)));
            }
            if let Some(deadline) = deadline
                && down.timer().poll(cx, deadline.at).is_ready()
            {
                return Poll::Ready(Err(Broken::Missed(deadline)));
            }
            if let Some(limit) = limit {
                let watch =
                    idle.get_or_insert_with(|| self.session.worker.watch(cx.waker(), limit));
                if let Some(limit) = watch.expired(request.bytes) {
                    return Poll::Ready(Err(Broken::Idle(limit)));
                }
            }
            Poll::Pending
        })
        .await
    }

    pub fn not_opened(&self, lease: &Lease, error: OpenError) -> Failed {
        let endpoint = lease.endpoint().address.to_string();
        match error {
            OpenError::Connect(error) => Failed {
                failure: Failure::ConnectFailed { endpoint, error },
                outcome: Outcome::ConnectFailure,
                again: Again::Elsewhere,
            },
            OpenError::Refused => Failed {
                failure: Failure::ConnectFailed {
                    endpoint,
                    error: ConnectError::Io("the connection was going away".into()),
                },
                outcome: Outcome::Cancelled,
                again: if self.fresh {
                    Again::Elsewhere
                } else {
                    Again::Fresh
                },
            },
            OpenError::Overflow(limit) => Failed {
                failure: Failure::Overflow {
                    cluster: self.plan.destination.label.to_string(),
                    limit,
                },
                outcome: Outcome::Cancelled,
                again: Again::No,
            },
            OpenError::Request(reason) => Failed {
                failure: Failure::BadRequest {
                    status: 400,
                    reason,
                },
                outcome: Outcome::Cancelled,
                again: Again::No,
            },
        }
    }

    /// The upstream broke off before its final head.
    pub fn broken(&self, upstream: &Upstream, cut: Cut, replay: &Replay, lease: &Lease) -> Failed {
        let endpoint = lease.endpoint().address.to_string();
        if let Cut::Malformed(reason) = cut {
            let failure = Failure::UpstreamProtocol { endpoint, reason };
            return Failed {
                failure,
                outcome: Outcome::Failure5xx,
                again: Again::No,
            };
        }
        let failure = Failure::UpstreamGone {
            endpoint,
            reset: cut.is_reset(),
        };
        // RFC 9113, section 8.7: neither was processed at all.
        let unprocessed = match cut {
            Cut::Reset(h2::Reason::REFUSED_STREAM) => {
                Some((Outcome::Shed { retry_after: None }, Again::Elsewhere))
            }
            Cut::Unseen if self.fresh => Some((Outcome::Cancelled, Again::Elsewhere)),
            Cut::Unseen => Some((Outcome::Cancelled, Again::Fresh)),
            Cut::Gone(_) | Cut::Reset(_) | Cut::Malformed(_) | Cut::TooLarge { .. } => None,
        };
        if let Some((outcome, again)) = unprocessed.filter(|_| replay.is_possible()) {
            return Failed {
                failure,
                outcome,
                again,
            };
        }
        let may_repeat = self.replayable && replay.is_possible() && upstream.is_unanswered();
        let again = match may_repeat {
            true if upstream.is_reused() => Again::Fresh,
            true => Again::Elsewhere,
            false => Again::No,
        };
        let outcome = if upstream.is_reused() {
            Outcome::Cancelled
        } else {
            Outcome::Reset
        };
        if upstream.is_reused() {
            self.session.worker.pool.was_closed_under_us(
                self.endpoint,
                self.session.guise(),
                Instant::now(),
            );
        }
        Failed {
            failure,
            outcome,
            again,
        }
    }

    pub fn missed(&self, missed: Deadline, replay: &Replay) -> Failed {
        let own = missed.whose == Whose::BackendRequest;
        // An attempt's own timeout may be retried where the route retries at all.
        let again = if own && self.replayable && replay.is_possible() && self.plan.retry.is_some() {
            Again::Elsewhere
        } else {
            Again::No
        };
        Failed {
            failure: missed.missed(),
            outcome: missed.outcome(),
            again,
        }
    }
}

/// Why there is no upstream to send the request's body to.
enum Unopened {
    Error(OpenError),
    Client(Cut),
    Missed(Deadline),
}

enum Broken {
    Upstream(Cut),
    Client(Cut),
    Missed(Deadline),
    Idle(Duration),
}

/// Ready when the client has left; `sending` while its body is still on the way up.
pub fn poll_left(
    cx: &mut Context<'_>,
    down: &mut impl Downstream,
    sending: bool,
    on_half_close: OnHalfClose,
) -> Poll<Cut> {
    match sending {
        true => down.poll_reset(cx),
        false => down.poll_gone(cx, on_half_close),
    }
}

/// What a client that broke off its own request is told, if it is still there.
pub fn client_failure(cut: Cut) -> Ended {
    match cut {
        Cut::Malformed(reason) => Ended::Refused(Failure::BadRequest {
            status: 400,
            reason,
        }),
        Cut::TooLarge { max } => Ended::Refused(Failure::BodyTooLarge { max }),
        Cut::Gone(_) | Cut::Reset(_) | Cut::Unseen => Ended::Refused(Failure::ClientGone),
    }
}
