//! What a file of any length takes from the memory of the server, on its way up and down.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use tests::{PATIENCE, Person, on_both_databases, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;

/// How long the file is, in MiB: `ATTACHMENT_MIB`, for soaks 2,048.
fn length_mib() -> usize {
    let given = std::env::var("ATTACHMENT_MIB").ok();
    given.map_or(256, |text| text.parse().unwrap())
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

on_both_databases!(
    #[with(ATTACHMENT_BYTES_MAX = "4294967296")]
    async fn a_file_of_any_length_takes_little_memory(world: World) {
        let (alice, mib) = (world.register("alice").await, length_mib());
        alice.get("/v1/users/me").await.data(200);
        let before = world.server.memory_peak_mib();

        let up = async {
            let line = "POST /v1/attachments?name=film.mp4";
            let length = format!("Content-Length: {}\r\n", mib * MIB);
            let mut stream = ask(world.address(), &alice, line, &length).await;
            let (mut chunk, mut hash) = (vec![7; MIB], Sha256::new());
            for n in 0..mib {
                chunk[..8].copy_from_slice(&n.to_be_bytes());
                hash.update(&chunk);
                stream.write_all(&chunk).await.unwrap();
            }
            head(&mut stream, "201").await;
            let mut body = vec![0; 4_096];
            let length = stream.read(&mut body).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body[..length]).unwrap();
            assert_eq!(body["data"]["size"], mib * MIB);
            let id = body["data"]["id"].as_str().unwrap().to_owned();
            (id, hash.finalize())
        };
        let (id, sent) = within(60 * PATIENCE, "the file to be stored", up).await;
        let after_up = world.server.memory_peak_mib();

        let down = async {
            let line = format!("GET /v1/attachments/{id}/content");
            let mut stream = ask(world.address(), &alice, &line, "").await;
            head(&mut stream, "200").await;
            let (mut chunk, mut hash) = (vec![0; MIB], Sha256::new());
            for _ in 0..mib {
                stream.read_exact(&mut chunk).await.unwrap();
                hash.update(&chunk);
            }
            hash.finalize()
        };
        let came = within(60 * PATIENCE, "the file to come", down).await;
        let after_down = world.server.memory_peak_mib();

        assert!(came == sent, "another file came");
        let (up, down) = (after_up - before, after_down - before);
        assert!(up < 64 && down < 64, "{up} MiB up and {down} MiB down");
    }
);
