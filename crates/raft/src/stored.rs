//! The log in an engine: entries cut into pieces, markers, and reading them back with care.

use std::io;

use bytes::{Bytes, BytesMut};

use crate::{
    engine::{Change, Engine, MAX_VALUE},
    record::{RecordError, decode_entry, encode_entry},
    types::{Entry, LogId},
};

/// `l`, the index, the number of the piece: both big-endian, so that keys sort by them.
pub(crate) fn key(index: u64, piece: u16) -> [u8; 11] {
    let mut key = [b'l'; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

pub(crate) fn index_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[1..9].try_into().expect("a log key has eleven bytes"))
}

pub(crate) fn put_entry(changes: &mut Vec<Change>, entry: &Entry) {
    let mut record = encode_entry(entry);
    let mut piece = 0;
    while !record.is_empty() {
        let value = record.split_to(record.len().min(MAX_VALUE));
        changes.push((Bytes::copy_from_slice(&key(entry.log_id.index, piece)), Some(value)));
        piece += 1;
    }
}

pub(crate) fn delete(
    engine: &dyn Engine,
    from: u64,
    to: u64,
    changes: &mut Vec<Change>,
) -> io::Result<()> {
    engine.scan(&key(from, 0), &key(to, 0), &mut |key, _| {
        changes.push((Bytes::copy_from_slice(key), None));
        true
    })
}

pub(crate) fn marker<T>(
    engine: &dyn Engine,
    key: &'static [u8],
    decode: fn(Bytes) -> Result<T, RecordError>,
) -> io::Result<Option<T>> {
    let value = engine.get(key)?.map(decode).transpose();
    value.map_err(|error| {
        corrupt(engine, &format!("marker {}", String::from_utf8_lossy(&key[2..])), &error)
    })
}

pub(crate) fn corrupt(engine: &dyn Engine, what: &str, error: &dyn std::fmt::Display) -> io::Error {
    let text = format!("{what} in {} is corrupt: {error}", engine.path().display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Visits the records of `from..to` in order, put together from their pieces, while `visit` returns true.
pub(crate) fn records(
    engine: &dyn Engine,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, Bytes) -> io::Result<bool>,
) -> io::Result<()> {
    let mut current: Option<(u64, BytesMut)> = None;
    let mut result = Ok(true);
    engine.scan(&key(from, 0), &key(to, 0), &mut |key, value| {
        let index = index_of(key);
        match &mut current {
            Some((same, record)) if *same == index => record.extend_from_slice(value),
            _ => {
                if let Some((index, record)) = current.replace((index, BytesMut::from(value))) {
                    result = visit(index, record.freeze());
                }
            }
        }
        matches!(result, Ok(true))
    })?;
    if let (true, Some((index, record))) = (result?, current) {
        visit(index, record.freeze())?;
    }
    Ok(())
}

pub(crate) fn decode(engine: &dyn Engine, index: u64, record: Bytes) -> io::Result<Entry> {
    let entry = decode_entry(record)
        .map_err(|error| corrupt(engine, &format!("log entry {index}"), &error))?;
    if entry.log_id.index != index {
        return Err(corrupt(
            engine,
            &format!("log entry {index}"),
            &format!("it says it is {}", entry.log_id.index),
        ));
    }
    Ok(entry)
}

pub(crate) fn read(
    engine: &dyn Engine,
    from: u64,
    to: u64,
    max_bytes: usize,
) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    records(engine, from, to, |index, record| {
        bytes += record.len();
        entries.push(decode(engine, index, record)?);
        Ok(bytes < max_bytes)
    })?;
    Ok(entries)
}

/// Reads the whole log: every record must be sound, and none missing. Returns the last.
pub(crate) fn verify_log(engine: &dyn Engine, purged: Option<LogId>) -> io::Result<Option<LogId>> {
    let mut last = None;
    let mut expected = purged.map_or(0, |id| id.index + 1);
    records(engine, 0, u64::MAX, |index, record| {
        if index < expected && last.is_none() {
            // Left of a purge that was interrupted; the next one deletes it.
            return Ok(true);
        }
        if index != expected {
            return Err(corrupt(
                engine,
                "log",
                &format!("entry {expected} is missing, {index} follows"),
            ));
        }
        last = Some(decode(engine, index, record)?.log_id);
        expected = index + 1;
        Ok(true)
    })?;
    Ok(last)
}
