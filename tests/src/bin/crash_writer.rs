//! Sends messages as fast as it can until it is killed.
//!
//! Arguments: a database URL, the id of a user, the ids of conversations, separated by commas.
//! Prints `ready` when it serves, and then a line `<client id> <conversation> <seq>` for each
//! message, after the engine has acknowledged it.

use std::io::Write;

use messenger_core::messages::{ClientMessageId, MessageBody, NewMessage};
use messenger_core::{ConversationId, MessengerEngine, Secret, UserId};
use uuid::Uuid;

/// Senders at a time.
const SENDERS: usize = 16;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, user, conversations] = arguments.as_slice() else {
        return Err("three arguments".into());
    };
    let user: UserId = user.parse()?;
    let conversations: Vec<ConversationId> = conversations
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let engine = MessengerEngine::builder(url)
        .secret(Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU")?)
        .open()
        .await?;
    say("ready")?;

    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (engine, conversations) = (engine.clone(), conversations.clone());
        senders.spawn(async move {
            let actor = engine.trust(user);
            for n in 0.. {
                let conversation = conversations[(sender + n) % conversations.len()];
                let client_id = Uuid::now_v7().to_string();
                let message = NewMessage::new(
                    ClientMessageId::parse(&client_id)?,
                    MessageBody::parse(format!("text of {client_id}"), engine.limits())?,
                );
                let sent = engine
                    .messages()
                    .send(&actor, conversation, message)
                    .await?;
                say(&format!("{client_id} {conversation} {}", sent.message.seq))?;
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

/// One write for a line, so that being killed leaves no half one that could be taken for whole.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}
