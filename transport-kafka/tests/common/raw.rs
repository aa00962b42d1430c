//! A record that no client library writes: header names that are not UTF-8 pass through brokers.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Stores one record with a header of any bytes, by the Kafka protocol itself (Produce, version 3).
pub(crate) fn store(broker: &str, topic: &str, header: (&[u8], &[u8]), value: &[u8]) {
    let mut record = vec![0, 0, 0]; // attributes, and both deltas
    varint(&mut record, -1); // no key
    counted(&mut record, value);
    varint(&mut record, 1);
    counted(&mut record, header.0);
    counted(&mut record, header.1);

    let mut checked = Vec::new();
    checked.extend(0i16.to_be_bytes()); // attributes
    checked.extend(0i32.to_be_bytes()); // last offset delta
    checked.extend(1_700_000_000_000i64.to_be_bytes());
    checked.extend(1_700_000_000_000i64.to_be_bytes());
    checked.extend((-1i64).to_be_bytes()); // producer
    checked.extend((-1i16).to_be_bytes());
    checked.extend((-1i32).to_be_bytes());
    checked.extend(1i32.to_be_bytes()); // records
    counted(&mut checked, &record);

    let mut batch = Vec::new();
    batch.extend(0i64.to_be_bytes()); // base offset
    batch.extend(length(checked.len() + 9));
    batch.extend((-1i32).to_be_bytes()); // leader epoch
    batch.push(2); // magic
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);

    let mut request = Vec::new();
    request.extend([0, 0, 0, 3]); // Produce, version 3
    request.extend(7i32.to_be_bytes()); // correlation
    request.extend((-1i16).to_be_bytes()); // no client id
    request.extend((-1i16).to_be_bytes()); // no transaction
    request.extend((-1i16).to_be_bytes()); // acks=all
    request.extend(10_000i32.to_be_bytes());
    request.extend(1i32.to_be_bytes());
    request.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
    request.extend(topic.as_bytes());
    request.extend(1i32.to_be_bytes());
    request.extend(0i32.to_be_bytes()); // partition
    request.extend(length(batch.len()));
    request.extend(batch);
    send(broker, &request, topic.len());
}

/// Sends a request and checks the error code of the only partition in the answer.
fn send(broker: &str, request: &[u8], topic: usize) {
    let mut stream = TcpStream::connect(broker).unwrap();
    stream.write_all(&length(request.len())).unwrap();
    stream.write_all(request).unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).unwrap();
    // Correlation, number of topics, name, number of partitions, partition, error code.
    let error = 4 + 4 + 2 + topic + 4 + 4;
    assert_eq!(
        answer[error..error + 2],
        [0, 0],
        "the broker refuses the record"
    );
}

fn length(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap().to_be_bytes()
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, i64::try_from(bytes.len()).unwrap());
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, number: i64) {
    let mut zigzag = ((number << 1) ^ (number >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push((zigzag as u8 & 0x7f) | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0x82f6_3b78,
            _ => crc >> 1,
        })
    })
}
