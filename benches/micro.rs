//! Micro-benches of what happens per message, without a socket.
//!
//! Whole transactions are measured by `scripts/bench.sh`; these tell which part of the codec moved.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pooler::protocol::frame::{self, HEADER, Header};
use pooler::protocol::{backend, encode};

/// What one read of a busy server connection can bring.
const READ: usize = 64 * 1024;

/// DataRows of one text column of `width` bytes, as many whole ones as fit in a read.
fn data_rows(width: usize) -> Vec<u8> {
    let mut row = Vec::new();
    encode::message(&mut row, backend::DATA_ROW, |b| {
        b.extend_from_slice(&1u16.to_be_bytes());
        b.extend_from_slice(&u32::try_from(width).unwrap_or(0).to_be_bytes());
        b.resize(b.len() + width, b'x');
    });
    row.repeat(READ / row.len())
}

/// Walks the headers as a relay does; counts messages so that nothing can be left out.
fn scan(mut bytes: &[u8]) -> usize {
    let mut messages = 0;
    while let Some(header) = Header::peek(bytes) {
        let Some(rest) = bytes.get(header.total().max(HEADER)..) else { break };
        messages += 1;
        bytes = rest;
    }
    messages
}

fn header_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("header_scan");
    for width in [16, 100, 1024] {
        let rows = data_rows(width);
        group.throughput(Throughput::Bytes(rows.len() as u64));
        group.bench_function(format!("64 KB of {width} byte rows"), |b| b.iter(|| scan(black_box(&rows))));
    }
    group.finish();
}

fn strings(c: &mut Criterion) {
    let body = b"statement_name\0SELECT abalance FROM pgbench_accounts WHERE aid = $1\0\0\0";
    c.bench_function("split_cstr of a Parse", |b| {
        b.iter(|| {
            let (name, rest) = frame::split_cstr(black_box(body))?;
            let (text, _) = frame::split_cstr(rest)?;
            Some(name.len() + text.len())
        });
    });
}

fn encoding(c: &mut Criterion) {
    c.bench_function("encode ReadyForQuery into a kept buffer", |b| {
        b.iter_batched_ref(
            || Vec::with_capacity(64),
            |out| encode::ready_for_query(out, black_box(b'I')),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, header_scan, strings, encoding);
criterion_main!(benches);
