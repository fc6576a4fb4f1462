//! What somebody takes along: all that their account has, and nothing of others.

use futures_util::StreamExt;
use messenger_core::Error;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::messages::{Metadata, Reaction};
use messenger_core::users::Username;
use serde_json::Value;
use tests::soon;

use crate::world::{Person, message, on_both_databases};

/// The lines of an export.
async fn export(person: &Person) -> Vec<Value> {
    let mut lines = person.engine.users().export(&person.actor).unwrap();
    let mut all = Vec::new();
    while let Some(line) = soon("a line", lines.next()).await {
        all.push(serde_json::from_str(&line.unwrap()).unwrap());
    }
    all
}

fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

on_both_databases!(
    async fn an_export_has_all_of_ones_own_and_nothing_of_others(world: World) {
        let (alice, bob, direct) = world.alice_and_bob().await;
        let left = bob.create_group(&[&alice]).await;
        alice.keep("theme", Some("{\"dark\":true}")).await.unwrap();
        alice.block(&bob).await.unwrap();
        alice.unblock(&bob).await.unwrap();
        let carol = world.person("carol").await;
        alice.block(&carol).await.unwrap();
        let of_bob = bob.send(direct.id, "private to bob").await;
        alice.send(direct.id, "one").await;
        alice.send(left, "two").await;
        let reaction = Reaction::parse("👍", world.engine.limits()).unwrap();
        let messages = world.engine.messages();
        let reacted = messages.react(&alice.actor, direct.id, of_bob.id, reaction);
        reacted.await.unwrap();
        alice.leave(left).await.unwrap();
        bob.rename(left, "secret").await.unwrap();

        let lines = export(&alice).await;

        let profile = of(&lines, "profile");
        assert_eq!(profile.len(), 1);
        assert_eq!(profile[0], &lines[0]);
        assert_eq!(profile[0]["username"], "alice");
        assert_eq!(of(&lines, "pref")[0]["value"]["dark"], true);
        let blocks = of(&lines, "block");
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0]["user_id"], carol.user.id.to_string());
        let mut states: Vec<_> = of(&lines, "conversation")
            .iter()
            .map(|line| line["membership"]["state"].as_str().unwrap())
            .collect();
        states.sort_unstable();
        assert_eq!(states, ["joined", "left"]);
        let mut texts: Vec<_> = of(&lines, "message")
            .iter()
            .map(|line| line["content"].as_str().unwrap())
            .collect();
        texts.sort_unstable();
        assert_eq!(texts, ["one", "two"]);
        let reactions = of(&lines, "reaction");
        assert_eq!(reactions.len(), 1);
        assert_eq!(reactions[0]["message_id"], of_bob.id.to_string());
        let all = serde_json::to_string(&lines).unwrap();
        assert!(!all.contains("private") && !all.contains("secret"), "{all}");
    }

    async fn an_export_has_json_as_it_was_written(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        let long = "1.2345678901234567890123456789";
        alice.keep("deep", Some(&deep)).await.unwrap();
        alice.keep("long", Some(long)).await.unwrap();
        alice.keep("lines", Some("[1,\n\"a b\"]")).await.unwrap();
        let facts = format!(r#"{{"z":{long},"a":[]}}"#);
        let mut sent = message("hello");
        sent.metadata = Some(Metadata::parse(&facts, world.engine.limits()).unwrap());
        alice.try_send(conversation.id, sent).await.unwrap();

        let mut lines = world.engine.users().export(&alice.actor).unwrap();
        let mut all = Vec::new();
        while let Some(line) = soon("a line", lines.next()).await {
            all.push(line.unwrap());
        }

        let pref = |key: &str, value: &str| {
            let line = format!(r#"{{"type":"pref","key":"{key}","value":{value}}}"#);
            assert!(all.contains(&line), "{all:?}");
        };
        pref("deep", &deep);
        pref("long", long);
        pref("lines", r#"[1,"a b"]"#);
        let facts = format!(r#""metadata":{facts}}}"#);
        assert!(all.iter().any(|line| line.ends_with(&facts)), "{all:?}");
    }

    async fn an_export_goes_through_conversations_of_any_length(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for n in 0..450 {
            let person = if n % 3 == 0 { &bob } else { &alice };
            person.send(conversation.id, &n.to_string()).await;
        }

        let lines = export(&alice).await;

        let seqs = of(&lines, "message");
        let seqs = seqs.iter().map(|line| line["seq"].as_i64().unwrap());
        let expected = (1..=450).filter(|seq| (seq - 1) % 3 != 0);
        assert!(seqs.eq(expected));
    }

    async fn an_export_that_nobody_reads_any_more_ends(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        for n in 0..100 {
            alice.send(conversation.id, &n.to_string()).await;
        }
        let mut lines = world.engine.users().export(&alice.actor).unwrap();
        soon("a line", lines.next()).await.unwrap().unwrap();

        drop(lines);

        // Closing waits for every task.
        soon("the engine is closed", world.engine.close()).await;
    }

    async fn an_export_ends_with_the_session_that_it_was_asked_with(world: World) {
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse battery staple").unwrap(),
            device: None,
        };
        let auth = world.engine.auth();
        let login = auth.register(account).await.unwrap();
        let actor = auth.verify(&login.tokens.access_token).await.unwrap();
        let users = world.engine.users();
        let mut lines = users.export(&actor).unwrap();
        soon("a line", lines.next()).await.unwrap().unwrap();

        auth.log_out_all(&actor).await.unwrap();

        let end = soon("an end", lines.next()).await.unwrap();
        assert!(matches!(end, Err(Error::InvalidToken)), "{end:?}");
        assert!(soon("an end", lines.next()).await.is_none());
    }

    async fn an_export_of_nobody_and_one_of_a_closed_engine_say_so(world: World) {
        let alice = world.person("alice").await;
        let nobody = world.engine.trust(uuid::Uuid::now_v7().into());
        let mut lines = world.engine.users().export(&nobody).unwrap();
        let refused = soon("an end", lines.next()).await.unwrap();
        assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
        assert!(soon("an end", lines.next()).await.is_none());

        world.engine.close().await;
        let mut lines = world.engine.users().export(&alice.actor).unwrap();
        while let Some(line) = soon("an end", lines.next()).await {
            assert!(line.is_err(), "{line:?}");
        }
    }
);
