//! Publishing: route, encode, check the size, hand to the pipeline.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::bus::{Bus, Inner, closed};
use crate::event::IntoEvent;
use crate::failed::Failed;
use crate::made::BusEvent;
use crate::middleware::{self, Prepared, PublishStats, Published, Way};
use crate::report::Receipt;
use crate::time::IntoDuration;
use crate::transport::Outcome;
use crate::validation::Report;
use crate::{Event, Result, Text};

impl Bus {
    /// Publishes an event on the transport and topic that its route names, and waits until the
    /// server keeps it.
    ///
    /// An event that finds nothing out before it is sent at once, from where the caller stands;
    /// else it travels in the next batch of its route. Events of one topic and key keep the order
    /// in which they were given. Where the bus holds as much as `[publishing]` allows, the call
    /// waits. An event that was rejected for a passing reason is sent again as the route's `retry`
    /// says; what fails for good is kept in [`failed`](Self::failed) as well.
    ///
    /// # Errors
    ///
    /// [`NoRoute`](crate::ErrorKind::NoRoute) if no route takes the type, [`TooLarge`](crate::ErrorKind::TooLarge)
    /// over the service's `max_event_size`, [`InvalidEvent`](crate::ErrorKind::InvalidEvent) and
    /// [`Encode`](crate::ErrorKind::Encode) for what is no event, and those of the transport. The error's
    /// [`effect`](crate::Error::effect) says whether the event may have been stored all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the event may or may not have been published, and may stand behind later ones of
    /// its key.
    pub async fn publish(&self, event: impl IntoEvent) -> Result<Receipt> {
        let (way, outgoing, size) = self.route(event)?;
        receipt(self.publishing()?.publish(&way, outgoing, size).await)
    }

    /// Publishes an event as [`publish`](Self::publish) does, unless there is no room for it.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) at once if the bus holds as much as `[publishing]` allows; those
    /// of [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn try_publish(&self, event: impl IntoEvent) -> Result<Receipt> {
        let (way, outgoing, size) = self.route(event)?;
        let published = self.publishing()?.try_publish(&way, outgoing, size);
        receipt(published.await?)
    }

    /// Takes an event and returns at once, with the future of its outcome. The event is published
    /// whether or not the future is polled.
    ///
    /// Where the bus holds as much as `[publishing]` allows, nothing is taken yet: the future
    /// takes the event when it is polled and there is room, and order counts from there. Dropped
    /// before that, it leaves the event to [`failed`](Self::failed).
    ///
    /// ```no_run
    /// # async fn example(bus: polybus::Bus, event: polybus::Event) -> polybus::Result<()> {
    /// let outcome = bus.enqueue(event)?;
    /// // Something else meanwhile.
    /// let receipt = outcome.await?;
    /// # let _ = receipt; Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// At once, those of [`publish`](Self::publish) that are not the transport's.
    pub fn enqueue(&self, event: impl IntoEvent) -> Result<Enqueued> {
        let (way, outgoing, size) = self.route(event)?;
        let publishing = self.publishing()?;
        Ok(Enqueued(publishing.enqueue(way, outgoing, size)))
    }

    /// Publishes events, each on its route, and returns one outcome for each in the order given.
    ///
    /// Takes from the iterator as there is room, so it may be long. Events of one key keep their
    /// order. One event's failure does not fail the others.
    ///
    /// # Cancel safety
    ///
    /// Dropped, any part may have been published.
    pub async fn publish_all<I>(&self, events: I) -> Vec<Outcome>
    where
        I: IntoIterator<Item: IntoEvent>,
    {
        let mut events = events.into_iter();
        // A guess by the iterator, which may be wrong or boundless.
        let expected = events.size_hint().0.min(1 << 16);
        // The way of the event before, which mostly is that of the next one as well.
        let mut known: Option<Arc<Way>> = None;
        let mut route = |event: I::Item| {
            self.publishing()?;
            self.inner.prepare.next(event, &mut known)
        };
        let next = || events.next().map(&mut route);
        let publishing = &self.inner.publishing;
        publishing.publish_all(expected, next).await
    }

    /// What is wrong with an event, whatever its route says of it: nothing is published. See
    /// [`validation`](crate::validation).
    ///
    /// ```no_run
    /// # async fn example(bus: polybus::Bus, event: polybus::Event) {
    /// for fault in bus.check(event).await.faults {
    ///     println!("{}: {}", fault.pointer, fault.message);
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn check(&self, event: impl IntoEvent) -> Report {
        let Inner {
            prepare,
            validation,
            ..
        } = &*self.inner;
        prepare.check(validation, event).await
    }

    /// Refuses an event in which something is wrong, as [`check`](Self::check) finds it.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`](crate::ErrorKind::InvalidEvent), which lists every fault and has the
    /// [report](crate::Error::report).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn validate(&self, event: impl IntoEvent) -> Result<()> {
        self.check(event).await.into_result()
    }

    /// Waits until everything that was published before has its outcome.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if some has none at the deadline;
    /// [`Config`](crate::ErrorKind::Config) if the deadline is no duration.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn flush(&self, deadline: impl IntoDuration) -> Result<()> {
        let deadline = Instant::now() + deadline.into_duration()?;
        self.inner.publishing.flush(deadline).await
    }

    /// The events that could not be published: rejected or of unknown outcome after the last
    /// attempt, within the bounds of `[publishing.failed]`.
    pub fn failed(&self) -> Failed<'_> {
        Failed::new(self)
    }

    /// What publishing holds, and what became of the rest.
    pub fn publish_stats(&self) -> PublishStats {
        self.inner.publishing.stats()
    }

    /// Starts an event of a type, with the service's name as its source.
    ///
    /// ```no_run
    /// # async fn example(bus: polybus::Bus) -> polybus::Result<()> {
    /// let body = [1, 2, 3];
    /// bus.event("deal.closed").json(&body)?.key("d1").correlation("c1").publish().await?;
    /// # Ok(()) }
    /// ```
    pub fn event(&self, event_type: impl Into<Text>) -> BusEvent<'_> {
        BusEvent {
            bus: self,
            builder: Event::builder(event_type),
        }
    }

    fn route(&self, event: impl IntoEvent) -> Result<Prepared> {
        self.inner.prepare.event(event)
    }

    fn publishing(&self) -> Result<&middleware::Publishing> {
        if self.is_closed() {
            return Err(closed());
        }
        Ok(&self.inner.publishing)
    }
}

/// The outcome of an event that was [enqueued](Bus::enqueue), once it is there.
///
/// # Cancel safety
///
/// Dropped, the event is published all the same, unless it still waits for room: then it goes to
/// [`Bus::failed`].
#[must_use = "what becomes of the event is lost if nobody awaits it"]
pub struct Enqueued(middleware::Enqueued);

impl Future for Enqueued {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(receipt)
    }
}

impl fmt::Debug for Enqueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn receipt(published: Published) -> Result<Receipt> {
    let Published {
        outcome,
        transport,
        topic,
        ..
    } = published;
    outcome.into_result().map(|position| Receipt {
        transport,
        topic,
        position,
    })
}
