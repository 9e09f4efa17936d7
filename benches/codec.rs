//! The HTTP/1 codec alone: reading, stripping and writing what a plain proxied request and its response need.
//!
//! `cargo bench --bench codec` gives times. For instructions, which do not depend on the machine's mood, run the built
//! bench under callgrind with `--rounds 2000` and with `--rounds 10000`, and divide the difference by 8,000.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pillion::proxy::http::head::{RequestHead, ResponseHead};
use pillion::proxy::http1::codec::{
    BodyDecoder, CHUNK_END, Framing, LAST_CHUNK, Limits, Parsed, Persistence, encode_chunk_head,
    encode_request, encode_response, parse_request, parse_response, request_framing,
    response_framing, strip_hop_by_hop,
};

/// As a browser sends it: 8 fields, 416 bytes.
const BROWSER_REQUEST: &[u8] = b"GET /api/v1/products/12345?currency=EUR HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Connection: keep-alive\r\n\
    X-Request-Id: 0af7651916cd43dd8448eb211c80319c\r\n\
    Cookie: session=abcdef0123456789; theme=dark\r\n\r\n";

/// As a load generator sends it.
const LEAN_REQUEST: &[u8] = b"GET /small HTTP/1.1\r\n\
    Host: 127.0.0.1:15001\r\n\
    User-Agent: h2load nghttp2/1.52.0\r\n\
    Accept: */*\r\n\r\n";

/// 8 fields.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.22.1\r\n\
    Date: Mon, 01 Jan 2029 00:00:00 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 13\r\n\
    Connection: keep-alive\r\n\
    ETag: \"5f5b1a1c-d\"\r\n\
    Cache-Control: no-cache, private\r\n\
    X-Frame-Options: SAMEORIGIN\r\n\r\n";

const BODY: &[u8] = b"Hello, world\n";

/// What a connection keeps between requests.
#[derive(Default)]
struct Connection {
    limits: Limits,
    request: RequestHead,
    response: ResponseHead,
    out: Vec<u8>,
}

impl Connection {
    fn read_request(&mut self, bytes: &[u8]) -> Framing {
        let parsed = parse_request(black_box(bytes), &self.limits, &mut self.request);
        assert_eq!(parsed, Ok(Parsed::Complete(bytes.len())));
        request_framing(&self.request).expect("the request is well-formed")
    }

    fn forward_request(&mut self, bytes: &[u8]) {
        let framing = self.read_request(bytes);
        let fields = &mut self.request.fields;
        black_box(strip_hop_by_hop(fields)).expect("nothing protected is named");
        fields.append_to_list(b"X-Forwarded-For", b"10.0.0.7");
        self.out.clear();
        encode_request(&self.request, &framing, &mut self.out);
        black_box(&self.out);
    }

    fn forward_response(&mut self, bytes: &[u8]) {
        let parsed = parse_response(black_box(bytes), &self.limits, &mut self.response);
        assert_eq!(parsed, Ok(Parsed::Complete(bytes.len())));
        let framing = response_framing(&self.response, &self.request.method)
            .expect("the response is well-formed");
        black_box(strip_hop_by_hop(&mut self.response.fields)).expect("nothing protected is named");
        let piece = BodyDecoder::new(framing).decode(black_box(BODY));
        assert!(piece.is_ok_and(|piece| piece.end));
        self.out.clear();
        encode_response(
            &self.response,
            &framing,
            Persistence::KeepAlive,
            &mut self.out,
        );
        black_box(&self.out);
    }
}

/// 64 KiB in chunks of this size.
fn chunked_body(chunk_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..65_536 / chunk_bytes {
        encode_chunk_head(chunk_bytes, &mut bytes);
        bytes.resize(bytes.len() + chunk_bytes, b'a');
        bytes.extend_from_slice(CHUNK_END);
    }
    bytes.extend_from_slice(LAST_CHUNK);
    bytes
}

fn read_chunked(bytes: &[u8]) -> usize {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut rest, mut body_bytes) = (bytes, 0);
    while !decoder.is_end() {
        let piece = decoder.decode(rest).expect("the chunks are well-formed");
        body_bytes += piece.data.len();
        rest = &rest[piece.consumed..];
    }
    body_bytes
}

fn bench(criterion: &mut Criterion) {
    let mut connection = Connection::default();
    let mut group = criterion.benchmark_group("codec");
    group.bench_function("read_request_lean", |bencher| {
        bencher.iter(|| connection.read_request(LEAN_REQUEST));
    });
    group.bench_function("read_request_browser", |bencher| {
        bencher.iter(|| connection.read_request(BROWSER_REQUEST));
    });
    group.bench_function("forward_request_lean", |bencher| {
        bencher.iter(|| connection.forward_request(LEAN_REQUEST));
    });
    group.bench_function("forward_request_browser", |bencher| {
        bencher.iter(|| connection.forward_request(BROWSER_REQUEST));
    });
    group.bench_function("forward_response", |bencher| {
        bencher.iter(|| connection.forward_response(RESPONSE));
    });
    for chunk_bytes in [64, 8192] {
        let bytes = chunked_body(chunk_bytes);
        group.throughput(Throughput::Bytes(65_536));
        group.bench_function(format!("read_64k_in_chunks_of_{chunk_bytes}"), |bencher| {
            bencher.iter(|| assert_eq!(read_chunked(black_box(&bytes)), 65_536));
        });
    }
    group.finish();
}

/// Without criterion, so that callgrind sees nothing else.
fn run_rounds(rounds: u64) {
    let mut connection = Connection::default();
    for _ in 0..rounds {
        connection.forward_request(BROWSER_REQUEST);
        connection.forward_response(RESPONSE);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, rounds, ..] = arguments.as_slice()
        && flag == "--rounds"
    {
        return run_rounds(rounds.parse().expect("--rounds takes a number"));
    }
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
