//! The examples run and print what they say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tests::{DatabaseKind, World, soon};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

/// A built example. The test command builds them all.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --workspace --examples",
        path.display()
    );
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> String {
    let output = soon("the example ends", command.output()).await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn embed_sends_hears_and_reads() {
    let printed = output(example("embed")).await;

    let expected = "alice sent message 1 of the conversation\n\
                    bob hears of a new conversation\n\
                    bob hears alice: Hello, Bob!\n\
                    bob reads 1: Hello, Bob!\n";
    assert_eq!(printed, expected);
}

#[tokio::test]
async fn own_login_talks_without_a_password() {
    let printed = output(example("own_login")).await;

    assert_eq!(
        printed,
        "Ann of Accounts and Sam of Support: Where is my invoice?\n"
    );
}

#[tokio::test]
async fn in_your_app_serves_both_below_one_address() {
    let mut command = example("in_your_app");
    command.arg("--once");

    let printed = output(command).await;

    assert!(printed.contains("GET / -> your own page\n"), "{printed}");
    assert!(
        printed.contains(r#"GET /chat/health -> {"data":{"ok":true"#),
        "{printed}"
    );
}

#[tokio::test]
async fn two_people_chat_over_http() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let server = format!("http://{}", world.address());
    let (mut alice, mut alice_prints) = chat(&server, "alice", "bob");
    let (mut bob, mut bob_prints) = chat(&server, "bob", "alice");

    say(&mut alice, "Hello, Bob!").await;
    assert_eq!(line(&mut bob_prints).await, "1 alice: Hello, Bob!");
    assert_eq!(line(&mut alice_prints).await, "1 alice: Hello, Bob!");

    say(&mut bob, "Hello, Alice!").await;
    assert_eq!(line(&mut alice_prints).await, "2 bob: Hello, Alice!");
    assert_eq!(line(&mut bob_prints).await, "2 bob: Hello, Alice!");

    drop(bob);
    let (_bob, mut bob_prints) = chat(&server, "bob", "alice");
    assert_eq!(line(&mut bob_prints).await, "1 alice: Hello, Bob!");
    assert_eq!(line(&mut bob_prints).await, "2 bob: Hello, Alice!");
}

#[tokio::test]
async fn an_offline_client_sends_what_was_written_while_the_server_was_away() {
    let mut world = World::start(DatabaseKind::Sqlite, &[]).await;
    let server = format!("http://{}", world.address());
    let files = tempfile::tempdir().unwrap();
    let start = |me: &str, other: &str| {
        let file = files.path().join(format!("{me}.db"));
        let mut command = example("offline_client");
        command.args([server.as_str(), me, other]).arg(file);
        spawn(command)
    };
    let (mut alice, mut alice_prints) = start("alice", "bob");
    let (bob, mut bob_prints) = start("bob", "alice");
    say(&mut alice, "Hello, Bob!").await;
    assert_eq!(line(&mut bob_prints).await, "1 alice: Hello, Bob!");
    assert_eq!(line(&mut alice_prints).await, "1 alice: Hello, Bob!");
    assert_eq!(line(&mut alice_prints).await, "read up to 1");
    drop(bob);

    let port = world.address().port().to_string();
    world.home.set("PORT", &port);
    let World { server, home, .. } = world;
    drop(server);
    say(&mut alice, "Are you there?").await;
    assert_eq!(line(&mut alice_prints).await, "waits: Are you there?");
    let _world = World::at(home).await;

    assert_eq!(line(&mut alice_prints).await, "2 alice: Are you there?");
    // Bob's replica has the first message, and fetches the second.
    let (_bob, mut bob_prints) = start("bob", "alice");
    assert_eq!(line(&mut bob_prints).await, "1 alice: Hello, Bob!");
    assert_eq!(line(&mut bob_prints).await, "2 alice: Are you there?");
    assert_eq!(line(&mut alice_prints).await, "read up to 2");
}

// What stands between a client and its server answers, too: none of it may cost a message, or end
// the program.
#[tokio::test]
async fn an_offline_client_survives_whatever_is_answered_in_place_of_the_server() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let [_alice, _bob] = world.register_all(["alice", "bob"]).await;
    let (server, answers) = between(world.address()).await;
    let files = tempfile::tempdir().unwrap();
    let mut command = example("offline_client");
    let file = files.path().join("alice.db");
    command.args([server.as_str(), "alice", "bob"]).arg(file);
    answers.lock().unwrap().extend([
        ("/auth/register", "429 Too Many Requests"),
        ("/auth/login", "401 Unauthorized"),
        ("/auth/login", "404 Not Found"),
        ("/sync/bootstrap", "503 Service Unavailable"),
        ("/sync/bootstrap", "401 Unauthorized"),
        ("/ws", "401 Unauthorized"),
    ]);
    let (mut alice, mut prints) = spawn(command);

    let expired = ("/messages", "401 Unauthorized");
    let in_place: [&[(&str, &str)]; 7] = [
        &[],
        &[("/messages", "408 Request Timeout")],
        &[("/messages", "200 OK")],
        &[("/messages", "403 Forbidden")],
        &[("/messages", "500 Internal Server Error")],
        &[expired],
        &[expired, ("/auth/refresh", "502 Bad Gateway")],
    ];
    for (text, some) in (1..).zip(in_place) {
        answers.lock().unwrap().extend(some);
        say(&mut alice, &text.to_string()).await;
        let printed = format!("{text} alice: {text}");
        loop {
            let line = line(&mut prints).await;
            assert!(!line.starts_with("refused"), "{line}");
            if line == printed {
                break;
            }
        }
        assert_eq!(*answers.lock().unwrap(), []);
    }
}

