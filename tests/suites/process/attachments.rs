//! What a file of any length takes from the memory of the server, on its way up and down.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tests::{PATIENCE, Person, on_both_databases, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;

/// Files at a time, as many as one person may send.
const AT_ONCE: usize = 4;

/// Sooner than a connection is cut on which nothing moves.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// How long each file is, in MiB: the first `ATTACHMENT_MIB`, for soaks 2,048; the others less.
fn lengths_mib() -> [usize; AT_ONCE] {
    let given = std::env::var("ATTACHMENT_MIB").ok();
    let longest = given.map_or(256, |text| text.parse().unwrap());
    let others = (longest / 16).max(1);
    [longest, others, others, others]
}

async fn ask(address: SocketAddr, person: &Person, line: &str, more: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let token = &person.access_token;
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

/// Reads the head of an answer, which must be this status.
async fn head(stream: &mut BufReader<TcpStream>, status: &str) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{line}");
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
}

/// Sends a file, with its length before it or in chunks that have theirs. Returns its id and its sum.
async fn send(
    address: SocketAddr,
    person: &Person,
    number: usize,
    mib: usize,
) -> (String, Vec<u8>) {
    let is_chunked = number % 2 == 1;
    let length = match is_chunked {
        true => "Transfer-Encoding: chunked\r\n".to_owned(),
        false => format!("Content-Length: {}\r\n", mib * MIB),
    };
    let line = "POST /v1/attachments?name=film.mp4";
    let mut stream = ask(address, person, line, &length).await;
    let (mut chunk, mut hash) = (vec![7; MIB], Sha256::new());
    for n in 0..mib {
        chunk[..8].copy_from_slice(&(n * AT_ONCE + number).to_be_bytes());
        hash.update(&chunk);
        if is_chunked {
            stream.write_all(b"100000\r\n").await.unwrap();
        }
        stream.write_all(&chunk).await.unwrap();
        if is_chunked {
            stream.write_all(b"\r\n").await.unwrap();
        }
    }
    if is_chunked {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    head(&mut stream, "201").await;
    let mut body = vec![0; 4_096];
    let length = stream.read(&mut body).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body[..length]).unwrap();
    assert_eq!(body["data"]["size"], mib * MIB);
    let id = body["data"]["id"].as_str().unwrap().to_owned();
    (id, hash.finalize().to_vec())
}

/// Asks for a file, of which the head of the answer has come.
async fn begin(address: SocketAddr, person: &Person, id: &str) -> BufReader<TcpStream> {
    let line = format!("GET /v1/attachments/{id}/content");
    let mut stream = ask(address, person, &line, "").await;
    head(&mut stream, "200").await;
    stream
}

/// Reads a part of a file that is to come.
async fn read(stream: &mut BufReader<TcpStream>, mib: usize, hash: &mut Sha256) {
    let mut chunk = vec![0; MIB];
    for _ in 0..mib {
        stream.read_exact(&mut chunk).await.unwrap();
        hash.update(&chunk);
    }
}

on_both_databases!(
    #[with(ATTACHMENT_BYTES_MAX = "4294967296")]
    async fn files_of_any_length_take_little_memory(world: World) {
        let (alice, lengths) = (world.register("alice").await, lengths_mib());
        alice.get("/v1/users/me").await.data(200);
        let address = world.address();
        let server = &world.server;

        server.forget_memory_peak();
        let before = server.memory_peak_mib();
        let up = lengths.iter().enumerate();
        let up = up.map(|(number, mib)| send(address, &alice, number, *mib));
        let up = futures_util::future::join_all(up);
        let sent = within(60 * PATIENCE, "the files to be stored", up).await;
        let up = server.memory_peak_mib() - before;

        // One of the readers takes a little now and then until all others have theirs.
        server.forget_memory_peak();
        let before = server.memory_peak_mib();
        let files: Vec<_> = sent.iter().zip(lengths).collect();
        let (((slow_id, slow_known), length), others) = files.split_last().unwrap();
        let down = async {
            let mut slow = begin(address, &alice, slow_id).await;
            let (mut left, mut slow_sum) = (*length, Sha256::new());
            let others = others.iter().map(async |((id, sum), mib)| {
                let (mut stream, mut hash) = (begin(address, &alice, id).await, Sha256::new());
                read(&mut stream, *mib, &mut hash).await;
                assert!(hash.finalize().to_vec() == *sum, "another file came");
            });
            let mut others = pin!(futures_util::future::join_all(others));
            while tokio::time::timeout(NOW_AND_THEN, &mut others)
                .await
                .is_err()
            {
                let some = usize::from(left > 0);
                read(&mut slow, some, &mut slow_sum).await;
                left -= some;
            }
            let peak = server.memory_peak_mib();
            read(&mut slow, left, &mut slow_sum).await;
            let slow_sum = slow_sum.finalize().to_vec();
            assert!(slow_sum == *slow_known, "another file came");
            peak
        };
        let peak = within(60 * PATIENCE, "the files to come", down).await;
        let down = peak.max(server.memory_peak_mib()) - before;

        assert!(up <= 32 && down <= 32, "{up} MiB up and {down} MiB down");
    }
);
