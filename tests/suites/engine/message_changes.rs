//! What is done to a message after it was sent: edited, deleted, reacted to.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::join_all;
use messenger_core::conversations::Membership;
use messenger_core::events::{EventKind, Subscription};
use messenger_core::messages::{
    Between, Message, MessageBody, Metadata, Reaction, ReactionChange, Reactions,
};
use messenger_core::{
    ClientWriteId, ConversationId, Error, Limits, MessageId, MessengerEngine, Result, Seq,
};
use uuid::Uuid;

use crate::world::{Person, World, is_not_found, message, message_as, next, on_both_databases};

impl Person {
    pub(crate) async fn edit(&self, of: &Message, text: &str) -> Result<Message> {
        let messages = self.engine.messages();
        let changed = messages.edit(&self.actor, of.conversation_id, of.id, body(text));
        Ok(changed.await?.message)
    }

    pub(crate) async fn delete_message(&self, of: &Message) -> Result<Message> {
        let messages = self.engine.messages();
        let changed = messages.delete(&self.actor, of.conversation_id, of.id);
        Ok(changed.await?.message)
    }

    pub(crate) async fn react(&self, to: &Message, emoji: &str) -> Result<Message> {
        let messages = self.engine.messages();
        let changed = messages.react(&self.actor, to.conversation_id, to.id, reaction(emoji));
        Ok(changed.await?.message)
    }

    pub(crate) async fn unreact(&self, to: &Message, emoji: &str) -> Result<Message> {
        let messages = self.engine.messages();
        let changed = messages.unreact(&self.actor, to.conversation_id, to.id, reaction(emoji));
        Ok(changed.await?.message)
    }

    async fn membership(&self, conversation: ConversationId) -> Membership {
        let conversations = self.engine.conversations();
        let membership = conversations.membership(&self.actor, conversation).await;
        membership.unwrap()
    }

    /// The message as it is now.
    pub(crate) async fn read(&self, message: &Message) -> Message {
        let membership = self.membership(message.conversation_id).await;
        let messages = self.engine.messages();
        let message = messages.message(&membership, message.id).await;
        message.unwrap().message
    }
}

pub(crate) fn body(text: &str) -> MessageBody {
    MessageBody::parse(text, &Limits::default()).unwrap()
}

pub(crate) fn reaction(emoji: &str) -> Reaction {
    Reaction::parse(emoji, &Limits::default()).unwrap()
}

fn id(text: &str) -> ClientWriteId {
    ClientWriteId::parse(text).unwrap()
}

/// The reactions of a message as a text: `+1 2 mine, heart 1`.
fn told(message: &Message) -> String {
    let each = |reactions: &Reactions| {
        let mine = if reactions.mine { " mine" } else { "" };
        format!("{} {}{mine}", reactions.emoji, reactions.count)
    };
    let all: Vec<String> = message.reactions.iter().map(each).collect();
    all.join(", ")
}

/// Makes the one conversation a group to which everybody belongs, behind the engine's back, which
/// is opened anew since it remembers rows.
async fn make_it_a_group(world: &World) -> MessengerEngine {
    world.engine.close().await;
    let place = &world.place;
    place
        .execute("UPDATE conversations SET kind = 2, direct_key = NULL")
        .await;
    place
        .execute(
            "INSERT INTO members (conversation_id, user_id, role, state, joined_pos, changed_pos, \
             visible_from_seq, last_read_seq, read_pos, self_pos, delivered_seq, marked_unread) \
             SELECT m.conversation_id, u.id, m.role, m.state, m.joined_pos, m.changed_pos, \
             m.visible_from_seq, 0, m.read_pos, m.self_pos, 0, m.marked_unread \
             FROM members m CROSS JOIN users u \
             WHERE m.user_id = (SELECT id FROM users WHERE username = 'alice') \
             AND u.username NOT IN ('alice', 'bob')",
        )
        .await;
    place.open().await
}

/// What a subscription tells of a change of a message.
async fn next_change(events: &mut Subscription) -> (Message, Option<ReactionChange>, bool) {
    let event = next(events).await.unwrap().unwrap();
    match &event.kind {
        EventKind::MessageUpdated {
            message,
            reaction,
            conversation,
        } => (message.clone(), reaction.clone(), conversation.is_some()),
        EventKind::MessageDeleted {
            message,
            conversation,
        } => (message.clone(), None, conversation.is_some()),
        other => panic!("no change of a message: {other:?}"),
    }
}