/// What is answered in place of a server, to whom: the end of a path, and a status.
type Answers = Arc<Mutex<Vec<(&'static str, &'static str)>>>;

/// Stands before a server: gives its address, and what it is to answer by itself, once each, with a
/// page that is not the server's.
async fn between(server: SocketAddr) -> (String, Answers) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answers = Answers::default();
    let given = Arc::clone(&answers);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let mut read = vec![0; 16 << 10];
                let count = client.read(&mut read).await?;
                let request = String::from_utf8_lossy(&read[..count]).into_owned();
                let path = request.split(['?', ' ']).nth(1).unwrap_or_default();
                let found = {
                    let mut answers = answers.lock().unwrap();
                    let found = answers.iter().position(|(it, _)| path.ends_with(it));
                    found.map(|place| answers.remove(place).1)
                };
                if let Some(status) = found {
                    let page = "<html>Welcome to our hotel</html>";
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}", page.len());
                    let answer = format!("{head}\r\nconnection: close\r\n\r\n{page}");
                    return client.write_all(answer.as_bytes()).await;
                }
                // One request a connection, so that each is seen.
                let request = match path.ends_with("/ws") {
                    true => request,
                    false => request.replacen("\r\n", "\r\nconnection: close\r\n", 1),
                };
                let mut server = TcpStream::connect(server).await?;
                server.write_all(request.as_bytes()).await?;
                copy_bidirectional(&mut client, &mut server).await?;
                Ok(())
            });
        }
    });
    (address, given)
}

fn chat(server: &str, me: &str, other: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = example("chat_over_http");
    command.args([server, me, other]);
    spawn(command)
}

fn spawn(mut command: Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let prints = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, prints)
}

async fn say(child: &mut Child, text: &str) {
    let input = child.stdin.as_mut().unwrap();
    input
        .write_all(format!("{text}\n").as_bytes())
        .await
        .unwrap();
}

async fn line(prints: &mut Lines<BufReader<ChildStdout>>) -> String {
    soon("a line", prints.next_line()).await.unwrap().unwrap()
}
