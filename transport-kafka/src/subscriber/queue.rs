//! What the client has read ahead, read by the batch call of the C client.
//!
//! The wrapper takes records one by one, each as an event with locks, clocks and an allocation of
//! its own; the batch call takes hundreds under one. This is the only module of the workspace
//! that calls C by itself, which is what makes it `unsafe`. What it rests on, of librdkafka 2.12:
//!
//! - A record of `rd_kafka_consume_batch_queue` is the caller's until
//!   `rd_kafka_message_destroy`, which is to be called once, before the client is destroyed.
//!   A [`Queue`] owns those it took, and the client.
//! - Key, value and headers of a record live as long as the record. A [`Record`] borrows the
//!   queue, which destroys a record no earlier than the next one is asked for.
//! - What comes to the queue of a partition goes where that is forwarded to, in its order, what it
//!   held before first; one that the program has forwarded the client does not forward by itself. It
//!   holds records and errors of that partition alone. Rebalances, which the batch call would
//!   swallow, are in the client's main queue.
//! - Records of an assignment that has ended are not returned by the batch call.
//! - A queue calls its callback under its lock, and takes that lock to remove it: once it is
//!   removed it does not run, and its argument may go.
#![allow(
    unsafe_code,
    reason = "half the cost of a record; each block says why it is sound"
)]

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_header_get_all, rd_kafka_headers_t,
    rd_kafka_message_destroy, rd_kafka_message_headers, rd_kafka_message_t,
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_forward,
    rd_kafka_queue_get_partition, rd_kafka_queue_new, rd_kafka_queue_t, rd_kafka_t,
    rd_kafka_topic_name,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use super::context::Events;
use super::shared::Shared;

/// How many records one call takes. Their memory is the client's, beside what it reads ahead.
pub(super) const BATCH: usize = 500;

/// The records that the client has read ahead, of all partitions whose [`Tap`] is open.
///
/// One for all of them, because the client asks a broker for all partitions at once that have room,
/// and waits for the answer: with room for each by itself it would ask for those alone that have
/// nothing new, and let the others wait with them.
pub(super) struct Queue {
    native: NonNull<rd_kafka_queue_t>,
    /// Taken out of the client's queue, in reverse: the next one is the last.
    taken: Vec<NonNull<rd_kafka_message_t>>,
    /// Handed out, and borrowed from this queue as long as anybody has it.
    current: Option<NonNull<rd_kafka_message_t>>,
    /// The argument of the callback. Aliased by C: reached through shared references alone.
    signal: Arc<Signal>,
    /// Keeps the client until the records and the queue are given back.
    consumer: Arc<BaseConsumer<Events>>,
}

/// What the client's thread does when the queue is no longer empty.
struct Signal {
    filled: AtomicBool,
    shared: Arc<Shared>,
}

impl Queue {
    /// A queue without partitions.
    pub(super) fn new(consumer: &Arc<BaseConsumer<Events>>, shared: &Arc<Shared>) -> Self {
        // SAFETY: the client lives as long as `consumer`. The queue counts as a reference, given
        // back in `drop`.
        let native = unsafe { rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = Self {
            native: NonNull::new(native).expect("the client aborts where it has no memory"),
            taken: Vec::with_capacity(BATCH),
            current: None,
            signal: Arc::new(Signal {
                filled: AtomicBool::new(true),
                shared: Arc::clone(shared),
            }),
            consumer: Arc::clone(consumer),
        };
        let signal = Arc::as_ptr(&queue.signal).cast::<c_void>().cast_mut();
        // SAFETY: the queue is one of a living client. The callback's argument lives until `drop`,
        // which removes the callback first.
        unsafe { rd_kafka_queue_cb_event_enable(native, Some(filled), signal) };
        queue
    }

    /// Has the records of a partition come here. `None` if there is no such partition.
    ///
    /// What is left of an earlier ownership of it is thrown away. There must be no other tap of the
    /// partition: it would close this one when it is dropped.
    pub(super) fn tap(&mut self, topic: &str, partition: i32) -> Option<Tap> {
        self.taken.retain(|message| {
            // SAFETY: one that was taken is a living record, until it is given back, below.
            let is_left = unsafe { is_of(*message, topic, partition) };
            if is_left {
                // SAFETY: it leaves `taken`, so that nobody gives it back a second time.
                unsafe { rd_kafka_message_destroy(message.as_ptr()) };
            }
            !is_left
        });
        let name = CString::new(topic).ok()?;
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client lives as long as `consumer`, and `name` ends with a zero. The queue
        // that is returned counts as a reference, given back when the tap is dropped.
        let native = unsafe { rd_kafka_queue_get_partition(client, name.as_ptr(), partition) };
        let mut tap = Tap {
            native: NonNull::new(native)?,
            is_open: false,
            _consumer: Arc::clone(&self.consumer),
        };
        self.open(&mut tap);
        Some(tap)
    }

    /// Has the records of a partition come here, those that it has kept first.
    ///
    /// The client closes a partition's way by itself, at some time after it was told that the
    /// partition is not read any more. Opening what is open does no harm.
    pub(super) fn open(&self, tap: &mut Tap) {
        tap.is_open = true;
        // SAFETY: two queues of one living client, as both keep it.
        unsafe { rd_kafka_queue_forward(tap.native.as_ptr(), self.native.as_ptr()) };
    }

    /// The next record, if there is one. Gives back the one before.
    pub(super) fn next(&mut self) -> Option<Record<'_>> {
        self.give_back();
        if self.taken.is_empty() {
            self.take();
        }
        self.current = self.taken.pop();
        self.current.map(|message| Record {
            message,
            owner: PhantomData,
        })
    }