on_both_databases!(
    async fn an_edit_gives_other_content_and_keeps_the_place(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let first = alice.send(conversation.id, "frist").await;
        let last = alice.send(conversation.id, "lats").await;

        let edited = alice.edit(&first, "first").await.unwrap();

        assert!(edited.version > last.version);
        assert!(edited.edited_at.is_some());
        let mut expected = first;
        expected.content = "first".to_owned();
        expected.edited_at = edited.edited_at;
        expected.version = edited.version;
        assert_eq!(edited, expected);
        assert_eq!(bob.history(conversation.id).await, [edited, last.clone()]);
        let listed = &world.engine.conversations().list(&bob.actor).await.unwrap()[0];
        assert_eq!(listed.last_message_preview.as_deref(), Some("lats"));

        let edited = alice.edit(&last, "last").await.unwrap();
        let listed = &world.engine.conversations().list(&bob.actor).await.unwrap()[0];
        assert_eq!(listed.last_message_preview.as_deref(), Some("last"));
        assert_eq!(listed.last_message_at, Some(last.created_at));
        assert_eq!(Some(listed.updated_at), edited.edited_at);
    }

    async fn what_changes_nothing_takes_no_position(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "hello").await;
        let reacted = bob.react(&sent, "👍").await.unwrap();
        let lines = world.place.count("events").await;

        let edited = alice.edit(&sent, "hello").await.unwrap();
        let again = bob.react(&sent, "👍").await.unwrap();
        let none = bob.unreact(&sent, "👎").await.unwrap();

        assert_eq!((&again, &none), (&reacted, &reacted));
        assert_eq!((edited.version, edited.edited_at), (reacted.version, None));
        assert_eq!(world.place.count("events").await, lines);
        let deleted = alice.delete_message(&sent).await.unwrap();
        assert_eq!(alice.delete_message(&sent).await.unwrap(), deleted);
        assert_eq!(world.place.count("events").await, lines + 1);
    }

    async fn only_the_sender_edits_and_deletes_in_a_direct_conversation(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "mine").await;

        let edited = bob.edit(&sent, "yours").await;
        let deleted = bob.delete_message(&sent).await;

        assert!(matches!(edited, Err(Error::Forbidden)), "{edited:?}");
        assert!(matches!(deleted, Err(Error::Forbidden)), "{deleted:?}");
        assert_eq!(bob.read(&sent).await, sent);
    }

    async fn a_stranger_finds_no_conversation_and_a_member_no_message_of_another(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "between us").await;
        let carol = world.person("carol").await;

        assert!(is_not_found(&carol.edit(&sent, "x").await));
        assert!(is_not_found(&carol.delete_message(&sent).await));
        assert!(is_not_found(&carol.react(&sent, "x").await));
        assert!(is_not_found(&carol.unreact(&sent, "x").await));

        let with_carol = alice.open_direct(&carol).await;
        let nowhere = Uuid::now_v7().into();
        for (conversation_id, id) in [(with_carol.id, sent.id), (conversation.id, nowhere)] {
            let mut wrong = sent.clone();
            wrong.conversation_id = conversation_id;
            wrong.id = id;
            let outcomes = [
                alice.edit(&wrong, "x").await,
                alice.delete_message(&wrong).await,
                alice.react(&wrong, "x").await,
                alice.unreact(&wrong, "x").await,
            ];
            for outcome in outcomes {
                assert!(
                    matches!(outcome, Err(Error::MessageNotFound)),
                    "{outcome:?}"
                );
            }
            let membership = alice.membership(conversation_id).await;
            let read = world.engine.messages().message(&membership, id).await;
            assert!(matches!(read, Err(Error::MessageNotFound)), "{read:?}");
        }
        assert_eq!(bob.history(conversation.id).await, [sent]);
    }

    async fn a_deleted_message_leaves_a_tombstone_in_its_place(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let first = alice.send(conversation.id, "first").await;
        let mut rich = message("a secret");
        rich.reply_to = Some(first.id);
        rich.mentions = vec![bob.user.id];
        rich.metadata = Some(Metadata::parse(r#"{"a":1}"#, &Limits::default()).unwrap());
        let last = alice.try_send(conversation.id, rich).await.unwrap().message;
        alice.react(&last, "👍").await.unwrap();
        bob.react(&last, "👍").await.unwrap();

        let deleted = alice.delete_message(&last).await.unwrap();

        let mut expected = last.clone();
        expected.content = String::new();
        expected.deleted_at = deleted.deleted_at;
        expected.mentions = Vec::new();
        expected.metadata = None;
        expected.version = deleted.version;
        assert!(deleted.deleted_at.is_some());
        assert_eq!(deleted, expected);
        assert_eq!(world.place.count("reactions").await, 0);
        let both = [first, deleted];
        assert_eq!(bob.history(conversation.id).await, both);
        let bootstrap = world.engine.sync().bootstrap(&bob.actor).await.unwrap();
        assert_eq!(bootstrap.recent_messages, both);
        let preview = &bootstrap.conversations[0].last_message_preview;
        assert_eq!(preview.as_deref(), Some(""));
        let sync = world.engine.sync();
        let changes = sync
            .changes_after(&bob.actor, &BTreeMap::new())
            .await
            .unwrap();
        assert_eq!(changes.messages, both);
        for refused in [
            alice.edit(&last, "back").await,
            bob.react(&last, "👍").await,
            bob.unreact(&last, "👍").await,
        ] {
            assert!(matches!(refused, Err(Error::MessageDeleted)), "{refused:?}");
        }

        // It can still be answered: who answers may not know yet.
        let mut answer = message("to what?");
        answer.reply_to = Some(last.id);
        let answer = bob.try_send(conversation.id, answer).await.unwrap();
        assert_eq!(answer.message.reply_to, Some(last.id));
    }

    async fn in_a_group_an_owner_or_admin_deletes_what_others_sent(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let sent = alice.send(conversation.id, "off topic").await;
        let also = alice.send(conversation.id, "off topic too").await;
        let engine = make_it_a_group(&world).await;
        let (bob, carol) = (bob.at(&engine), carol.at(&engine));
        let refused = carol.delete_message(&sent).await;
        assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");

        engine.close().await;
        for (role, name) in [(2, "bob"), (3, "carol")] {
            let of = format!("(SELECT id FROM users WHERE username = '{name}')");
            let sql = format!("UPDATE members SET role = {role} WHERE user_id = {of}");
            world.place.execute(&sql).await;
        }
        let engine = world.place.open().await;
        let (bob, carol) = (bob.at(&engine), carol.at(&engine));

        assert!(
            bob.delete_message(&sent)
                .await
                .unwrap()
                .deleted_at
                .is_some()
        );
        assert!(
            carol
                .delete_message(&also)
                .await
                .unwrap()
                .deleted_at
                .is_some()
        );
        let kept = alice.at(&engine).send(conversation.id, "on topic").await;
        let edited = carol.edit(&kept, "mine").await;
        assert!(matches!(edited, Err(Error::Forbidden)), "{edited:?}");
    }

    async fn what_was_sent_before_a_member_came_is_not_there_for_them(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let before = bob.send(conversation.id, "before").await;
        let after = bob.send(conversation.id, "after").await;
        world.engine.close().await;
        let of = "(SELECT id FROM users WHERE username = 'bob')";
        let sql = format!("UPDATE members SET visible_from_seq = 2 WHERE user_id = {of}");
        world.place.execute(&sql).await;
        let engine = world.place.open().await;
        let (alice, bob) = (alice.at(&engine), bob.at(&engine));

        let mut answer = message("re");
        answer.reply_to = Some(before.id);
        for outcome in [
            bob.edit(&before, "x").await,
            bob.delete_message(&before).await,
            bob.react(&before, "x").await,
            bob.unreact(&before, "x").await,
            bob.try_send(conversation.id, answer.clone())
                .await
                .map(|sent| sent.message),
        ] {
            assert!(
                matches!(outcome, Err(Error::MessageNotFound)),
                "{outcome:?}"
            );
        }
        let membership = bob.membership(conversation.id).await;
        let read = engine.messages().message(&membership, before.id).await;
        assert!(matches!(read, Err(Error::MessageNotFound)), "{read:?}");
        let seen = bob.history(conversation.id).await;
        assert_eq!(seen, std::slice::from_ref(&after));
        bob.edit(&after, "seen").await.unwrap();
        alice.try_send(conversation.id, answer).await.unwrap();
    }

    async fn reactions_are_counted_and_everybody_sees_which_are_their_own(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "hello").await;

        let one = alice.react(&sent, "👍").await.unwrap();
        let two = bob.react(&sent, "👍").await.unwrap();
        let three = bob.react(&sent, "heart").await.unwrap();

        assert!(sent.version < one.version && one.version < two.version);
        assert_eq!(told(&one), "👍 1 mine");
        assert_eq!(told(&three), "heart 1 mine, 👍 2 mine");
        let again = bob.send(conversation.id, "another").await;
        for (person, expected) in [
            (&alice, "heart 1, 👍 2 mine"),
            (&bob, told(&three).as_str()),
        ] {
            let sync = world.engine.sync();
            let bootstrap = sync.bootstrap(&person.actor).await.unwrap();
            let changes = sync.changes_after(&person.actor, &BTreeMap::new()).await;
            for messages in [
                person.history(conversation.id).await,
                bootstrap.recent_messages,
                changes.unwrap().messages,
            ] {
                assert_eq!(told(&messages[0]), expected);
                assert_eq!(messages[1], again);
            }
            assert_eq!(told(&person.read(&sent).await), expected);
        }
        let edited = alice.edit(&sent, "hello!").await.unwrap();
        assert_eq!(told(&edited), "heart 1, 👍 2 mine");

        bob.unreact(&sent, "heart").await.unwrap();
        alice.unreact(&sent, "👍").await.unwrap();
        let last = bob.unreact(&sent, "👍").await.unwrap();
        assert_eq!(last.reactions, []);
        assert_eq!(world.place.count("reactions").await, 0);
    }

    async fn a_message_answers_another_and_names_members(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let with_carol = alice.open_direct(&carol).await;
        let elsewhere = alice.send(with_carol.id, "elsewhere").await;
        let first = alice.send(conversation.id, "first").await;
        let with = |reply_to: MessageId, mentions: &[&Person]| {
            let mut with = message_as("the-same-client-id", "with everything");
            with.reply_to = Some(reply_to);
            with.mentions = mentions.iter().map(|person| person.user.id).collect();
            let json = r#"{ "b": [1], "a": "x" }"#;
            with.metadata = Some(Metadata::parse(json, &Limits::default()).unwrap());
            with
        };

        for nothing in [elsewhere.id, Uuid::now_v7().into()] {
            let refused = bob.try_send(conversation.id, with(nothing, &[])).await;
            assert!(
                matches!(refused, Err(Error::MessageNotFound)),
                "{refused:?}"
            );
        }
        let refused = bob
            .try_send(conversation.id, with(first.id, &[&carol]))
            .await;
        assert!(matches!(refused, Err(Error::MemberNotFound)), "{refused:?}");
        let named = [&alice, &bob, &alice];
        let sent = bob.try_send(conversation.id, with(first.id, &named)).await;

        let sent = sent.unwrap().message;
        assert_eq!(sent.reply_to, Some(first.id));
        assert_eq!(sent.mentions, [alice.user.id, bob.user.id]);
        let metadata = sent.metadata.as_deref().unwrap();
        assert!(metadata.contains(r#""b":[1]"#) && metadata.contains(r#""a":"x""#));
        assert_eq!(alice.read(&sent).await, sent);

        // The first message stands, whatever a repetition says, and as it is by then.
        let edited = bob.edit(&sent, "with less").await.unwrap();
        let reacted = bob.react(&sent, "👍").await.unwrap();
        let again = with(Uuid::now_v7().into(), &[&carol]);
        let again = bob.try_send(conversation.id, again).await.unwrap();
        assert_eq!((again.message, again.created), (reacted, false));
        assert_eq!(edited.seq, sent.seq);
    }

    async fn a_repetition_changes_nothing_even_weeks_later(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let sent = alice.send(conversation.id, "draft").await;
        let at = (conversation.id, sent.id);
        let edit = async |key: &str, text: &str| {
            let messages = alice.engine.messages().once(id(key));
            let edited = messages.edit(&alice.actor, at.0, at.1, body(text)).await?;
            Ok(edited.message)
        };
        let react = async |who: &Person, key: &str, emoji: &str| {
            let messages = who.engine.messages().once(id(key));
            let reacted = messages.react(&who.actor, at.0, at.1, reaction(emoji));
            Ok(reacted.await?.message)
        };

        edit("first-edit", "A").await.unwrap();
        let second = edit("second-edit", "B").await.unwrap();
        assert_eq!(edit("first-edit", "A").await.unwrap(), second);
        assert_eq!(edit("second-edit", "B").await.unwrap(), second);

        react(&bob, "bobs-react", "👍").await.unwrap();
        let gone = bob.unreact(&sent, "👍").await.unwrap();
        let lines = world.place.count("events").await;
        assert_eq!(react(&bob, "bobs-react", "👍").await.unwrap(), gone);
        assert_eq!(world.place.count("events").await, lines);

        // Another request under a used id is a mistake of the client.
        let delete = alice.engine.messages().once(id("first-edit"));
        let deleted = delete.delete(&alice.actor, at.0, at.1).await;
        for conflict in [
            edit("first-edit", "C").await,
            react(&alice, "first-edit", "A").await,
            deleted.map(|deleted| deleted.message),
            react(&bob, "bobs-react", "👎").await,
        ] {
            assert!(
                matches!(conflict, Err(Error::ClientWriteConflict)),
                "{conflict:?}"
            );
        }
        // An id is somebody's own.
        react(&alice, "bobs-react", "👎").await.unwrap();
        // What was refused has not taken place: its id is free.
        let refused = bob.engine.messages().once(id("tried-once"));
        let refused = refused.delete(&bob.actor, at.0, at.1).await;
        assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
        react(&bob, "tried-once", "👍").await.unwrap();
        // A deletion that is repeated leaves it deleted, and an old edit does not bring it back.
        let once = || alice.engine.messages().once(id("the-deletion"));
        let delete = async || once().delete(&alice.actor, at.0, at.1).await.unwrap();
        let deleted = delete().await.message;
        let again = delete().await.message;
        assert_eq!(deleted, again);
        assert_eq!(edit("second-edit", "B").await.unwrap(), deleted);
    }

    async fn many_reactions_at_once_leave_exact_counts(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut people = vec![alice.clone(), bob];
        for n in 0..6 {
            people.push(world.person(&format!("member-{n}")).await);
        }
        let sent = alice.send(conversation.id, "vote").await;
        let engine = make_it_a_group(&world).await;

        let reacts = (0..64).map(|n| {
            let person = people[n % 8].at(&engine);
            let sent = sent.clone();
            tokio::spawn(async move {
                // Each reacts with two, each of them four times.
                let emoji = if n / 8 % 2 == 0 { "👍" } else { "heart" };
                person.react(&sent, emoji).await.unwrap();
            })
        });
        for react in join_all(reacts).await {
            react.unwrap();
        }
        let read = people[3].at(&engine).read(&sent).await;
        assert_eq!(told(&read), "heart 8 mine, 👍 8 mine");
        assert_eq!(world.place.count("reactions").await, 16);

        let turns = (0..64).map(|n| {
            let person = people[n % 8].at(&engine);
            let sent = sent.clone();
            tokio::spawn(async move {
                match n / 8 % 2 {
                    0 => person.unreact(&sent, "👍").await.unwrap(),
                    _ => person.edit(&sent, &n.to_string()).await.unwrap_or(sent),
                };
            })
        });
        for turn in join_all(turns).await {
            turn.unwrap();
        }
        let read = people[3].at(&engine).read(&sent).await;
        assert_eq!(told(&read), "heart 8 mine");
    }

    async fn listeners_hear_of_every_change_with_the_message_as_it_is(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let first = alice.send(conversation.id, "first").await;
        let last = alice.send(conversation.id, "last").await;
        let carol = world.person("carol").await;
        let mut carols = carol.subscribe().await;
        let mut bobs = bob.subscribe().await;

        let edited = alice.edit(&first, "1st").await.unwrap();
        assert_eq!(next_change(&mut bobs).await, (edited, None, false));
        let edited = alice.edit(&last, "2nd").await.unwrap();
        assert_eq!(next_change(&mut bobs).await, (edited, None, true));
        let reacted = alice.react(&last, "👍").await.unwrap();
        // What is read from the database tells what the edit before it has changed once more.
        let (message, reaction, _) = next_change(&mut bobs).await;
        // What everybody is sent does not say whose the reactions are.
        assert_eq!(told(&message), "👍 1");
        assert_eq!(message.version, reacted.version);
        let reaction = reaction.unwrap();
        assert_eq!((reaction.user_id, reaction.added), (alice.user.id, true));
        assert_eq!(reaction.emoji, "👍");
        alice.unreact(&last, "👍").await.unwrap();
        let (message, reaction, _) = next_change(&mut bobs).await;
        assert_eq!(message.reactions, []);
        assert!(!reaction.unwrap().added);
        let deleted = alice.delete_message(&last).await.unwrap();
        assert_eq!(next_change(&mut bobs).await, (deleted, None, true));
        assert!(next(&mut carols).now_or_never().is_none());
    }

    async fn who_reads_the_log_later_is_not_told_early(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.subscriber_queue_max = 1;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await;
        let first = alice.send(conversation.id, "first").await;
        let second = alice.send(conversation.id, "second").await;
        let third = alice.send(conversation.id, "third").await;
        let last = alice.send(conversation.id, "last").await;
        let mut slow = bob.subscribe().await;

        // Bob does not read, so that he is told from the log, whose rows have gone on.
        alice.edit(&first, "not shown").await.unwrap();
        alice.react(&first, "👍").await.unwrap();
        let edited = alice.edit(&second, "shown").await.unwrap();
        let kept = alice.edit(&first, "shown too").await.unwrap();
        alice.react(&third, "👍").await.unwrap();
        let deleted = alice.delete_message(&third).await.unwrap();
        let reacted = bob.react(&second, "👍").await.unwrap();
        alice.edit(&last, "the last").await.unwrap();
        alice.react(&last, "👍").await.unwrap();

        let (message, reaction, head) = next_change(&mut slow).await;
        assert_eq!((message.version, head), (kept.version, false));
        assert_eq!((message.content.as_str(), reaction), ("shown too", None));
        assert_eq!(next_change(&mut slow).await, (deleted, None, false));
        let (message, reaction, head) = next_change(&mut slow).await;
        assert_eq!((message.content, head), (edited.content, false));
        assert_eq!(message.version, reacted.version);
        assert_eq!(reaction.unwrap().user_id, bob.user.id);
        // The edit of the last message, which changed the preview, is told with the reaction.
        let (message, reaction, head) = next_change(&mut slow).await;
        assert_eq!((message.content.as_str(), head), ("the last", true));
        assert_eq!(reaction.unwrap().emoji, "👍");
        assert!(next(&mut slow).now_or_never().is_none());
    }

    async fn history_is_read_in_both_directions(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for n in 1..=7 {
            alice.send(conversation.id, &n.to_string()).await;
        }
        let membership = bob.membership(conversation.id).await;
        let history = async |after: Option<i64>, before: Option<i64>, limit: u32| {
            let between = Between {
                after: after.and_then(Seq::new),
                before: before.and_then(Seq::new),
            };
            let messages = world.engine.messages();
            let history = messages.history(&membership, between, limit).await.unwrap();
            let seqs = history.messages.iter().map(|message| message.seq.get());
            (seqs.collect::<Vec<i64>>(), history.has_more)
        };

        assert_eq!(history(None, None, 3).await, (vec![1, 2, 3], true));
        assert_eq!(history(None, None, 7).await, ((1..=7).collect(), false));
        assert_eq!(history(Some(5), None, 3).await, (vec![6, 7], false));
        assert_eq!(history(None, Some(5), 3).await, (vec![2, 3, 4], true));
        assert_eq!(history(None, Some(4), 3).await, (vec![1, 2, 3], false));
        assert_eq!(history(Some(2), Some(6), 2).await, (vec![4, 5], true));
        assert_eq!(history(Some(2), Some(6), 3).await, (vec![3, 4, 5], false));
        assert_eq!(history(Some(6), Some(7), 3).await, (vec![], false));
        assert_eq!(history(None, Some(0), 3).await, (vec![], false));
    }
);
