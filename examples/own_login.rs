//! A messenger in a program that has users and a log-in of its own: no passwords here.
//!
//! `cargo run -p messenger-core --example own_login`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use messenger_core::auth::Actor;
use messenger_core::messages::{ClientMessageId, MessageBody, NewMessage};
use messenger_core::users::{DisplayName, HostUser, Username};
use messenger_core::{MessengerEngine, UserId};
use uuid::Uuid;

/// Somebody as the host knows them.
struct Customer {
    id: Uuid,
    login: &'static str,
    name: &'static str,
}

/// The one place where the host's log-in becomes the messenger's: call it after you have verified
/// who is calling. It may be called at every log-in.
async fn enter(engine: &MessengerEngine, customer: &Customer) -> anyhow::Result<Actor> {
    let id = UserId::from(customer.id);
    let user = HostUser {
        id,
        username: Username::parse(customer.login)?,
        display_name: DisplayName::parse(customer.name)?,
    };
    engine.users().ensure(user).await?;
    Ok(engine.trust(id))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("chat.db");
    let engine = MessengerEngine::builder(format!("sqlite://{}", file.display()))
        .open()
        .await?;
    let ann = Customer {
        id: Uuid::now_v7(),
        login: "ann",
        name: "Ann of Accounts",
    };
    let sam = Customer {
        id: Uuid::now_v7(),
        login: "sam",
        name: "Sam of Support",
    };

    let anns = enter(&engine, &ann).await?;
    let sams = enter(&engine, &sam).await?;
    enter(&engine, &ann).await?; // Again, at her next log-in: nothing changes.

    let conversation = engine
        .conversations()
        .open_direct(&anns, sam.id.into())
        .await?;
    let question = NewMessage::new(
        ClientMessageId::parse(&Uuid::now_v7().to_string())?,
        MessageBody::parse("Where is my invoice?", engine.limits())?,
    );
    engine
        .messages()
        .send(&anns, conversation.id, question)
        .await?;

    for conversation in engine.conversations().list(&sams).await? {
        let names: Vec<&str> = conversation
            .members
            .iter()
            .map(|member| member.user.display_name.as_str())
            .collect();
        let preview = conversation
            .last_message_preview
            .as_deref()
            .unwrap_or("nothing yet");
        println!("{}: {preview}", names.join(" and "));
    }

    engine.close().await;
    Ok(())
}
