//! Where attachments are kept, and that none stays when nobody has it.

use std::path::Path;
use std::slice;

use futures_util::{FutureExt, StreamExt, stream};
use messenger_core::accounts::Erase;
use messenger_core::attachments::AttachmentStore;
use messenger_core::{ClientWriteId, Error};
use tests::soon;

use crate::attachments::{
    download, file, files, folder, holding, left, may_have, meet, note, point, quick, send_note,
    upload, upload_once, with,
};
use crate::world::{eventually, on_both_databases};

on_both_databases!(
    async fn an_upload_that_ends_after_another_took_its_place_leaves_nothing(world: World) {
        let engine = with(&world, quick).await;
        let (alice, _, _) = meet(&engine).await;
        let new = || file("film", "a/b");

        for (kept, is_forgotten) in [(1, false), (2, true)] {
            // The rest of it comes late.
            let (rest, comes) = tokio::sync::oneshot::channel::<()>();
            let rest_of_it = stream::once(async move {
                comes.await.unwrap();
                Ok(b"late".to_vec())
            });
            let bytes = stream::iter([Ok(b"too ".to_vec())]).chain(rest_of_it);
            let id = format!("upload-{kept}");
            let (stuck, once) = (alice.clone(), ClientWriteId::parse(&id).unwrap());
            let stuck = tokio::spawn(async move {
                let attachments = stuck.engine.attachments().once(once);
                attachments.upload(&stuck.actor, new(), bytes).await
            });
            eventually("it is begun", async || {
                world.place.count("attachments").await == kept
            })
            .await;
            let second = upload_once(&alice, &id, new(), b"whole").await.unwrap();
            assert!(second.created);
            if is_forgotten {
                let over = "UPDATE attachments SET due_at = 1 WHERE state = 3";
                world.place.execute(over).await;
                left(&world, kept).await;
            } else {
                // What is done with is taken away meanwhile, and what is being written is not.
                let other = note(&alice).await;
                let attachments = engine.attachments();
                attachments.delete(&alice.actor, other).await.unwrap();
                eventually("the other is taken away", async || {
                    world.place.count("attachments").await == kept + 1
                })
                .await;
            }

            rest.send(()).unwrap();
            let late = soon("an answer", stuck).await.unwrap();

            assert!(matches!(late, Err(Error::Busy { .. })), "{late:?}");
            left(&world, kept).await;
            let id = second.item.attachment.id;
            assert_eq!(download(&alice, id).await.unwrap(), b"whole");
        }
        let ends = "SELECT count(*) FROM attachments WHERE state = 3";
        assert_eq!(world.place.number(ends).await, 0);
    }

    async fn what_was_deleted_goes_at_once_and_the_rest_stays(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, direct) = meet(&engine).await;
        let group = alice.create_group(&[&bob]).await;
        let (deleted, _) = send_note(&alice, direct).await;
        let (_, kept) = send_note(&bob, direct).await;
        send_note(&alice, direct).await;
        send_note(&alice, group).await;
        send_note(&bob, group).await;
        let unsent = note(&bob).await;
        left(&world, 6).await;

        let messages = engine.messages();
        messages
            .delete(&alice.actor, direct, deleted.id)
            .await
            .unwrap();
        left(&world, 5).await;
        alice.delete(group).await.unwrap();
        left(&world, 3).await;
        engine
            .users()
            .delete_me(&alice.actor, Erase::Messages)
            .await
            .unwrap();
        left(&world, 2).await;
        engine
            .attachments()
            .delete(&bob.actor, unsent)
            .await
            .unwrap();
        left(&world, 1).await;

        assert!(may_have(&bob, kept).await);
    }

    async fn a_deleted_group_loses_what_it_has_a_little_at_a_time(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, direct) = meet(&engine).await;
        let group = alice.create_group(&[&bob]).await;
        let (_, kept) = send_note(&alice, direct).await;
        for _ in 0..22 {
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.push(note(&alice).await);
            }
            alice.try_send(group, holding("", &ids)).await.unwrap();
        }
        engine.close().await;
        let released = "SELECT count(*) FROM attachments WHERE state = 3";

        // Nobody takes anything away yet.
        let engine = world.place.open().await;
        alice.at(&engine).delete(group).await.unwrap();
        assert_eq!(world.place.number(released).await, 100);
        engine.close().await;

        let engine = with(&world, |_| {}).await;
        left(&world, 1).await;
        assert!(may_have(&alice.at(&engine), kept).await);
    }

    async fn what_no_message_got_goes_after_its_time(world: World) {
        let engine = with(&world, quick).await;
        let (alice, _, direct) = meet(&engine).await;
        let (_, sent) = send_note(&alice, direct).await;
        let unsent = note(&alice).await;
        let soonest = "SELECT min(due_at - created_at) / 1000000 FROM attachments";
        assert_eq!(world.place.number(soonest).await, 24 * 60 * 60);
        // One whose bytes stop coming, and whose process dies.
        let never = stream::iter([Ok(vec![0_u8; 3_000_000])]).chain(stream::pending());
        let attachments = engine.attachments();
        let mut stuck = Box::pin(attachments.upload(&alice.actor, file("film", "a/b"), never));
        eventually("it is begun, and some of it is written", async || {
            let _ = (&mut stuck).now_or_never();
            files(&folder(&world)) == 3
        })
        .await;
        std::mem::forget(stuck);
        let waited = "UPDATE attachments SET due_at = created_at WHERE message_id IS NULL";
        world.place.execute(waited).await;
        left(&world, 1).await;
        assert!(may_have(&alice, sent).await);
        assert!(!may_have(&alice, unsent).await);
        let late = alice.try_send(direct, holding("", &[unsent])).await;
        assert!(matches!(late, Err(Error::AttachmentNotFound)), "{late:?}");
    }

    async fn taking_away_goes_on_where_it_was_left_and_waits_for_the_place(world: World) {
        let engine = with(&world, quick).await;
        let (alice, _, direct) = meet(&engine).await;
        let (gone, kept) = (
            send_note(&alice, direct).await,
            send_note(&alice, direct).await,
        );
        let (place, away) = (folder(&world), world.place.folder().join("away"));

        // No folder, and a file in its place: nothing can be read, written or taken away.
        std::fs::rename(&place, &away).unwrap();
        std::fs::write(&place, b"in the way").unwrap();
        let messages = engine.messages();
        messages
            .delete(&alice.actor, direct, gone.0.id)
            .await
            .unwrap();
        let refused = upload(&alice, file("note", "text/plain"), b"note").await;
        assert!(
            matches!(refused, Err(Error::AttachmentsUnavailable(_))),
            "{refused:?}"
        );
        let refused = download(&alice, kept.1).await;
        assert!(
            matches!(refused, Err(Error::AttachmentsUnavailable(_))),
            "{refused:?}"
        );
        assert!(world.place.count("attachments").await >= 2);
        engine.close().await;
        std::fs::remove_file(&place).unwrap();
        std::fs::rename(&away, &place).unwrap();
        assert_eq!(files(&place), 2);

        let engine = with(&world, quick).await;
        left(&world, 1).await;
        let alice = alice.at(&engine);
        assert!(may_have(&alice, kept.1).await);
    }

    async fn a_file_that_is_gone_holds_up_nothing(world: World) {
        let engine = with(&world, quick).await;
        let (alice, _, direct) = meet(&engine).await;
        let (lost, _) = send_note(&alice, direct).await;
        let (other, _) = send_note(&alice, direct).await;
        std::fs::remove_dir_all(folder(&world)).unwrap();

        let messages = engine.messages();
        for message in [lost, other] {
            messages
                .delete(&alice.actor, direct, message.id)
                .await
                .unwrap();
        }

        left(&world, 0).await;
        let id = note(&alice).await;
        assert_eq!(download(&alice, id).await.unwrap(), b"buy milk");
    }

    async fn an_upload_that_is_dropped_is_there_or_goes(world: World) {
        let engine = with(&world, |limits| {
            limits.attachments_unsent_per_user_max = 1_000;
        })
        .await;
        let (alice, _, _) = meet(&engine).await;
        let point = point();

        for times in 0.. {
            assert!(times < 200, "the call does not complete");
            let new = file("point.png", "image/png");
            let id = format!("upload-{times}");
            let call = upload_once(&alice, &id, new.clone(), &point);
            let done = crate::cancellation::poll_then_drop(Box::pin(call), times).await;
            // Whoever asks again gets it, whole.
            let again = upload_once(&alice, &id, new, &point).await.unwrap();
            let item = again.item.attachment;
            assert!(item.has_preview);
            assert_eq!(download(&alice, item.id).await.unwrap(), point);
            if done.is_some() {
                assert!(times > 2, "it was dropped nowhere");
                break;
            }
        }
        engine.close().await;
        world
            .place
            .execute("UPDATE attachments SET due_at = 1")
            .await;
        let engine = with(&world, quick).await;
        left(&world, 0).await;
        engine.close().await;
    }

    async fn without_a_place_there_are_none_and_messages_still_show_theirs(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, bob, direct) = meet(&engine).await;
        let (sent, id) = send_note(&alice, direct).await;
        engine.close().await;

        let engine = world.place.open().await;
        let (alice, bob) = (alice.at(&engine), bob.at(&engine));
        assert_eq!(bob.history(direct).await, slice::from_ref(&sent));
        let refused = upload(&alice, file("a", "a/b"), b"x").await;
        assert!(matches!(refused, Err(Error::AttachmentsOff)), "{refused:?}");
        let refused = download(&bob, id).await;
        assert!(matches!(refused, Err(Error::AttachmentsOff)), "{refused:?}");
        engine
            .messages()
            .delete(&alice.actor, direct, sent.id)
            .await
            .unwrap();
        engine.close().await;

        // What was deleted meanwhile goes as soon as there is a place again.
        let engine = with(&world, |_| {}).await;
        left(&world, 0).await;
        engine.close().await;
    }

    async fn a_place_that_can_not_be_written_to_ends_the_opening(world: World) {
        world.engine.close().await;
        let file = world.place.folder().join("a file");
        std::fs::write(&file, b"in the way").unwrap();

        let place = AttachmentStore::folder(file.join("attachments"));
        let refused = world.place.builder().attachments(place).open().await;

        let error = refused.unwrap_err();
        assert!(matches!(error, Error::AttachmentsSetup(..)), "{error:?}");
        assert!(
            error
                .to_string()
                .contains("attachments can not be kept in the folder")
        );
    }

    async fn another_place_than_the_one_that_is_known_ends_the_opening(world: World) {
        use std::os::unix::fs::PermissionsExt;

        let engine = with(&world, |_| {}).await;
        let (alice, _, direct) = meet(&engine).await;
        let (_, sent) = send_note(&alice, direct).await;
        engine.close().await;
        let (place, away) = (folder(&world), world.place.folder().join("away"));
        let mode = |at: &Path| std::fs::metadata(at).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        let opened = async |at: &Path| {
            let place = AttachmentStore::folder(at);
            world.place.builder().attachments(place).open().await
        };
        let refused = async |at: &Path| {
            let error = opened(at).await.unwrap_err();
            assert!(matches!(error, Error::AttachmentsSetup(..)), "{error:?}");
            let text = error.to_string();
            let known = std::fs::read_to_string(away.join("place")).unwrap();
            let way = format!("make a file called place in this one with the line {known}");
            assert!(text.contains(&way) && !text.contains('\n'), "{text}");
        };

        // A disk that is not there leaves an empty folder behind; it has moved as a whole.
        std::fs::rename(&place, &away).unwrap();
        std::fs::create_dir(&place).unwrap();
        refused(&place).await;
        std::fs::write(place.join("place"), "that of another database\n").unwrap();
        refused(&place).await;
        let engine = opened(&away).await.unwrap();
        assert!(may_have(&alice.at(&engine), sent).await);
        engine.close().await;

        // It is lost, and somebody says so.
        let known = std::fs::read_to_string(away.join("place")).unwrap();
        std::fs::write(place.join("place"), known + "\n").unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
        let engine = opened(&place).await.unwrap();
        let alice = alice.at(&engine);
        let lost = download(&alice, sent).await;
        assert!(matches!(lost, Err(Error::AttachmentNotFound)), "{lost:?}");
        let id = note(&alice).await;
        assert_eq!(download(&alice, id).await.unwrap(), b"buy milk");
        assert_eq!(mode(&place), 0o755, "it is somebody's choice");
        engine.close().await;

        // A database of before there was such a file learns it again.
        let forgotten = "DELETE FROM sync_meta WHERE key = 'attachments'";
        world.place.execute(forgotten).await;
        opened(&away).await.unwrap().close().await;
    }

    async fn any_empty_place_will_do_until_there_is_an_attachment(world: World) {
        let engine = with(&world, |_| {}).await;
        let (alice, _, direct) = meet(&engine).await;
        engine.close().await;
        let place = folder(&world);
        let known = std::fs::read_to_string(place.join("place")).unwrap();
        std::fs::remove_dir_all(&place).unwrap();

        let engine = with(&world, |_| {}).await;
        assert_eq!(std::fs::read_to_string(place.join("place")).unwrap(), known);
        send_note(&alice.at(&engine), direct).await;
        engine.close().await;
        std::fs::remove_dir_all(&place).unwrap();
        let other = world.place.builder();
        let refused = other
            .attachments(AttachmentStore::folder(place))
            .open()
            .await;

        assert!(
            matches!(refused, Err(Error::AttachmentsSetup(..))),
            "{refused:?}"
        );
    }
);
