//! Deliveries that have come, on their way to their handlers.
//!
//! Most handlers return at once, so that is the short way: the handler is called where its delivery
//! came in, and neither a job nor a lane is made for it. What turns out to need more becomes a job
//! then: something of its key is at work, no place is free, the handler waits or does not
//! acknowledge.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, timeout_at};
use tracing::level_filters::LevelFilter;

use super::Engine;
use crate::event::on_behalf_of;
use crate::handler::{
    CallInfo, ErasedHandler, Failure, Handled, HandlerSet, LastFound, Later, Registered, Started,
    Verdict,
};
use crate::runtime::Progress;
use crate::runtime::batch::Loose;
use crate::runtime::job::{Job, Task, Trial, Working};
use crate::transport::{Delivery, Settlement};

/// Deliveries that came together and were not looked at yet.
pub(super) struct Arrived {
    pub(super) source: usize,
    /// The number of their arrival.
    pub(super) arrival: u64,
    pub(super) deliveries: Vec<Delivery>,
}

/// The handlers, and the one that was found last.
struct Found {
    handlers: Arc<HandlerSet>,
    last: LastFound,
}

/// What came of trying to handle a delivery on the spot.
enum AtOnce {
    /// It is handled, and waits to be settled.
    Acknowledged,
    /// Its handler was called, and there is more to do.
    Called(Called),
    /// It is for the batch of this handler.
    InBatch(usize),
    /// It has to go the long way, and nothing was done.
    Untried,
}

/// A handler that was called and polled once.
enum Called {
    Returned(Handled, Option<Later>),
    Waiting(Started, Option<Instant>),
}

impl Engine {
    /// Starts what may start: first the jobs that were here before, then what has come since.
    pub(super) fn start_work(&mut self, context: &mut Context<'_>) {
        if self.batches.is_loose_due() {
            self.start_loose(context);
        }
        self.start_ready(context);
        while let Some(arrived) = self.arrived.pop_front() {
            self.take_in(arrived, context);
            self.start_ready(context);
        }
    }

    /// Releases what came after the stop.
    pub(super) fn give_back(&mut self, arrived: Arrived) {
        for delivery in arrived.deliveries {
            self.accept(arrived.source, arrived.arrival, delivery);
        }
    }

    fn take_in(&mut self, arrived: Arrived, context: &mut Context<'_>) {
        let Arrived {
            source,
            arrival,
            deliveries,
        } = arrived;
        // Claims and traces are made on the long way, and rules that have to wait are asked there.
        let rules = self.validation.as_ref().is_some_and(|it| it.rules().wait());
        let traces = LevelFilter::current() >= LevelFilter::DEBUG;
        let short = self.claims.is_none() && !rules && !traces;
        let mut found = Found {
            handlers: Arc::clone(&self.handlers),
            last: LastFound::default(),
        };
        let (count, mut bytes, mut acknowledged) = (deliveries.len(), 0, 0);
        for delivery in deliveries {
            bytes += delivery.size();
            if !self.ready.is_empty() {
                self.start_ready(context);
            }
            let tried = match short {
                true => self.handle_at_once(&mut found, source, &delivery, context),
                false => AtOnce::Untried,
            };
            match tried {
                AtOnce::Acknowledged => acknowledged += 1,
                AtOnce::Called(called) => self.go_on(source, arrival, delivery, called),
                AtOnce::InBatch(handler) => {
                    let delivery = Loose {
                        source,
                        arrival,
                        delivery,
                    };
                    self.collect_arrived(handler, delivery, context);
                }
                AtOnce::Untried => self.accept(source, arrival, delivery),
            }
        }
        self.counters.handled(acknowledged);
        self.window.done_at_once(arrival, acknowledged);
        self.window.measured(count, bytes);
    }

