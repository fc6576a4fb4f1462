//! Attachments: who may send, see and have them, and how many and how long they may be.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::slice;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use messenger_core::attachments::{Attachment, AttachmentStore, FileName, NewAttachment, Uploaded};
use messenger_core::conversations::{HistoryPolicy, NewGroup, Title};
use messenger_core::messages::{Message, MessageBody, NewMessage};
use messenger_core::sync::Pull;
use messenger_core::{
    AttachmentId, ClientWriteId, ConversationId, Error, Limits, MessengerEngine, Result,
};
use tests::soon;
use uuid::Uuid;

use crate::message_changes::body;
use crate::world::{
    Person, World, eventually, message, message_as, next_message, on_both_databases,
};

/// A picture of one point, and no more of it than a picture must have.
pub(crate) fn point() -> Vec<u8> {
    let parts: [&[u8]; 5] = [
        b"\x89PNG\r\n\x1a\n",
        b"\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU",
        b"\0\0\0\nIDATx\x9cch\0\0\0\x82\0\x81",
        b"w\xcdr\xb6",
        b"\0\0\0\0IEND\xaeB`\x82",
    ];
    parts.concat()
}

/// Where the files of a world are.
pub(crate) fn folder(world: &World) -> PathBuf {
    world.place.folder().join("attachments")
}

/// The world's engine, opened anew with a place for attachments and other limits.
pub(crate) async fn with(world: &World, change: impl FnOnce(&mut Limits)) -> MessengerEngine {
    world.engine.close().await;
    let mut limits = Limits::default();
    change(&mut limits);
    let builder = world.place.builder().limits(limits);
    let place = AttachmentStore::folder(folder(world));
    builder.attachments(place).open().await.unwrap()
}

/// Alice, Bob and their conversation, through an engine with a place for attachments.
pub(crate) async fn meet(engine: &MessengerEngine) -> (Person, Person, ConversationId) {
    let alice = Person::join(engine, "alice").await;
    let bob = Person::join(engine, "bob").await;
    let direct = alice.open_direct(&bob).await.id;
    (alice, bob, direct)
}

pub(crate) fn file(name: &str, media_type: &str) -> NewAttachment {
    let name = FileName::parse(name, &Limits::default()).unwrap();
    NewAttachment::new(name, media_type.parse().unwrap())
}

fn chunks(bytes: &[u8]) -> impl stream::Stream<Item = io::Result<Vec<u8>>> + Send + use<> {
    let chunks: Vec<_> = bytes
        .chunks(60_000)
        .map(|chunk| Ok(chunk.to_vec()))
        .collect();
    stream::iter(chunks)
}

pub(crate) async fn upload(person: &Person, new: NewAttachment, bytes: &[u8]) -> Result<Uploaded> {
    let attachments = person.engine.attachments();
    attachments.upload(&person.actor, new, chunks(bytes)).await
}

pub(crate) async fn upload_once(
    person: &Person,
    id: &str,
    new: NewAttachment,
    bytes: &[u8],
) -> Result<Uploaded> {
    let attachments = person.engine.attachments().once(ClientWriteId::parse(id)?);
    attachments.upload(&person.actor, new, chunks(bytes)).await
}

/// A note that somebody has uploaded.
pub(crate) async fn note(person: &Person) -> AttachmentId {
    let uploaded = upload(person, file("note.txt", "text/plain"), b"buy milk").await;
    uploaded.unwrap().item.attachment.id
}

pub(crate) fn holding(text: &str, ids: &[AttachmentId]) -> NewMessage {
    let mut holding = message("text");
    holding.body = match text {
        "" => MessageBody::none(),
        text => body(text),
    };
    holding.attachments = ids.to_vec();
    holding
}

pub(crate) async fn send_note(
    person: &Person,
    conversation: ConversationId,
) -> (Message, AttachmentId) {
    let id = note(person).await;
    let sent = person.try_send(conversation, holding("look", &[id])).await;
    (sent.unwrap().message, id)
}

pub(crate) async fn download(person: &Person, id: AttachmentId) -> Result<Vec<u8>> {
    let open = person.engine.attachments().open(&person.actor, id).await?;
    let pieces = open.bytes(0..u64::MAX).await?;
    let pieces: Vec<Vec<u8>> = pieces.try_collect().await?;
    Ok(pieces.concat())
}

