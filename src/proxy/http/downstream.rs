//! What a request's path needs of the side it came from, whichever version of HTTP that speaks.

use std::task::{Context, Poll};

use super::body::{Cut, Sink, Size, Source};
use super::head::ResponseHead;
use crate::base::timer::Timer;
use crate::model::OnHalfClose;

/// One request from a client: its body is the [`Source`], its answer's body the [`Sink`].
pub trait Downstream: Source + Sink {
    /// The size of the request's body.
    fn size(&self) -> Size;

    /// The timer of this connection or stream.
    fn timer(&mut self) -> &mut Timer;

    /// The client spoke HTTP/2 in the clear without being asked, so it expects that of the server.
    fn has_prior_knowledge(&self) -> bool;

    /// Queues an informational answer.
    fn send_interim(&mut self, head: &ResponseHead) -> Result<(), Cut>;

    /// Queues the final answer's head; a body of this size follows.
    fn send_head(&mut self, head: &ResponseHead, size: Size) -> Result<(), Cut>;

    /// Ready when the client has left for good, so that nobody waits for the answer. Does not read the body.
    fn poll_gone(&mut self, cx: &mut Context<'_>, on_half_close: OnHalfClose) -> Poll<Cut>;

    /// The same beside a body that is being read or written. HTTP/1 cannot tell then.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Cut>;

    /// Takes the answer back, so that another can be sent instead. False when the client may have seen some of it.
    fn take_back(&mut self) -> bool;

    /// Ends an answer that cannot be completed, so that the client sees it cut short.
    fn cut(&mut self);

    /// The answer is complete although the request's body is not: the rest of the body is not wanted.
    fn decline_body(&mut self);
}