    /// Calls the handler of a delivery, if it may start right now. Changes no lane.
    fn handle_at_once(
        &mut self,
        Found { handlers, last }: &mut Found,
        source: usize,
        delivery: &Delivery,
        context: &mut Context<'_>,
    ) -> AtOnce {
        let Ok(event) = delivery.event() else {
            return AtOnce::Untried;
        };
        let may_start = self.ready.is_empty()
            && self.has_place()
            && self.is_free(source, delivery)
            && !self.suspicions[source].was_before(delivery)
            && !self.is_own_dead_letter(source, delivery.topic())
            && self.settlements[source].is_current(delivery.token());
        if !may_start {
            return AtOnce::Untried;
        }
        let Some((index, handler)) = handlers.find_next(event, last) else {
            return AtOnce::Untried;
        };
        // What is loose is in no lane, where another handler would see that it is at work.
        if self.batches.loose_handler().is_some_and(|it| it != index) {
            return AtOnce::Untried;
        }
        let Registered::One(handler) = handler else {
            return AtOnce::InBatch(index);
        };
        let limit = self.settings.handler_timeout;
        let call = Arc::make_mut(&mut self.calls[source]);
        call.attempt = delivery.attempt();
        call.deadline = limit.map(|limit| Instant::now() + limit);
        let call = &self.calls[source];
        let called = on_behalf_of(Some(event), || {
            call_once(&**handler, delivery, call, context)
        });
        if !matches!(called, Called::Returned(Ok(Verdict::Ack), None)) {
            return AtOnce::Called(called);
        }
        self.settlements[source].push(delivery.token(), Settlement::Ack);
        self.observe_step(source, delivery, delivery.attempt(), Progress::Handled);
        AtOnce::Acknowledged
    }

    /// Makes a job of a delivery whose handler was called, and goes on with it.
    fn go_on(&mut self, source: usize, arrival: u64, delivery: Delivery, called: Called) {
        let mut job = self.occupy(source, arrival, delivery);
        match called {
            Called::Returned(handled, later) => {
                job.later = later;
                self.on_returned(job, handled);
            }
            Called::Waiting(started, deadline) => {
                job.later = started.later;
                let (Some(deadline), Some(limit)) = (deadline, self.settings.handler_timeout)
                else {
                    return self.running.push(Working::new(job, started.future));
                };
                let limited = async move {
                    let ended = timeout_at(deadline, started.future).await;
                    ended.unwrap_or_else(|_| Err(Failure::late(limit)))
                };
                self.running.push(Working::new(job, Box::pin(limited)));
            }
        }
    }

    /// Makes a job of a delivery whose lane is free, and takes the lane.
    pub(super) fn occupy(&mut self, source: usize, arrival: u64, delivery: Delivery) -> Job {
        self.window.hold(&delivery);
        let mut job = new_job(source, arrival, delivery);
        job.lane = self.lane(source, &job.delivery);
        let job = self.lanes.enter(job);
        job.expect("the lane was free just now, and nothing has started since")
    }

    /// Whether nothing of a delivery's key is at work.
    fn is_free(&self, source: usize, delivery: &Delivery) -> bool {
        let free = |lane| self.lanes.is_free(lane);
        self.lanes.is_empty() || self.lane(source, delivery).is_none_or(free)
    }
}

/// A job for a delivery, in no lane yet.
pub(super) fn new_job(source: usize, arrival: u64, delivery: Delivery) -> Job {
    Job::new(Task {
        source,
        arrival,
        lane: None,
        claim: None,
        later: None,
        attempt: delivery.attempt(),
        failed_at: None,
        trial: Trial::None,
        checked: false,
        delivery,
    })
}

/// Starts a handler and polls it once. A panic is a failure like any other.
fn call_once(
    handler: &dyn ErasedHandler,
    delivery: &Delivery,
    call: &Arc<CallInfo>,
    context: &mut Context<'_>,
) -> Called {
    let mut started = match handler.call(delivery, call) {
        Ok(started) => started,
        Err(failure) => return Called::Returned(Err(failure), None),
    };
    let poll = AssertUnwindSafe(|| started.future.as_mut().poll(context));
    match catch_unwind(poll) {
        Ok(Poll::Ready(handled)) => Called::Returned(handled, started.later),
        Ok(Poll::Pending) => Called::Waiting(started, call.deadline),
        Err(panic) => Called::Returned(Err(Failure::from_panic(&*panic)), started.later),
    }
}