/// Whether somebody gets an attachment, whole and by all ways, or is told that there is none.
pub(crate) async fn may_have(person: &Person, id: AttachmentId) -> bool {
    let attachments = person.engine.attachments();
    let known = attachments.attachment(&person.actor, id).await;
    let content = download(person, id).await;
    match (known, content) {
        (Ok(item), Ok(content)) => {
            assert_eq!(item.attachment.size, content.len() as u64);
            true
        }
        (Err(Error::AttachmentNotFound), Err(Error::AttachmentNotFound)) => {
            let preview = attachments.preview(&person.actor, id).await;
            assert!(
                matches!(preview, Err(Error::AttachmentNotFound)),
                "{preview:?}"
            );
            false
        }
        other => panic!("{other:?}"),
    }
}

/// The files below a folder, whatever they are called but for the one by which it is known.
pub(crate) fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| *path != folder.join("place"))
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

/// Waits until so many attachments are left, and their files.
pub(crate) async fn left(world: &World, count: i64) {
    eventually("the others are taken away", async || {
        world.place.count("attachments").await == count && files(&folder(world)) as i64 == count
    })
    .await;
}

/// Limits by which what is to go is looked for all the time.
pub(crate) fn quick(limits: &mut Limits) {
    limits.prune_interval = Duration::from_millis(5);
}

