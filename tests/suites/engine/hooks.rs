//! A host decides what may be said and who may belong together.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use messenger_core::conversations::{HistoryPolicy, NewGroup, Title};
use messenger_core::hooks::{Decision, HookSettings, Joins, OnFailure};
use messenger_core::{Error, ErrorKind, Result};

use crate::world::{Person, World, is_not_found, message, message_as, on_both_databases};

/// A world whose engine is opened anew, with hooks.
macro_rules! with_hooks {
    ($world:ident, $builder:ident => $hooked:expr) => {{
        $world.engine.close().await;
        let $builder = $world.place.builder();
        let engine = $hooked.open().await.unwrap();
        World { engine, ..$world }
    }};
}

fn is_refused<T: std::fmt::Debug>(outcome: &Result<T>, why: &str) -> bool {
    matches!(outcome, Err(Error::RefusedByHost(reason)) if reason == why)
}

fn quickly(on_failure: OnFailure) -> HookSettings {
    let mut settings = HookSettings::default();
    settings.wait_max = Duration::from_millis(50);
    settings.on_failure = on_failure;
    settings
}

/// Refuses what says `spam`.
async fn no_spam(text: String) -> messenger_core::hooks::HookResult {
    Ok(match text.contains("spam") {
        true => Decision::Refuse("spam".to_owned()),
        false => Decision::Allow,
    })
}

