//! Handlers that take several events at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::{CallInfo, Context, Failure, FromRef, Handled, IntoVerdict, State, Verdict};
use crate::event::{EventData, SchemasOf, TypeInfo};
use crate::transport::{Delivery, Headers};
use crate::{BoxError, Error, ErrorKind, Event};

/// Several events of a type, for a handler that does better with many at once. In the order in
/// which the transport delivered them; those of one key are in their order.
///
/// What could not be read as a `T` is not among them: it becomes a dead letter by itself.
#[derive(Debug, Clone)]
pub struct Batch<T>(Vec<Entry<T>>);

/// One event of a [`Batch`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry<T> {
    /// The data of the event, read as its content type says.
    pub payload: T,
    /// The event.
    pub event: Event,
    /// The headers beside the event's attributes.
    pub headers: Headers,
    /// Where it came from, and which attempt this is.
    pub context: Context,
}

impl<T> Deref for Batch<T> {
    type Target = [Entry<T>];

    fn deref(&self) -> &[Entry<T>] {
        &self.0
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = Entry<T>;
    type IntoIter = std::vec::IntoIter<Entry<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a Entry<T>;
    type IntoIter = std::slice::Iter<'a, Entry<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One call of a batch handler, which extractors take their values from.
pub struct BatchCall<'a, S> {
    entries: &'a [(&'a Delivery, Arc<CallInfo>)],
    state: &'a S,
    /// What could not be extracted, by index.
    rejected: RefCell<BTreeMap<usize, Error>>,
}

impl<S> BatchCall<'_, S> {
    fn accepted(&self) -> usize {
        self.entries.len() - self.rejected.borrow().len()
    }
}

impl<S> fmt::Debug for BatchCall<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchCall")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// A value that can be an argument of a batch handler: an extractor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor of a batch",
    label = "not an extractor of a batch",
    note = "each argument of a batch handler must be `Batch<T>` or `State<T>`; each entry of the batch has its event, headers and context"
)]
pub trait FromBatch<S>: Sized {
    /// The event types it takes, if it takes only some.
    const TYPES: &'static [TypeInfo] = &[];

    /// Where the schemas of the data of its event types are found. Default: none is known.
    const SCHEMAS: SchemasOf = SchemasOf::NONE;

    /// Takes the value from a call.
    fn from_batch(call: &BatchCall<'_, S>) -> Self;
}

impl<S, T: EventData + DeserializeOwned> FromBatch<S> for Batch<T> {
    const TYPES: &'static [TypeInfo] = T::TYPES;
    const SCHEMAS: SchemasOf = SchemasOf::data::<T>();

    fn from_batch(call: &BatchCall<'_, S>) -> Self {
        let mut entries = Vec::with_capacity(call.entries.len());
        for (index, (delivery, info)) in call.entries.iter().enumerate() {
            match read(delivery, info) {
                Ok((payload, event)) => entries.push(Entry {
                    payload,
                    event,
                    headers: delivery.headers().clone(),
                    context: Context::new(Arc::clone(info), delivery),
                }),
                Err(error) => {
                    call.rejected.borrow_mut().insert(index, error);
                }
            }
        }
        Self(entries)
    }
}

fn read<T: EventData + DeserializeOwned>(
    delivery: &Delivery,
    info: &CallInfo,
) -> crate::Result<(T, Event)> {
    let event = delivery.event().map_err(|undecodable| {
        Error::new(ErrorKind::Decode, undecodable.error().message().to_owned())
    })?;
    let payload = delivery.read_data(|| info.read(event))?;
    Ok((payload, event.clone()))
}

impl<S, T: FromRef<S>> FromBatch<S> for State<T> {
    fn from_batch(call: &BatchCall<'_, S>) -> Self {
        Self(T::from_ref(call.state))
    }
}

/// What a batch handler may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not turn into the verdicts of a batch",
    label = "not the verdicts of a batch",
    note = "return `()` or a `Verdict` for all, a `Vec` with one `Verdict` or `Result` for each entry, or a `Result` of these"
)]
pub trait IntoVerdicts {
    /// What came of each of `count` entries, in their order. Other than `count` of them is a
    /// failure of every entry.
    fn into_verdicts(self, count: usize) -> Vec<Handled>;
}

impl IntoVerdicts for () {
    fn into_verdicts(self, count: usize) -> Vec<Handled> {
        Verdict::Ack.into_verdicts(count)
    }
}

impl IntoVerdicts for Verdict {
    fn into_verdicts(self, count: usize) -> Vec<Handled> {
        (0..count).map(|_| Ok(self.clone())).collect()
    }
}

impl<V: IntoVerdict> IntoVerdicts for Vec<V> {
    fn into_verdicts(self, _: usize) -> Vec<Handled> {
        self.into_iter().map(V::into_verdict).collect()
    }
}

impl<V: IntoVerdicts, E: Into<BoxError>> IntoVerdicts for Result<V, E> {
    fn into_verdicts(self, count: usize) -> Vec<Handled> {
        match self {
            Ok(verdicts) => verdicts.into_verdicts(count),
            Err(error) => all_failed(&Failure::new(error), count),
        }
    }
}

