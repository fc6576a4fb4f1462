//! A messenger inside a program: two people, a message, and how it arrives live.
//!
//! `cargo run -p messenger-core --example embed`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use futures_util::StreamExt;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::events::EventKind;
use messenger_core::messages::{ClientMessageId, MessageBody, NewMessage};
use messenger_core::users::Username;
use messenger_core::{MessengerEngine, Seq};
use uuid::Uuid;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("chat.db");
    let engine = MessengerEngine::builder(format!("sqlite://{}", file.display()))
        .open()
        .await?;

    let register = async |name: &str| {
        let account = NewAccount {
            username: Username::parse(name)?,
            display_name: None,
            password: Password::parse("correct horse battery staple")?,
            device: None,
        };
        let login = engine.auth().register(account).await?;
        let actor = engine.auth().verify(&login.tokens.access_token).await?;
        anyhow::Ok((login.user, actor))
    };
    let (_, alice) = register("alice").await?;
    let (bob, bobs_login) = register("bob").await?;

    // Bob listens before anything is sent, so nothing is missed.
    let mut bobs_events = engine.events().subscribe(&bobs_login).await?;

    let conversation = engine.conversations().open_direct(&alice, bob.id).await?;
    let message = NewMessage::new(
        ClientMessageId::parse(&Uuid::now_v7().to_string())?,
        MessageBody::parse("Hello, Bob!", engine.limits())?,
    );
    let sent = engine
        .messages()
        .send(&alice, conversation.id, message)
        .await?;
    println!(
        "alice sent message {} of the conversation",
        sent.message.seq
    );

    while let Some(event) = bobs_events.next().await {
        match &event?.kind {
            EventKind::MessageCreated {
                message, sender, ..
            } => {
                println!("bob hears {}: {}", sender.display_name, message.content);
                break;
            }
            other => println!("bob hears of {}", kind(other)),
        }
    }

    let membership = engine
        .conversations()
        .membership(&bobs_login, conversation.id)
        .await?;
    for message in engine.messages().page(&membership, Seq::ZERO, 50).await? {
        println!("bob reads {}: {}", message.seq, message.content);
    }

    engine.close().await;
    Ok(())
}

fn kind(event: &EventKind) -> &'static str {
    match event {
        EventKind::ConversationCreated { .. } => "a new conversation",
        _ => "something else",
    }
}