on_both_databases!(
    async fn what_goes_up_comes_down_and_its_message_says_what_it_is(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, direct) = meet(&engine).await;
        let mut bobs = bob.subscribe().await;
        // More than two parts, and an end that fills none.
        let bytes: Vec<u8> = (0..2_500_001_u32).map(|i| (i % 253) as u8).collect();

        let new = file("film.mp4", "video/mp4");
        let uploaded = upload(&alice, new, &bytes).await.unwrap();
        assert!(uploaded.created);
        let facts = uploaded.item.attachment.clone();
        assert_eq!((facts.name.as_str(), facts.size), ("film.mp4", 2_500_001));
        assert_eq!(facts.media_type, "video/mp4");
        assert_eq!(
            (facts.width, facts.height, facts.has_preview),
            (None, None, false)
        );
        assert_eq!(uploaded.item.sha256.len(), 32);
        let sent = alice
            .try_send(direct, holding("", &[facts.id]))
            .await
            .unwrap();
        assert_eq!(sent.message.content, "");
        assert_eq!(sent.message.attachments, slice::from_ref(&facts));

        assert!(download(&bob, facts.id).await.unwrap() == bytes);
        let open = engine
            .attachments()
            .open(&bob.actor, facts.id)
            .await
            .unwrap();
        for (from, to) in [
            (0, 1),
            (1_048_575, 1_048_577),
            (2_500_000, u64::MAX),
            (7, 7),
        ] {
            let pieces = open.bytes(from..to).await.unwrap();
            let part: Vec<Vec<u8>> = pieces.try_collect().await.unwrap();
            let left = &bytes[usize::try_from(from).unwrap()..];
            let length = to.min(facts.size) - from;
            let length = usize::try_from(length).unwrap();
            assert!(part.concat() == left[..length], "{from} {to}");
        }

        assert_eq!(next_message(&mut bobs).await, sent.message);
        assert_eq!(bob.history(direct).await, slice::from_ref(&sent.message));
        let page = engine
            .sync()
            .pull(&bob.actor, &Pull::default())
            .await
            .unwrap();
        assert_eq!(page.page.messages, slice::from_ref(&sent.message));
        let mut lines = engine.users().export(&alice.actor).unwrap();
        let mut exported = false;
        while let Some(line) = soon("a line", lines.next()).await {
            exported |= line.unwrap().contains("film.mp4");
        }
        assert!(exported);
        let conversations = engine.conversations();
        let preview = conversations
            .get(&bob.actor, direct)
            .await
            .unwrap()
            .last_message_preview;
        assert_eq!(preview.as_deref(), Some(""));
    }

    async fn whoever_may_see_the_message_may_have_what_it_holds_and_nobody_else(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, _) = meet(&engine).await;
        let carol = Person::join(&engine, "carol").await;
        let dave = Person::join(&engine, "dave").await;
        let group = NewGroup {
            title: Title::parse("Hikers", engine.limits()).unwrap(),
            members: vec![bob.user.id],
            history: HistoryPolicy::SinceJoin,
        };
        let conversations = engine.conversations();
        let group = conversations.create_group(&alice.actor, group);
        let group = group.await.unwrap().id;

        let id = note(&alice).await;
        assert!(may_have(&alice, id).await);
        for other in [&bob, &carol] {
            assert!(!may_have(other, id).await);
        }
        let sent = alice.try_send(group, holding("look", &[id])).await.unwrap();
        for member in [&alice, &bob] {
            assert!(may_have(member, id).await);
        }
        assert!(!may_have(&carol, id).await);
        assert!(!may_have(&alice, Uuid::now_v7().into()).await);

        // Later, and from there on only; gone, and back again from there on.
        alice.add(group, &[&carol]).await.unwrap();
        assert!(!may_have(&carol, id).await);
        let (_, later) = send_note(&bob, group).await;
        assert!(may_have(&carol, later).await);
        alice.remove(group, &carol).await.unwrap();
        assert!(!may_have(&carol, later).await);
        bob.leave(group).await.unwrap();
        assert!(!may_have(&bob, later).await);
        assert!(may_have(&alice, later).await);

        let (_, of_direct) = send_note(&alice, alice.open_direct(&dave).await.id).await;
        dave.block(&alice).await.unwrap();
        assert!(may_have(&dave, of_direct).await);

        let messages = engine.messages();
        messages
            .delete(&alice.actor, group, sent.message.id)
            .await
            .unwrap();
        assert!(!may_have(&alice, id).await);
        let tombstone = &alice.history(group).await[0];
        assert_eq!(tombstone.attachments, []);
        alice.delete(group).await.unwrap();
        assert!(!may_have(&alice, later).await);
    }

    async fn a_message_takes_what_its_sender_uploaded_and_nobody_has(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, direct) = meet(&engine).await;
        let (one, other, of_bob) = (note(&alice).await, note(&alice).await, note(&bob).await);

        for wrong in [of_bob, Uuid::now_v7().into()] {
            let refused = alice.try_send(direct, holding("look", &[one, wrong])).await;
            assert!(
                matches!(refused, Err(Error::AttachmentNotFound)),
                "{refused:?}"
            );
        }
        let refused = alice.try_send(direct, holding("", &[])).await;
        assert!(matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "content"));
        let many: Vec<AttachmentId> = (0..11).map(|_| Uuid::now_v7().into()).collect();
        let refused = alice.try_send(direct, holding("look", &many)).await;
        let rule = matches!(refused, Err(Error::Invalid(ref it)) if it.field == "attachment_ids");
        assert!(rule, "{refused:?}");

        let twice = holding("", &[other, one, other]);
        let sent = alice.try_send(direct, twice.clone()).await.unwrap();
        let ids = |message: &Message| -> Vec<AttachmentId> {
            message.attachments.iter().map(|it| it.id).collect()
        };
        assert_eq!(ids(&sent.message), [other, one]);
        let again = alice.try_send(direct, twice).await.unwrap();
        assert_eq!(
            (again.message, again.created),
            (sent.message.clone(), false)
        );
        let refused = alice.try_send(direct, holding("look", &[one])).await;
        assert!(matches!(refused, Err(Error::AttachmentUsed)), "{refused:?}");
        let attachments = engine.attachments();
        let refused = attachments.delete(&alice.actor, one).await;
        assert!(matches!(refused, Err(Error::AttachmentUsed)), "{refused:?}");
        assert_eq!(alice.history(direct).await, slice::from_ref(&sent.message));

        // Its text may come and go, and what it holds stays.
        let messages = engine.messages();
        let (id, plain) = (sent.message.id, alice.send(direct, "plain").await);
        let edited = messages
            .edit(&alice.actor, direct, id, body("a text"))
            .await
            .unwrap();
        assert_eq!(ids(&edited.message), [other, one]);
        let emptied = messages
            .edit(&alice.actor, direct, id, MessageBody::none())
            .await;
        assert_eq!(emptied.unwrap().message.content, "");
        let refused = messages
            .edit(&alice.actor, direct, plain.id, MessageBody::none())
            .await;
        assert!(matches!(refused, Err(Error::Invalid(ref rule)) if rule.field == "content"));
    }

    async fn an_upload_that_is_repeated_is_there_once(world: World) {
        let engine = with(&world, quick).await;
        let (alice, bob, direct) = meet(&engine).await;
        let new = || file("note.txt", "text/plain");

        let first = upload_once(&alice, "upload-1", new(), b"one")
            .await
            .unwrap();
        let again = upload_once(&alice, "upload-1", new(), b"one")
            .await
            .unwrap();
        assert_eq!(
            (again.item.clone(), again.created),
            (first.item.clone(), false)
        );
        let of_bob = upload_once(&bob, "upload-1", new(), b"one").await.unwrap();
        assert!(of_bob.created && of_bob.item.attachment.id != first.item.attachment.id);
        let mut longer = new();
        longer.size = Some(4);
        for other in [
            file("other.txt", "text/plain"),
            file("note.txt", "text/css"),
            longer,
        ] {
            let refused = upload_once(&alice, "upload-1", other, b"four").await;
            assert!(
                matches!(refused, Err(Error::ClientWriteConflict)),
                "{refused:?}"
            );
        }
        let id = first.item.attachment.id;
        alice.try_send(direct, holding("", &[id])).await.unwrap();
        let sent = upload_once(&alice, "upload-1", new(), b"one")
            .await
            .unwrap();
        assert_eq!((sent.item, sent.created), (first.item, false));

        // Of two at once the later one goes on, and so does one after an attempt that broke off.
        let is_asked = Cell::new(false);
        let endless = stream::poll_fn(|_| {
            is_asked.set(true);
            Poll::<Option<io::Result<Vec<u8>>>>::Pending
        });
        let attachments = engine
            .attachments()
            .once(ClientWriteId::parse("upload-2").unwrap());
        let mut stuck = Box::pin(attachments.upload(&alice.actor, new(), endless));
        eventually("it is begun", async || {
            assert!((&mut stuck).now_or_never().is_none());
            is_asked.get()
        })
        .await;
        assert_eq!(world.place.count("attachments").await, 3);
        let second = upload_once(&alice, "upload-2", new(), b"two")
            .await
            .unwrap();
        assert!(second.created);
        drop(stuck);
        let broken = stream::iter([Ok(b"thr".to_vec()), Err(io::Error::other("gone"))]);
        let attachments = engine
            .attachments()
            .once(ClientWriteId::parse("upload-3").unwrap());
        let refused = attachments.upload(&alice.actor, new(), broken).await;
        assert!(
            matches!(refused, Err(Error::UploadBroken(_))),
            "{refused:?}"
        );
        let third = upload_once(&alice, "upload-3", new(), b"three")
            .await
            .unwrap();
        assert_eq!(
            download(&alice, third.item.attachment.id).await.unwrap(),
            b"three"
        );
        left(&world, 4).await;

        // After its time an id is free again.
        let key = || ClientWriteId::parse("deletion-1").unwrap();
        for _ in 0..2 {
            let attachments = engine.attachments().once(key());
            attachments
                .delete(&alice.actor, third.item.attachment.id)
                .await
                .unwrap();
        }
        let gone = engine
            .attachments()
            .delete(&alice.actor, third.item.attachment.id)
            .await;
        assert!(matches!(gone, Err(Error::AttachmentNotFound)), "{gone:?}");
        let anew = upload_once(&alice, "upload-3", new(), b"three")
            .await
            .unwrap();
        assert!(anew.created && anew.item.attachment.id != third.item.attachment.id);
    }

    async fn an_attachment_is_as_long_as_it_may_be_and_as_it_was_said_to_be(world: World) {
        let engine = with(&world, |limits| {
            quick(limits);
            limits.attachment_bytes_max = 1_500_000;
        })
        .await;
        let (alice, _, _) = meet(&engine).await;
        let of = |size: Option<u64>| {
            let mut new = file("film.mp4", "video/mp4");
            new.size = size;
            new
        };

        let most = vec![7; 1_500_000];
        for size in [None, Some(1_500_000)] {
            let whole = upload(&alice, of(size), &most).await.unwrap();
            assert_eq!(whole.item.attachment.size, 1_500_000);
        }
        let long = vec![7; 1_500_001];
        for size in [None, Some(1_500_001)] {
            let refused = upload(&alice, of(size), &long).await;
            let expected = Err(Error::AttachmentTooLarge {
                bytes_max: 1_500_000,
            });
            assert_eq!(
                format!("{refused:?}"),
                format!("{:?}", expected as Result<Uploaded>)
            );
        }
        for (size, bytes) in [(9, &most[..8]), (7, &most[..8])] {
            let refused = upload(&alice, of(Some(size)), bytes).await;
            assert!(
                matches!(refused, Err(Error::UploadBroken(_))),
                "{refused:?}"
            );
        }
        let nothing = upload(&alice, of(Some(0)), b"").await.unwrap();
        let id = nothing.item.attachment.id;
        assert_eq!(download(&alice, id).await.unwrap(), b"");
        left(&world, 3).await;
    }

    async fn a_person_has_a_bounded_number_that_were_not_sent(world: World) {
        let engine = with(&world, |limits| limits.attachments_unsent_per_user_max = 2).await;
        let (alice, bob, direct) = meet(&engine).await;
        let one = note(&alice).await;
        note(&alice).await;

        let new = || file("note.txt", "text/plain");
        let refused = upload(&alice, new(), b"x").await;
        assert!(
            matches!(refused, Err(Error::AttachmentsFull)),
            "{refused:?}"
        );
        note(&bob).await;
        alice.try_send(direct, holding("", &[one])).await.unwrap();
        let third = note(&alice).await;
        engine
            .attachments()
            .delete(&alice.actor, third)
            .await
            .unwrap();
        note(&alice).await;
    }

    async fn uploads_leave_room_on_the_disk(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, ..) = meet(&engine).await;
        let kept = note(&alice).await;
        engine.close().await;
        let engine = with(&world, |limits| {
            limits.attachments_free_bytes_min = u64::MAX;
        })
        .await;
        let alice = Person {
            engine: engine.clone(),
            actor: engine.trust(alice.user.id),
            user: alice.user,
        };

        let refused = upload(&alice, file("a", "text/plain"), b"bytes").await;

        assert!(matches!(refused, Err(Error::StorageFull(_))), "{refused:?}");
        assert_eq!(download(&alice, kept).await.unwrap(), b"buy milk");
        assert_eq!(files(&folder(&world)), 1);
    }

    async fn uploads_at_a_time_are_bounded_and_for_each_person(world: World) {
        let engine = with(&world, |limits| {
            limits.uploads_max = 3;
            limits.uploads_per_user_max = 2;
        })
        .await;
        let (alice, bob, _) = meet(&engine).await;
        let endless = |person: &Person| {
            let person = person.clone();
            let upload = async move {
                let bytes = stream::pending::<io::Result<Vec<u8>>>();
                let attachments = person.engine.attachments();
                attachments
                    .upload(&person.actor, file("film", "a/b"), bytes)
                    .await
            };
            Box::pin(upload)
        };
        let mut running = vec![endless(&alice), endless(&alice), endless(&bob)];
        for upload in &mut running {
            assert!(upload.now_or_never().is_none());
        }

        for person in [&alice, &bob] {
            let refused = upload(person, file("note", "a/b"), b"x").await;
            assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        }
        drop(running.remove(0));
        upload(&alice, file("note", "a/b"), b"x").await.unwrap();
        upload(&bob, file("note", "a/b"), b"x").await.unwrap();
    }

    async fn an_upload_whose_bytes_stop_coming_ends(world: World) {
        let too_slow = |limits: &mut Limits| limits.upload_window = Duration::from_millis(5);
        let too_long = |limits: &mut Limits| limits.upload_time_max = Duration::from_millis(5);
        for (name, change) in [
            ("alice", &too_slow as &dyn Fn(&mut Limits)),
            ("bob", &too_long),
        ] {
            let engine = with(&world, |limits| {
                quick(limits);
                limits.uploads_max = 1;
                change(limits);
            })
            .await;
            let person = Person::join(&engine, name).await;
            let bytes = stream::iter([Ok(vec![1; 1_500_000])]).chain(stream::pending());

            let attachments = engine.attachments();
            let upload = attachments.upload(&person.actor, file("film", "a/b"), bytes);
            let refused = soon("an end", upload).await;

            let Err(Error::UploadBroken(cause)) = &refused else {
                panic!("{refused:?}");
            };
            let cause = cause.downcast_ref::<io::Error>().unwrap();
            assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
            left(&world, 0).await;
            engine.close().await;
        }
    }

    async fn downloads_at_a_time_are_bounded_and_for_each_person(world: World) {
        let engine = with(&world, |limits| {
            limits.downloads_max = 3;
            limits.downloads_per_user_max = 2;
        })
        .await;
        let (alice, bob, direct) = meet(&engine).await;
        let (_, id) = send_note(&alice, direct).await;
        let begin = async |person: &Person| {
            let open = engine.attachments().open(&person.actor, id).await.unwrap();
            open.bytes(0..u64::MAX).await
        };
        let mut running = Vec::new();
        for person in [&alice, &alice, &bob] {
            running.push(begin(person).await.unwrap());
        }

        for person in [&alice, &bob] {
            let refused = begin(person).await;
            assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        }
        // One that was read to its end, and one that was not.
        for mut bytes in running.drain(..2) {
            assert_eq!(bytes.try_next().await.unwrap().unwrap(), b"buy milk");
        }
        for person in [&alice, &bob] {
            assert_eq!(download(person, id).await.unwrap(), b"buy milk");
        }
    }

    async fn a_picture_is_known_by_its_bytes(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, direct) = meet(&engine).await;
        let point = point();

        let uploaded = upload(&alice, file("notes.txt", "text/plain"), &point)
            .await
            .unwrap();
        let facts: Attachment = uploaded.item.attachment;
        assert_eq!(
            (facts.width, facts.height, facts.has_preview),
            (Some(1), Some(1), true)
        );
        let page = b"<html><script>alert(1)</script>".as_slice();
        let uploaded = upload(&alice, file("photo.png", "image/png"), page)
            .await
            .unwrap();
        let other = uploaded.item.attachment;
        assert_eq!((other.width, other.has_preview), (None, false));

        let sent = holding("", &[facts.id, other.id]);
        alice.try_send(direct, sent).await.unwrap();
        let attachments = engine.attachments();
        let preview = attachments.preview(&bob.actor, facts.id).await.unwrap();
        assert!(preview.starts_with(&[0xff, 0xd8, 0xff]));
        let none = attachments.preview(&bob.actor, other.id).await;
        assert!(matches!(none, Err(Error::AttachmentNotFound)), "{none:?}");
    }

    async fn only_types_that_the_host_takes_are_taken(world: World) {
        world.engine.close().await;
        let builder = world.place.builder().attachments(AttachmentStore::memory());
        let types = ["image/*", "application/pdf"].map(|range| range.parse().unwrap());
        let engine = builder.attachment_types(types).open().await.unwrap();
        let (alice, _, _) = meet(&engine).await;

        for taken in ["image/png", "IMAGE/x", "application/pdf; version=2"] {
            upload(&alice, file("a", taken), b"x").await.unwrap();
        }
        let refused = upload(&alice, file("a", "text/html"), b"x").await;
        assert!(matches!(refused, Err(Error::AttachmentType)), "{refused:?}");
    }

    async fn of_several_who_want_one_attachment_one_message_gets_it(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, _, direct) = meet(&engine).await;
        let id = note(&alice).await;

        let sends = (0..8).map(|n| {
            let mut message = message_as(&format!("client-id-{n}"), "mine");
            message.attachments = vec![id];
            alice.try_send(direct, message)
        });
        let outcomes = futures_util::future::join_all(sends).await;

        let (sent, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(sent.len(), 1);
        for refused in refused {
            assert!(matches!(refused, Err(Error::AttachmentUsed)), "{refused:?}");
        }
        assert_eq!(alice.history(direct).await.len(), 1);
    }
);