/// One failure for every entry.
pub(crate) fn all_failed(failure: &Failure, count: usize) -> Vec<Handled> {
    (0..count).map(|_| Err(failure.clone())).collect()
}

/// An async function that handles several events at once.
///
/// Implemented for functions and closures of up to four arguments: one [`Batch`], and
/// [`State`]s; and a return value that [turns into verdicts](IntoVerdicts): `()`, a [`Verdict`]
/// for all, a `Vec` with one for each entry in their order, or a `Result` of these.
///
/// ```
/// use polybus_core::handler::{Batch, BatchHandler, Verdict};
/// # use polybus_core::EventData;
///
/// async fn index<T: EventData>(batch: Batch<T>) -> Vec<Verdict> {
///     batch.iter().map(|entry| {
///         println!("{}, attempt {}", entry.event.id(), entry.context.attempt());
///         Verdict::Ack
///     }).collect()
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    label = "not a batch handler",
    note = "a batch handler is an `async fn` whose arguments are one `Batch<T>` and any `State<T>`",
    note = "it returns `()`, a `Verdict`, a `Vec` of one `Verdict` or `Result` for each entry, or a `Result` of these",
    note = "`State<T>` needs `.state(..)` before the handler"
)]
pub trait BatchHandler<Args, S>: Send + Sync + 'static {
    /// The event types that its `Batch<T>` takes.
    const TYPES: &'static [TypeInfo];

    /// How many arguments are a `Batch<T>`.
    const BATCHES: usize;

    /// Where the schemas of the data of its event types are found.
    const SCHEMAS: SchemasOf;

    /// Extracts the arguments and starts the function.
    fn call(&self, call: &BatchCall<'_, S>) -> BoxFuture<'static, Vec<Handled>>;
}

macro_rules! impl_batch_handler {
    ($($argument:ident),*) => {
        impl<F, Fut, S, $($argument,)*> BatchHandler<($($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: IntoVerdicts> + Send + 'static,
            $($argument: FromBatch<S>,)*
        {
            const TYPES: &'static [TypeInfo] = super::first_types(&[$($argument::TYPES),*]);
            const BATCHES: usize = 0 $(+ !$argument::TYPES.is_empty() as usize)*;

            const SCHEMAS: SchemasOf =
                super::first_schemas(&[$(($argument::TYPES, $argument::SCHEMAS)),*]);

            fn call(&self, call: &BatchCall<'_, S>) -> BoxFuture<'static, Vec<Handled>> {
                let started = self($($argument::from_batch(call)),*);
                let count = call.accepted();
                started.map(move |verdicts| verdicts.into_verdicts(count)).boxed()
            }
        }
    };
}

impl_batch_handler!(A);
impl_batch_handler!(A, B);
impl_batch_handler!(A, B, C);
impl_batch_handler!(A, B, C, D);

/// A batch that was started.
pub(crate) struct StartedBatch {
    /// Gives what came of the entries that were not rejected.
    pub(crate) future: BoxFuture<'static, Vec<Handled>>,
    /// What is not the handler's to decide, by index.
    pub(crate) rejected: BTreeMap<usize, Error>,
}

/// A batch handler with its state, of any type.
pub(crate) trait ErasedBatchHandler: Send + Sync {
    /// Starts the handler. A panic while it starts is a failure like any other.
    fn call(&self, entries: &[(&Delivery, Arc<CallInfo>)]) -> Result<StartedBatch, Failure>;
}

struct WithState<H, S, Args> {
    handler: H,
    state: S,
    arguments: std::marker::PhantomData<fn(Args)>,
}

impl<H, S, Args> ErasedBatchHandler for WithState<H, S, Args>
where
    H: BatchHandler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    fn call(&self, entries: &[(&Delivery, Arc<CallInfo>)]) -> Result<StartedBatch, Failure> {
        let call = BatchCall {
            entries,
            state: &self.state,
            rejected: RefCell::default(),
        };
        let future = catch_unwind(AssertUnwindSafe(|| self.handler.call(&call)))
            .map_err(|panic| Failure::from_panic(&*panic))?;
        Ok(StartedBatch {
            future,
            rejected: call.rejected.into_inner(),
        })
    }
}

pub(crate) fn erase<H, S, Args>(handler: H, state: S) -> Box<dyn ErasedBatchHandler>
where
    H: BatchHandler<Args, S>,
    S: Send + Sync + 'static,
    Args: 'static,
{
    Box::new(WithState {
        handler,
        state,
        arguments: std::marker::PhantomData,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_for_all_is_one_for_each() {
        let all = Verdict::Drop.into_verdicts(3);
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|it| matches!(it, Ok(Verdict::Drop))));
        assert_eq!(().into_verdicts(2).len(), 2);
    }

    #[test]
    fn each_entry_has_its_own() {
        let own: Vec<Result<(), BoxError>> = vec![Ok(()), Err("late".into())];
        let own = own.into_verdicts(2);
        assert!(matches!(own[0], Ok(Verdict::Ack)));
        assert!(own[1].is_err());
    }

    #[test]
    fn an_error_is_every_entrys_and_stays_permanent() {
        let failed: Result<(), _> = Err(super::super::Permanent::new("no"));
        for handled in failed.into_verdicts(2) {
            assert!(handled.unwrap_err().is_permanent());
        }
    }
}
