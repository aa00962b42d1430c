//! Handlers: plain async functions whose arguments are extractors.

mod acknowledge;
mod batch;
mod classify;
mod extract;
mod set;
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

pub use acknowledge::Acknowledge;
pub(crate) use acknowledge::Later;
pub use batch::{Batch, BatchCall, BatchHandler, Entry, FromBatch, IntoVerdicts};
pub(crate) use batch::{StartedBatch, all_failed};
pub use classify::{Classifiers, ErrorClass, Retryable};
pub use extract::{Call, CallInfo, Context, FromDelivery, FromRef, Payload, RawEvent, State};
pub use set::{HandlerSet, HandlerSetBuilder};
pub(crate) use set::{LastFound, Registered};
pub use verdict::{Failure, FailureKind, Handled, IntoVerdict, Permanent, Verdict};

use crate::Result;
use crate::event::{SchemasOf, TypeInfo};
use crate::transport::Delivery;

/// An async function that handles events.
///
/// Implemented for functions and closures of up to eight arguments, each an extractor
/// ([`Payload`], [`State`], [`Context`], [`Headers`](crate::transport::Headers), [`RawEvent`],
/// [`Acknowledge`], or one's own [`FromDelivery`]), that return something which
/// [turns into a verdict](IntoVerdict): `()`, a [`Verdict`], or a `Result` of these.
///
/// ```
/// use polybus_core::handler::{Context, RawEvent, Verdict};
///
/// async fn record(RawEvent(event): RawEvent, context: Context) -> Verdict {
///     println!("{} from {}, attempt {}", event.event_type(), context.topic(), context.attempt());
///     Verdict::Ack
/// }
/// # fn check<A, H: polybus_core::handler::Handler<A, ()>>(_: H) {}
/// # check(record);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event handler",
    label = "not an event handler",
    note = "a handler is an `async fn`, and each argument must be an extractor: Payload<T>, State<T>, Context, Headers, RawEvent",
    note = "it returns `()`, a `Verdict`, or a `Result` of these",
    note = "`State<T>` needs `.state(..)` before the handler"
)]
pub trait Handler<Args, S>: Send + Sync + 'static {
    /// The event types that the arguments take: those of its `Payload<T>`, none without one.
    const TYPES: &'static [TypeInfo];

    /// Whether an argument takes part in a transaction, which makes the subscription
    /// [exactly-once](crate::config::SubscriptionConfig::exactly_once).
    const TRANSACTIONAL: bool = false;

    /// Where the schemas of the data of its event types are found.
    const SCHEMAS: SchemasOf;

    /// Extracts the arguments and starts the function.
    ///
    /// # Errors
    ///
    /// The first extractor's that fails. It is [permanent](Failure::is_permanent), as trying
    /// again would fail again.
    fn call(&self, call: &Call<'_, S>) -> Result<BoxFuture<'static, Handled>>;
}

macro_rules! impl_handler {
    ($($argument:ident),*) => {
        impl<F, Fut, S, $($argument,)*> Handler<($($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: IntoVerdict> + Send + 'static,
            $($argument: FromDelivery<S>,)*
        {
            const TYPES: &'static [TypeInfo] = first_types(&[$($argument::TYPES),*]);
            const TRANSACTIONAL: bool = false $(|| $argument::TRANSACTIONAL)*;

            const SCHEMAS: SchemasOf = first_schemas(&[$(($argument::TYPES, $argument::SCHEMAS)),*]);

            #[allow(unused_variables, reason = "a handler without arguments extracts nothing")]
            fn call(&self, call: &Call<'_, S>) -> Result<BoxFuture<'static, Handled>> {
                Ok(self($($argument::from_delivery(call)?),*).map(IntoVerdict::into_verdict).boxed())
            }
        }
    };
}

impl_handler!();
impl_handler!(A);
impl_handler!(A, B);
impl_handler!(A, B, C);
impl_handler!(A, B, C, D);
impl_handler!(A, B, C, D, E);
impl_handler!(A, B, C, D, E, G);
impl_handler!(A, B, C, D, E, G, H);
impl_handler!(A, B, C, D, E, G, H, I);

/// The event types of the first argument that has any.
const fn first_types(arguments: &[&'static [TypeInfo]]) -> &'static [TypeInfo] {
    let mut index = 0;
    while index < arguments.len() {
        if !arguments[index].is_empty() {
            return arguments[index];
        }
        index += 1;
    }
    &[]
}

/// The schemas of the same argument.
const fn first_schemas(arguments: &[(&'static [TypeInfo], SchemasOf)]) -> SchemasOf {
    let mut index = 0;
    while index < arguments.len() {
        if !arguments[index].0.is_empty() {
            return arguments[index].1;
        }
        index += 1;
    }
    SchemasOf::NONE
}

/// A handler that was started.
pub(crate) struct Started {
    pub(crate) future: BoxFuture<'static, Handled>,
    /// What is said after it has returned, if it took an [`Acknowledge`].
    pub(crate) later: Option<Later>,
}

/// A handler with its state, of any type.
pub(crate) trait ErasedHandler: Send + Sync {
    /// Starts the handler. A panic while it starts is a failure like any other.
    fn call(&self, delivery: &Delivery, info: &Arc<CallInfo>) -> Result<Started, Failure>;
}

struct WithState<H, S, Args> {
    handler: H,
    state: S,
    arguments: std::marker::PhantomData<fn(Args)>,
}

impl<H, S, Args> ErasedHandler for WithState<H, S, Args>
where
    H: Handler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    fn call(&self, delivery: &Delivery, info: &Arc<CallInfo>) -> Result<Started, Failure> {
        let call = Call::new(delivery, info, &self.state);
        let start = || {
            // Data that a handler takes as a type is checked where it is read as that.
            if let (Some(validation), []) = (&info.validation, H::TYPES) {
                validation.admit(call.event()?)?;
            }
            self.handler.call(&call)
        };
        let future = catch_unwind(AssertUnwindSafe(start))
            .map_err(|panic| Failure::from_panic(&*panic))?
            .map_err(Failure::refused)?;
        Ok(Started {
            future,
            later: call.later.into_inner(),
        })
    }
}

pub(crate) fn erase<H, S, Args>(handler: H, state: S) -> Box<dyn ErasedHandler>
where
    H: Handler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    Box::new(WithState {
        handler,
        state,
        arguments: std::marker::PhantomData,
    })
}