    /// Looks for records also if the client did not say that there are any.
    pub(super) fn look_again(&self) {
        self.signal.filled.store(true, Ordering::Release);
    }

    /// Whether there is something of a partition that was taken out of the client's queue, which
    /// counts as consumed for the client, and that was not handed out.
    pub(super) fn has_taken(&self, topic: &str, partition: i32) -> bool {
        // SAFETY: what was taken is a living record until it is given back.
        let is_of = |message: &NonNull<_>| unsafe { is_of(*message, topic, partition) };
        self.taken.iter().any(is_of)
    }

    /// Takes records out of the client's queue, without waiting for any.
    fn take(&mut self) {
        // Before the call: what comes during it is told again.
        if !self.signal.filled.swap(false, Ordering::AcqRel) {
            return;
        }
        let room = self.taken.as_mut_ptr().cast::<*mut rd_kafka_message_t>();
        // SAFETY: `taken` is empty and has a capacity of at least `BATCH`, so that there is room
        // for as many pointers, which `NonNull` has the layout of. The queue is one of a living
        // client.
        let count = unsafe { rd_kafka_consume_batch_queue(self.native.as_ptr(), 0, room, BATCH) };
        let count = usize::try_from(count).unwrap_or(0).min(BATCH);
        // SAFETY: so many pointers were written, none of them null, each to a record that is
        // ours to give back.
        unsafe { self.taken.set_len(count) };
        self.taken.reverse();
        if count == BATCH {
            self.look_again();
        }
    }

    fn give_back(&mut self) {
        if let Some(message) = self.current.take() {
            // SAFETY: it came from `taken`, which it left, and leaves `current` here: nobody
            // gives it back a second time. What was handed out borrowed this queue, which is
            // borrowed mutably now, so nothing refers to it any more.
            unsafe { rd_kafka_message_destroy(message.as_ptr()) };
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        while self.current.is_some() || !self.taken.is_empty() {
            self.give_back();
            self.current = self.taken.pop();
        }
        // SAFETY: the reference of `new`, given back once. The client lives: `consumer` is
        // dropped after this. The callback is removed before `signal` is dropped.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.native.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.native.as_ptr());
        }
    }
}

/// The way of a partition's records into a [`Queue`]. Closed, the client keeps them for the
/// partition, as many as it reads ahead; what has come before goes on.
pub(super) struct Tap {
    native: NonNull<rd_kafka_queue_t>,
    is_open: bool,
    /// Keeps the client until the partition's queue is given back.
    _consumer: Arc<BaseConsumer<Events>>,
}

impl Tap {
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
        // SAFETY: a queue of a living client, which keeps its records.
        unsafe { rd_kafka_queue_forward(self.native.as_ptr(), ptr::null_mut()) };
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close();
        // SAFETY: the reference of `Queue::tap`, given back once. The client lives: `_consumer` is
        // dropped after this.
        unsafe { rd_kafka_queue_destroy(self.native.as_ptr()) };
    }
}

