//! A future that is dropped in the middle leaves everything or nothing, and healthy pools.
//!
//! Each call is polled 0, 1, 2, … times and then dropped, until it completes by itself. Between
//! two polls the test waits for the future's own wake-up, so every place where it can be dropped
//! is reached.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use messenger_core::auth::{NewAccount, Password};
use messenger_core::conversations::{HistoryPolicy, NewGroup, Role, SettingsChange, Title};
use messenger_core::users::Username;
use messenger_core::{ClientWriteId, Error, Result, Seq};
use tests::DatabaseKind;

use crate::message_changes::{body, reaction};
use crate::world::{Person, World, assert_contiguous, host_user, message_as, on_both_databases};

/// Polls a future `times` times, each time after it has asked for it, and drops it. Returns
/// what it completed with, if it did.
pub(crate) async fn poll_then_drop<T>(
    mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>,
    times: usize,
) -> Option<T> {
    let mut polls = 0;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if polls == times {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Drops a call at every poll. Returns how many polls it took to complete.
async fn sweep<'a, T>(
    world: &World,
    call: impl Fn(usize) -> BoxFuture<'a, Result<T>>,
    mut check: impl AsyncFnMut(usize, bool),
) {
    for times in 0.. {
        assert!(times < 200, "the call does not complete");
        let completed = poll_then_drop(call(times), times).await;
        let completed = completed.map(|outcome| outcome.map(|_| ()));
        let done = matches!(completed, Some(Ok(())));
        assert!(
            !matches!(completed, Some(Err(_))),
            "{:?}",
            completed.unwrap().unwrap_err()
        );
        check(times, done).await;
        pools_are_healthy(world).await;
        if done {
            return;
        }
    }
}

/// Every connection can be used at once, and none is inside of a transaction.
async fn pools_are_healthy(world: &World) {
    let reads = (0..8).map(|_| world.engine.health());
    for health in futures_util::future::join_all(reads).await {
        health.unwrap();
    }
    if world.place.kind() == DatabaseKind::Postgres {
        crate::world::eventually("no connection is left in a transaction", async || {
            world.place.idle_in_transaction().await == 0
        })
        .await;
    }
}

on_both_databases!(
    async fn sending_stores_and_announces_or_neither(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut bobs = bob.subscribe().await;
        let id = |times: usize| format!("client-id-{times}");

        let send = |times| -> BoxFuture<'_, _> {
            let message = message_as(&id(times), "all or nothing");
            let alice = alice.clone();
            Box::pin(async move { alice.try_send(conversation.id, message).await })
        };
        sweep(&world, send, async |times, _| {
            // A repeat under the same id finds the message, or stores it.
            let again = message_as(&id(times), "all or nothing");
            alice.try_send(conversation.id, again).await.unwrap();
        })
        .await;

        let history = alice.history(conversation.id).await;
        assert_contiguous(&history);
        for message in &history {
            assert_eq!(crate::world::next_message(&mut bobs).await, *message);
        }
    }

    async fn changing_a_message_happens_whole_or_not(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut sent = Vec::new();
        for n in 0..60 {
            sent.push(alice.send(conversation.id, &format!("message {n}")).await);
        }
        let at = |times: usize| (conversation.id, sent[times].id);
        let key = |what: &str, times: usize| ClientWriteId::parse(&format!("{what}-{times}"));

        let react = |times: usize| -> BoxFuture<'_, _> {
            let ((conversation, message), bob) = (at(times), bob.clone());
            Box::pin(async move {
                let messages = bob.engine.messages().once(key("reaction", times)?);
                let reaction = reaction("👍");
                messages
                    .react(&bob.actor, conversation, message, reaction)
                    .await
            })
        };
        sweep(&world, react, async |times, _| {
            // The write may still be on its way after its caller has gone; this one waits for it.
            let message = react(times).await.unwrap().message;
            assert_eq!(message.reactions[0].count, 1);
            assert!(message.reactions[0].mine);
        })
        .await;
        let unreact = |times: usize| -> BoxFuture<'_, _> {
            let (message, bob) = (sent[times].clone(), bob.clone());
            Box::pin(async move { bob.unreact(&message, "👍").await })
        };
        sweep(&world, unreact, async |times, _| {
            let message = unreact(times).await.unwrap();
            assert_eq!(message.reactions, []);
        })
        .await;
        let edit = |times: usize| -> BoxFuture<'_, _> {
            let ((conversation, message), alice) = (at(times), alice.clone());
            Box::pin(async move {
                let messages = alice.engine.messages().once(key("edition", times)?);
                let body = body("all or nothing");
                messages
                    .edit(&alice.actor, conversation, message, body)
                    .await
            })
        };
        sweep(&world, edit, async |times, _| {
            let message = edit(times).await.unwrap().message;
            assert_eq!(message.content, "all or nothing");
            assert!(message.edited_at.is_some());
        })
        .await;
        let delete = |times: usize| -> BoxFuture<'_, _> {
            let ((conversation, message), alice) = (at(times), alice.clone());
            Box::pin(async move {
                let messages = alice.engine.messages().once(key("deletion", times)?);
                messages.delete(&alice.actor, conversation, message).await
            })
        };
        // The sweeps have not ended at the same message.
        for message in &sent {
            bob.unreact(message, "👍").await.unwrap();
        }
        bob.react(&sent[0], "👍").await.unwrap();
        sweep(&world, delete, async |times, _| {
            let message = delete(times).await.unwrap().message;
            assert!(message.content.is_empty() && message.deleted_at.is_some());
        })
        .await;
        assert_eq!(world.place.count("reactions").await, 0);
    }

    async fn opening_a_conversation_makes_it_with_both_members_or_not(world: World) {
        let alice = world.person("alice").await;
        let mut others: Vec<Person> = Vec::new();
        for n in 0..60 {
            others.push(world.person(&format!("other-{n}")).await);
        }
        let open = |times: usize| -> BoxFuture<'_, _> {
            let (alice, other) = (alice.clone(), others[times].user.id);
            Box::pin(async move {
                alice
                    .engine
                    .conversations()
                    .open_direct(&alice.actor, other)
                    .await
            })
        };
        sweep(&world, open, async |times, _| {
            let mine = world
                .engine
                .conversations()
                .list(&others[times].actor)
                .await
                .unwrap();
            assert!(
                mine.iter()
                    .all(|conversation| conversation.members.len() == 2)
            );
            let opened = alice.open_direct(&others[times]).await;
            let mine = world
                .engine
                .conversations()
                .list(&others[times].actor)
                .await
                .unwrap();
            assert_eq!(mine, [opened]);
        })
        .await;
    }

    async fn creating_a_group_makes_it_whole_or_not(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let write = |times: usize| ClientWriteId::parse(&format!("the-group-{times}")).unwrap();
        let new = NewGroup {
            title: Title::parse("Hikers", world.engine.limits()).unwrap(),
            members: vec![bob.user.id],
            history: HistoryPolicy::All,
        };
        let create = |times: usize| -> BoxFuture<'_, _> {
            let (alice, new) = (alice.clone(), new.clone());
            Box::pin(async move {
                let conversations = alice.engine.conversations().once(write(times));
                conversations.create_group(&alice.actor, new).await
            })
        };
        sweep(&world, create, async |times, _| {
            // A repeat under the same id finds the group, or makes it.
            let again = create(times).await.unwrap();
            let theirs = world.engine.conversations().list(&bob.actor).await.unwrap();
            assert_eq!(theirs.len(), times + 1);
            assert!(theirs.iter().all(|group| group.members.len() == 2));
            assert!(theirs.iter().any(|group| group.id == again.id));
        })
        .await;
    }

    async fn what_changes_a_group_happens_whole_or_not(world: World) {
        let (alice, bob) = (world.person("alice").await, world.person("bob").await);
        let carol = world.person("carol").await;
        let group = alice.create_group(&[&bob]).await;
        for _ in 0..80 {
            alice.send(group, "hello").await;
        }
        let counted = async |_, _| {
            let wrong = "SELECT count(*) FROM conversations c WHERE member_count <> (SELECT \
                         count(*) FROM members m WHERE m.conversation_id = c.id AND m.state = 1)";
            assert_eq!(world.place.number(wrong).await, 0);
        };
        let call = |call: BoxFuture<'static, Result<()>>| call;
        sweep(
            &world,
            |times| {
                let alice = alice.clone();
                let title = format!("Hikers {times}");
                call(Box::pin(async move {
                    alice.rename(group, &title).await.map(drop)
                }))
            },
            counted,
        )
        .await;
        sweep(
            &world,
            |times| {
                let (alice, carol) = (alice.clone(), carol.clone());
                call(Box::pin(async move {
                    if times % 2 == 0 {
                        alice.add(group, &[&carol]).await.map(drop)
                    } else {
                        match alice.remove(group, &carol).await {
                            Err(Error::MemberNotFound) => Ok(()),
                            outcome => outcome.map(drop),
                        }
                    }
                }))
            },
            counted,
        )
        .await;
        sweep(
            &world,
            |times| {
                let (alice, bob) = (alice.clone(), bob.clone());
                let role = [Role::Admin, Role::Owner][times % 2];
                call(Box::pin(async move {
                    alice.set_role(group, &bob, role).await.map(drop)
                }))
            },
            counted,
        )
        .await;
        sweep(
            &world,
            |times| {
                let bob = bob.clone();
                let seq = Seq::new(times as i64).unwrap();
                call(Box::pin(async move {
                    bob.mark_delivered(group, seq).await?;
                    bob.mark_read(group, seq).await.map(|_| ())
                }))
            },
            counted,
        )
        .await;
        sweep(
            &world,
            |times| {
                let bob = bob.clone();
                let change = SettingsChange {
                    pinned: Some(times % 2 == 0),
                    ..SettingsChange::default()
                };
                call(Box::pin(async move {
                    bob.change_settings(group, change).await.map(drop)
                }))
            },
            counted,
        )
        .await;
        sweep(
            &world,
            |_| {
                let alice = alice.clone();
                call(Box::pin(async move {
                    match alice.delete(group).await {
                        // The one before was dropped, and took place.
                        Err(Error::ConversationNotFound) => Ok(()),
                        outcome => outcome.map(drop),
                    }
                }))
            },
            counted,
        )
        .await;
        assert_eq!(
            world.engine.conversations().list(&bob.actor).await.unwrap(),
            []
        );
    }

    async fn registering_makes_the_account_with_a_session_or_not(world: World) {
        let account = |times: usize| NewAccount {
            username: Username::parse(&format!("alice-{times}")).unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let register = |times| -> BoxFuture<'_, _> {
            let engine = world.engine.clone();
            Box::pin(async move { engine.auth().register(account(times)).await })
        };
        sweep(&world, register, async |times, done| {
            let name = format!("alice-{times}");
            let logged_in = world
                .engine
                .auth()
                .log_in(&name, "correct horse", None)
                .await;
            if done {
                logged_in.unwrap();
            } else if logged_in.is_err() {
                // Nothing was left: the name is still free.
                world.engine.auth().register(account(times)).await.ok();
                world
                    .engine
                    .auth()
                    .log_in(&name, "correct horse", None)
                    .await
                    .unwrap();
            }
        })
        .await;
    }

    async fn refreshing_logging_in_and_out_leave_a_session_that_is_whole(world: World) {
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        world.engine.auth().register(account).await.unwrap();
        let mut tokens = Vec::new();
        for _ in 0..60 {
            let login = world
                .engine
                .auth()
                .log_in("alice", "correct horse", None)
                .await
                .unwrap();
            tokens.push(login.tokens);
        }

        let refresh = |times: usize| -> BoxFuture<'_, _> {
            let (engine, token) = (world.engine.clone(), tokens[times].refresh_token.clone());
            Box::pin(async move { engine.auth().refresh(&token).await })
        };
        sweep(&world, refresh, async |_, _| {}).await;
        let log_in = |_| -> BoxFuture<'_, _> {
            let engine = world.engine.clone();
            Box::pin(async move { engine.auth().log_in("alice", "correct horse", None).await })
        };
        sweep(&world, log_in, async |_, _| {}).await;
        let log_out = |times: usize| -> BoxFuture<'_, _> {
            let (engine, token) = (
                world.engine.clone(),
                tokens[40 + times].refresh_token.clone(),
            );
            Box::pin(async move { engine.auth().log_out(&token).await })
        };
        sweep(&world, log_out, async |times, done| {
            let works = world
                .engine
                .auth()
                .verify(&tokens[40 + times].access_token)
                .await;
            assert!(!done || works.is_err());
        })
        .await;
    }

    async fn ending_sessions_and_changing_the_password_happen_whole(world: World) {
        let account = NewAccount {
            username: Username::parse("alice").unwrap(),
            display_name: None,
            password: Password::parse("password-0").unwrap(),
            device: None,
        };
        let login = world.engine.auth().register(account).await.unwrap();
        let actor = world
            .engine
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();
        let password = std::sync::Mutex::new("password-0".to_owned());

        let change = |times: usize| -> BoxFuture<'_, _> {
            let (engine, actor) = (world.engine.clone(), actor.clone());
            let old = password.lock().unwrap().clone();
            let new = Password::parse(&format!("password-{}", times + 1)).unwrap();
            Box::pin(async move { engine.auth().change_password(&actor, &old, new).await })
        };
        sweep(&world, change, async |times, done| {
            let (old, new) = (
                password.lock().unwrap().clone(),
                format!("password-{}", times + 1),
            );
            // The operation may still be on its way after its caller has gone.
            let auth = world.engine.auth();
            let before = auth.log_in("alice", &old, None).await.is_ok();
            let after = auth.log_in("alice", &new, None).await.is_ok();
            assert!(before || after, "no password works");
            assert!(!done || after);
            if after {
                *password.lock().unwrap() = new;
            }
        })
        .await;

        let revoke = |_| -> BoxFuture<'_, _> {
            let (engine, actor) = (world.engine.clone(), actor.clone());
            Box::pin(async move { engine.auth().log_out_all(&actor).await })
        };
        sweep(&world, revoke, async |_, _| {}).await;
        assert!(
            world
                .engine
                .auth()
                .sessions(&actor)
                .await
                .unwrap()
                .is_empty()
        );
    }

    async fn reading_leaves_the_pools_healthy(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "hello").await;
        let membership = world
            .engine
            .conversations()
            .membership(&bob.actor, conversation.id)
            .await
            .unwrap();
        let account = NewAccount {
            username: Username::parse("carol").unwrap(),
            display_name: None,
            password: Password::parse("correct horse").unwrap(),
            device: None,
        };
        let login = world.engine.auth().register(account).await.unwrap();
        let carol = world
            .engine
            .auth()
            .verify(&login.tokens.access_token)
            .await
            .unwrap();

        let (engine, after) = (&world.engine, BTreeMap::new());
        let nothing = async |_, _| {};
        sweep(
            &world,
            |_| Box::pin(async { engine.sync().bootstrap(&bob.actor).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.sync().changes_after(&bob.actor, &after).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.conversations().list(&bob.actor).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| {
                Box::pin(async {
                    engine
                        .conversations()
                        .membership(&bob.actor, conversation.id)
                        .await
                })
            },
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| {
                Box::pin(async {
                    engine
                        .conversations()
                        .get(&bob.actor, conversation.id)
                        .await
                })
            },
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.conversations().members(&membership, None, 500).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.messages().page(&membership, Seq::ZERO, 100).await }),
            nothing,
        )
        .await;
        let reacted = bob.react(&sent, "👍").await.unwrap();
        sweep(
            &world,
            |_| Box::pin(async { engine.messages().page(&membership, Seq::ZERO, 100).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.messages().message(&membership, reacted.id).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.users().me(&bob.actor).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.users().search(&bob.actor, "a", 50).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.users().batch(&bob.actor, &[alice.user.id]).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |times| {
                Box::pin(async move {
                    engine
                        .users()
                        .ensure(host_user(&format!("dave-{times}")))
                        .await
                })
            },
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.auth().sessions(&carol).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.auth().verify(&login.tokens.access_token).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.events().subscribe(&bob.actor).await }),
            nothing,
        )
        .await;
        sweep(
            &world,
            |_| Box::pin(async { engine.health().await }),
            nothing,
        )
        .await;
    }

    async fn a_subscription_that_is_dropped_while_it_catches_up_leaves_the_pools_healthy(
        world: World,
    ) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for times in 0..20 {
            let mut bobs = bob.subscribe().await;
            for n in 0..100 {
                alice.send(conversation.id, &n.to_string()).await;
            }
            let read = async { crate::world::next(&mut bobs).await };
            poll_then_drop(Box::pin(read), times).await;
            drop(bobs);
            pools_are_healthy(&world).await;
        }
    }
);

/// A future that nobody ever polls again must not be needed by anybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_never_polled_again_holds_nobody_up() {
    let world = World::new(DatabaseKind::Sqlite).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    let mut forgotten = Vec::new();
    for n in 0..100 {
        let alice = alice.clone();
        let mut send: BoxFuture<'_, _> = Box::pin(async move {
            alice
                .try_send(
                    conversation.id,
                    message_as(&format!("forgotten-{n}"), "hello"),
                )
                .await
        });
        assert!(
            send.as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        forgotten.push(send);
    }

    let sent = alice.send(conversation.id, "not forgotten").await;

    assert_eq!(sent.seq.get(), 101);
    drop(forgotten);
}
