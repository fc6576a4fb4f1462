//! Who is writing: told to those who listen, kept nowhere.

use messenger_core::conversations::Typing;
use messenger_core::events::{Resumed, Update};
use messenger_core::{ConversationId, Error, Limits};

use crate::world::{Person, next_update, on_both_databases};

async fn types(person: &Person, conversation: ConversationId, is_typing: bool) {
    let conversations = person.engine.conversations();
    let told = conversations.typing(&person.actor, conversation, is_typing);
    told.await.unwrap();
}

async fn hears(stream: &mut Resumed) -> Typing {
    match next_update(stream).await {
        Update::Typing(typing) => typing,
        other => panic!("{other:?}"),
    }
}

/// Insists that the next that is heard is a message: what was typed before it was not told.
async fn hears_a_message(stream: &mut Resumed) {
    match next_update(stream).await {
        Update::Event { .. } => {}
        other => panic!("{other:?}"),
    }
}

on_both_databases!(
    async fn who_writes_is_told_to_the_others_and_not_again_at_once(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut bobs = bob.follow().await;
        let mut alices = alice.follow().await;

        types(&alice, conversation.id, true).await;
        types(&alice, conversation.id, true).await;
        types(&alice, conversation.id, false).await;
        types(&alice, conversation.id, false).await;
        alice.send(conversation.id, "hello").await;

        let begins = hears(&mut bobs).await;
        assert_eq!(begins.conversation_id, conversation.id);
        assert_eq!((begins.user_id, begins.is_typing), (alice.user.id, true));
        assert!(!hears(&mut bobs).await.is_typing);
        hears_a_message(&mut bobs).await;
        hears_a_message(&mut alices).await;
    }

    async fn nobody_hears_of_strangers_nor_of_people_who_are_blocked(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.person("carol").await;
        let stranger = carol.engine.conversations();
        let refused = stranger.typing(&carol.actor, conversation.id, true).await;
        assert!(matches!(refused, Err(Error::ConversationNotFound)));
        let users = bob.engine.users();
        users.block(&bob.actor, alice.user.id).await.unwrap();
        let mut bobs = bob.follow().await;

        types(&alice, conversation.id, true).await;
        users.unblock(&bob.actor, alice.user.id).await.unwrap();

        // The lifted block is the next that the stream tells of, and as a page.
        assert!(matches!(next_update(&mut bobs).await, Update::Page { .. }));
    }

    async fn in_a_large_group_nobody_is_told_and_of_too_many_only_some(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.small_conversation_members_max = 2;
        limits.typing_max = 1;
        let engine = world.place.builder().limits(limits).open().await.unwrap();
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let carol = Person::join(&engine, "carol").await;
        let large = alice.create_group(&[&bob, &carol]).await;
        let one = alice.open_direct(&bob).await.id;
        let other = carol.open_direct(&bob).await.id;
        let mut bobs = bob.follow().await;

        types(&alice, large, true).await;
        types(&alice, one, true).await;
        types(&carol, other, true).await;
        types(&alice, one, false).await;
        types(&carol, other, true).await;

        assert_eq!(hears(&mut bobs).await.conversation_id, one);
        assert!(!hears(&mut bobs).await.is_typing);
        assert_eq!(hears(&mut bobs).await.conversation_id, other);
        engine.close().await;
    }
);
