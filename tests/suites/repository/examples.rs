//! The examples run and print what they say.

use std::path::PathBuf;
use std::process::Stdio;

use tests::{DatabaseKind, World, soon};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
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