on_both_databases!(
    async fn a_message_that_the_host_refuses_is_not_stored(world: World) {
        let world = with_hooks!(world, builder => builder.before_send(
            HookSettings::default(),
            |message| no_spam(message.body.as_str().to_owned()),
        ));
        let (alice, bob, conversation) = world.alice_and_bob().await;

        let refused = alice.try_send(conversation.id, message("buy spam")).await;

        assert!(is_refused(&refused, "spam"), "{refused:?}");
        let error = refused.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Forbidden, "refused")
        );
        let sent = alice.send(conversation.id, "hello").await;
        assert_eq!(sent.seq.get(), 1);
        let edited = alice.edit(&sent, "hello spam").await;
        assert!(is_refused(&edited, "spam"), "{edited:?}");
        assert_eq!(bob.history(conversation.id).await, [sent]);
    }

    async fn strangers_and_repeats_are_told_what_they_always_are(world: World) {
        let allows = Arc::new(AtomicBool::new(true));
        let decides = allows.clone();
        let world = with_hooks!(world, builder => builder.before_send(
            HookSettings::default(),
            move |message| {
                assert!(message.edits.is_none());
                let allows = decides.load(Ordering::SeqCst);
                async move {
                    Ok(if allows { Decision::Allow } else { Decision::Refuse("no".to_owned()) })
                }
            },
        ));
        let (alice, _, conversation) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let first = message_as("0195f3a0-7c1e-7cc2-9d3f-0f8d3a1b2c4d", "hello");
        let sent = alice
            .try_send(conversation.id, first.clone())
            .await
            .unwrap();
        allows.store(false, Ordering::SeqCst);

        let again = alice.try_send(conversation.id, first).await.unwrap();
        let stranger = carol.try_send(conversation.id, message("hello")).await;
        let another = alice.try_send(conversation.id, message("hello")).await;

        assert_eq!((again.message, again.created), (sent.message, false));
        assert!(is_not_found(&stranger), "{stranger:?}");
        assert!(is_refused(&another, "no"), "{another:?}");
    }

    async fn people_come_together_only_if_the_host_allows_it(world: World) {
        let allows = Arc::new(AtomicBool::new(true));
        let decides = allows.clone();
        let world = with_hooks!(world, builder => builder.before_join(
            HookSettings::default(),
            move |join| {
                let why = match join.to {
                    Joins::Direct => "direct",
                    Joins::NewGroup { .. } => "new group",
                    Joins::Group(_) => "group",
                    _ => "what?",
                };
                let allows = decides.load(Ordering::SeqCst);
                async move {
                    Ok(if allows { Decision::Allow } else { Decision::Refuse(why.to_owned()) })
                }
            },
        ));
        let (alice, bob, direct) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let group = alice.create_group(&[&bob]).await;
        allows.store(false, Ordering::SeqCst);

        let conversations = world.engine.conversations();
        let opened = conversations.open_direct(&alice.actor, carol.user.id).await;
        assert!(is_refused(&opened, "direct"), "{opened:?}");
        let added = alice.add(group, &[&bob, &carol]).await;
        assert!(is_refused(&added, "group"), "{added:?}");
        let new = NewGroup {
            title: Title::parse("Hikers", world.engine.limits()).unwrap(),
            members: vec![carol.user.id],
            history: HistoryPolicy::All,
        };
        let created = conversations.create_group(&alice.actor, new).await;
        assert!(is_refused(&created, "new group"), "{created:?}");

        // Nothing new comes of these.
        assert_eq!(alice.open_direct(&bob).await.id, direct.id);
        alice.add(group, &[&bob]).await.unwrap();
        assert!(matches!(
            carol.add(group, &[&carol]).await,
            Err(Error::ConversationNotFound)
        ));
        assert_eq!(conversations.list(&carol.actor).await.unwrap().len(), 0);
        assert_eq!(conversations.list(&bob.actor).await.unwrap().len(), 2);
    }

    async fn a_hook_that_fails_refuses_for_now_or_allows(world: World) {
        let asked = Arc::new(AtomicUsize::new(0));
        for on_failure in [OnFailure::Refuse, OnFailure::Allow] {
            world.engine.close().await;
            let count = asked.clone();
            let builder = world.place.builder();
            let engine = builder.before_send(quickly(on_failure), move |message| {
                count.fetch_add(1, Ordering::SeqCst);
                let text = message.body.as_str().to_owned();
                async move {
                    match text.as_str() {
                        "fail" => Err("the filter is down".into()),
                        "panic" => panic!("a bug of the host"),
                        "hang" => pending().await,
                        _ => Ok(Decision::Allow),
                    }
                }
            });
            let engine = engine.open().await.unwrap();
            let alice = Person::join(&engine, &format!("alice{on_failure:?}")).await;
            let bob = Person::join(&engine, &format!("bob{on_failure:?}")).await;
            let conversation = alice.open_direct(&bob).await.id;

            for text in ["fail", "panic", "hang"] {
                let sent = alice.try_send(conversation, message(text)).await;
                match on_failure {
                    OnFailure::Allow => assert!(sent.unwrap().created, "{text}"),
                    OnFailure::Refuse => {
                        let error = sent.unwrap_err();
                        assert!(matches!(error, Error::Undecided(_)), "{text}: {error:?}");
                        assert_eq!(error.kind(), ErrorKind::Busy);
                        assert!(error.retry_after().is_some());
                    }
                }
            }

            let stored = if on_failure == OnFailure::Allow { 3 } else { 0 };
            assert_eq!(alice.history(conversation).await.len(), stored);
            engine.close().await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 6);
    }

    async fn a_hook_ends_with_the_caller_who_waits_for_it(world: World) {
        struct Ended(tokio::sync::mpsc::Sender<()>);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _ = self.0.try_send(());
            }
        }
        let (begun, mut asked) = tokio::sync::mpsc::channel(1);
        let (ended, mut told) = tokio::sync::mpsc::channel(1);
        let mut settings = HookSettings::default();
        settings.wait_max = Duration::from_secs(3_600);
        let world = with_hooks!(world, builder => builder.before_send(settings, move |_| {
            let ended = Ended(ended.clone());
            let _ = begun.try_send(());
            async move {
                pending::<()>().await;
                drop(ended);
                Ok(Decision::Allow)
            }
        }));
        let (alice, _, conversation) = world.alice_and_bob().await;

        let send = alice.try_send(conversation.id, message("hello"));
        tokio::select! {
            answer = send => panic!("it was not asked: {answer:?}"),
            _ = asked.recv() => {}
        }

        assert_eq!(told.recv().await, Some(()));
        assert_eq!(alice.history(conversation.id).await, []);
    }
);