/// Whether a record is of a partition.
///
/// # Safety
///
/// The record was not given back.
unsafe fn is_of(message: NonNull<rd_kafka_message_t>, topic: &str, partition: i32) -> bool {
    let record = Record {
        message,
        owner: PhantomData,
    };
    record.partition() == partition && record.is_of_topic(topic)
}

/// Called by a thread of the client, which holds the queue's lock.
unsafe extern "C" fn filled(_: *mut rd_kafka_t, signal: *mut c_void) {
    // SAFETY: the argument is that of `Queue::new`, which lives until the callback is removed.
    // Both fields are made to be used by several threads.
    let signal = unsafe { &*signal.cast::<Signal>() };
    signal.filled.store(true, Ordering::Release);
    signal.shared.wake_thread();
}

/// The client's handle of a topic, and a partition of it.
pub(super) type Place = (usize, i32);

/// A record, or an error in its place, for as long as its owner keeps it.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    message: NonNull<rd_kafka_message_t>,
    owner: PhantomData<&'a rd_kafka_message_t>,
}

impl<'a> Record<'a> {
    /// The record of the wrapper's message.
    pub(super) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let message = NonNull::new(message.ptr());
        Self {
            message: message.expect("a message that was received is there"),
            owner: PhantomData,
        }
    }

    pub(super) fn partition(self) -> i32 {
        self.fields().partition
    }

    /// A partition, told from those of all other records that are there.
    pub(super) fn place(self) -> Place {
        (self.fields().rkt as usize, self.fields().partition)
    }

    pub(super) fn is_of_no_topic(self) -> bool {
        self.fields().rkt.is_null()
    }

    pub(super) fn is_of_topic(self, topic: &str) -> bool {
        if self.is_of_no_topic() {
            return false;
        }
        // SAFETY: the topic of a living record lives, with its name, which ends with a zero.
        let name = unsafe { CStr::from_ptr(rd_kafka_topic_name(self.fields().rkt)) };
        name.to_bytes() == topic.as_bytes()
    }

    pub(super) fn offset(self) -> i64 {
        self.fields().offset
    }

    /// What stands in place of a record.
    pub(super) fn error(self) -> Option<RDKafkaErrorCode> {
        match self.fields().err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            code => Some(code.into()),
        }
    }

    pub(super) fn key(self) -> Option<&'a [u8]> {
        let fields = self.fields();
        // SAFETY: the client's key, as long as the record, which nobody changes.
        unsafe { bytes(fields.key, fields.key_len) }
    }

    pub(super) fn value(self) -> Option<&'a [u8]> {
        let fields = self.fields();
        // SAFETY: the client's value, as long as the record, which nobody changes.
        unsafe { bytes(fields.payload, fields.len) }
    }

    /// The headers.
    ///
    /// # Errors
    ///
    /// If the client can't read them.
    pub(super) fn headers(self) -> Result<Headers<'a>, RDKafkaErrorCode> {
        let mut headers = ptr::null_mut();
        // SAFETY: a living record that is no error, which its owner's thread alone reads: the
        // client parses the headers now and keeps them as long as the record.
        let found = unsafe { rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers) };
        match found {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(Headers {
                list: NonNull::new(headers),
                index: 0,
                owner: PhantomData,
            }),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOENT => Ok(Headers {
                list: None,
                index: 0,
                owner: PhantomData,
            }),
            code => Err(code.into()),
        }
    }

    fn fields(self) -> &'a rd_kafka_message_t {
        // SAFETY: the record lives as long as its owner keeps it, which is `'a`, and nobody
        // changes these fields meanwhile.
        unsafe { self.message.as_ref() }
    }
}

/// The headers of a record: name, and value unless it is null.
pub(super) struct Headers<'a> {
    list: Option<NonNull<rd_kafka_headers_t>>,
    index: usize,
    owner: PhantomData<&'a rd_kafka_message_t>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a CStr, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.list?.as_ptr();
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list is that of a living record. An index past its end is answered with an
        // error.
        let found = unsafe {
            rd_kafka_header_get_all(
                list,
                self.index,
                &raw mut name,
                &raw mut value,
                &raw mut length,
            )
        };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.index += 1;
        // SAFETY: the client ends names with a zero, and keeps name and value as long as the
        // record.
        unsafe { Some((CStr::from_ptr(name), bytes(value, length))) }
    }
}

/// Bytes of the client.
///
/// # Safety
///
/// A pointer that is not null points to `length` bytes that live and do not change for `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    Some(unsafe { slice::from_raw_parts(start.cast::<u8>(), length) })
}
