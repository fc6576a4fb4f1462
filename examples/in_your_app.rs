//! The messenger's routes inside of a poem application of one's own, below `/chat`.
//!
//! `cargo run -p messenger-server --example in_your_app`, and look at what it prints. It serves
//! until Ctrl-C; `-- --once` makes it call itself once and end.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use messenger_core::MessengerEngine;
use messenger_server::Settings;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{EndpointExt, Route, Server, get, handler};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[handler]
fn home() -> &'static str {
    "your own page"
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("chat.db");
    let engine = MessengerEngine::builder(format!("sqlite://{}", file.display()))
        .open()
        .await?;
    let messenger = messenger_server::app(engine.clone(), &Settings::default());
    let app = Route::new()
        .at("/", get(home))
        .nest("/chat", messenger.boxed());

    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await?;
    let address = acceptor.local_addr()[0].as_socket_addr().copied();
    let address = address.ok_or_else(|| anyhow::anyhow!("no address"))?;
    println!("your page:      http://{address}/");
    println!("the messenger:  http://{address}/chat/health");
    println!("its reference:  http://{address}/chat/docs");

    let stop = async {
        if std::env::args().any(|argument| argument == "--once") {
            for path in ["/", "/chat/health"] {
                match get_text(address, path).await {
                    Ok(text) => println!("GET {path} -> {text}"),
                    Err(error) => println!("GET {path} failed: {error}"),
                }
            }
        } else if let Err(error) = tokio::signal::ctrl_c().await {
            println!("no signals here: {error}");
        }
    };
    Server::new_with_acceptor(acceptor)
        .run_with_graceful_shutdown(app, stop, None)
        .await?;
    engine.close().await;
    Ok(())
}

/// The body of an answer.
async fn get_text(address: std::net::SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}
