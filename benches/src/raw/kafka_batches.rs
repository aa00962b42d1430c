//! The batch call of the C client, which rdkafka does not offer: the fastest way to read.
#![allow(unsafe_code, reason = "there is no safe way to this call")]

use std::ffi::CStr;
use std::ptr::null_mut;
use std::slice;
use std::time::Instant;

use polybus::BoxError;
use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_header_get_all, rd_kafka_message_destroy,
    rd_kafka_message_headers, rd_kafka_message_t, rd_kafka_queue_destroy,
    rd_kafka_queue_get_consumer,
};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::kafka_consumer::{COMMIT_EVERY, PATIENCE, consumer};
use crate::consume::Measured;
use crate::measure::{Stopwatch, Stretch};

/// How many records a call returns at most.
const BATCH: usize = 500;

/// Reads so many records, from partitions that are assigned by hand: no rebalance can come. Since the
/// first of them.
pub fn batches(
    brokers: &str,
    topic: &str,
    group: &str,
    partitions: i32,
    events: usize,
) -> Result<Stretch, BoxError> {
    let consumer = consumer(brokers, group)?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        assigned.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    let mut next = vec![0; usize::try_from(partitions)?];
    let commit = |next: &[i64], mode| -> Result<(), BoxError> {
        let mut positions = TopicPartitionList::new();
        for (partition, next) in (0..).zip(next) {
            positions.add_partition_offset(topic, partition, Offset::Offset(*next))?;
        }
        Ok(consumer.commit(&positions, mode)?)
    };
    // SAFETY: the client lives until the end of this function, longer than the queue.
    let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut records: [*mut rd_kafka_message_t; BATCH] = [null_mut(); BATCH];
    let (mut found, mut bytes, mut watch) = (0, 0, None);
    let (mut committed, mut last) = (Instant::now(), Instant::now());
    while found < events && last.elapsed() < PATIENCE {
        // SAFETY: `records` has room for as many as are asked for.
        let count =
            unsafe { rd_kafka_consume_batch_queue(queue, 100, records.as_mut_ptr(), BATCH) };
        for record in &records[..usize::try_from(count)?] {
            // SAFETY: the call has filled in so many records, which are ours to destroy.
            unsafe {
                bytes += read(&**record, &mut next)?;
                rd_kafka_message_destroy(*record);
            }
        }
        if count > 0 {
            watch.get_or_insert_with(Stopwatch::start);
            last = Instant::now();
        }
        found += usize::try_from(count)?;
        if committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            commit(&next, CommitMode::Async)?;
        }
    }
    let stretch = watch.ok_or("no record came")?.stop();
    // SAFETY: taken above, and not used after this.
    unsafe { rd_kafka_queue_destroy(queue) };
    commit(&next, CommitMode::Sync)?;
    if bytes == 0 {
        return Err("the records are empty".into());
    }
    Ok(stretch)
}

/// Reads headers, key and payload, as `kafka_consumer::read` does, and the payload as its type.
///
/// # Safety
///
/// The record is one that the client has returned and that was not destroyed.
unsafe fn read(record: &rd_kafka_message_t, next: &mut [i64]) -> Result<usize, BoxError> {
    if record.err as i32 != 0 {
        return Err(format!("a record is an error: {:?}", record.err).into());
    }
    next[usize::try_from(record.partition)?] = record.offset + 1;
    // SAFETY: the client gives the length with each pointer, and keeps both until the record is
    // destroyed; a header's name ends with a zero.
    unsafe {
        let payload = bytes(record.payload, record.len);
        let measured: Measured = serde_json::from_slice(payload)?;
        let mut size = measured.text_bytes() + text(record.key, record.key_len)?;
        let mut headers = null_mut();
        if rd_kafka_message_headers(record, &raw mut headers) as i32 != 0 {
            return Ok(size);
        }
        let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
        let mut index = 0;
        while rd_kafka_header_get_all(
            headers,
            index,
            &raw mut name,
            &raw mut value,
            &raw mut length,
        ) as i32
            == 0
        {
            size += CStr::from_ptr(name).to_str()?.len() + text(value, length)?;
            index += 1;
        }
        Ok(size)
    }
}

/// # Safety
///
/// Null, or so many bytes that live as long as the record.
unsafe fn bytes<'a>(pointer: *const std::ffi::c_void, length: usize) -> &'a [u8] {
    if pointer.is_null() {
        return &[];
    }
    // SAFETY: as above.
    unsafe { slice::from_raw_parts(pointer.cast(), length) }
}

/// # Safety
///
/// As [`bytes()`].
unsafe fn text(pointer: *const std::ffi::c_void, length: usize) -> Result<usize, BoxError> {
    // SAFETY: as above.
    let bytes = unsafe { bytes(pointer, length) };
    Ok(std::str::from_utf8(bytes)?.len())
}
