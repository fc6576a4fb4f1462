//! What whoever administers an engine may do, and nobody who logs in.

use messenger_core::auth::{NewAccount, Password};
use messenger_core::inspect::PeopleQuery;
use messenger_core::users::{DisplayName, Username};
use messenger_core::{Error, Limits};
use tests::DatabaseKind;

use crate::world::{World, on_both_databases};

const PASSWORD: &str = "correct horse";

fn account(name: &str) -> NewAccount {
    NewAccount {
        username: Username::parse(name).unwrap(),
        display_name: None,
        password: Password::parse(PASSWORD).unwrap(),
        device: None,
    }
}

fn page(limit: u32) -> PeopleQuery {
    PeopleQuery {
        limit,
        ..PeopleQuery::default()
    }
}

on_both_databases!(
    async fn a_password_is_set_for_nobody_who_only_logged_in(world: World) {
        let auth = world.engine.auth();
        let login = auth.register(account("alice")).await.unwrap();
        let caller = auth.verify(&login.tokens.access_token).await.unwrap();
        let another = || Password::parse("another horse").unwrap();

        let refused = auth.set_password(&caller, another()).await;
        assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
        let trusted = world.engine.trust(login.user.id);
        let ended = auth.set_password(&trusted, another()).await.unwrap();

        assert_eq!(ended, 1);
        let ended = auth.verify(&login.tokens.access_token).await;
        assert!(matches!(ended, Err(Error::InvalidToken)), "{ended:?}");
        let old = auth.log_in("alice", PASSWORD, None).await;
        assert!(matches!(old, Err(Error::InvalidCredentials)), "{old:?}");
        auth.log_in("alice", "another horse", None).await.unwrap();
    }

    async fn an_account_is_made_without_a_session(world: World) {
        let auth = world.engine.auth();

        let alice = auth.create(account("alice")).await.unwrap();

        let sessions = auth.sessions(&world.engine.trust(alice.id)).await;
        assert_eq!(sessions.unwrap().len(), 0);
        let again = auth.create(account("ALICE")).await;
        assert!(matches!(again, Err(Error::UsernameTaken)), "{again:?}");
        auth.log_in("alice", PASSWORD, None).await.unwrap();
    }

    async fn whoever_is_unknown_gets_no_password(world: World) {
        let nobody = world.engine.trust(uuid::Uuid::now_v7().into());
        let password = Password::parse(PASSWORD).unwrap();

        let refused = world.engine.auth().set_password(&nobody, password).await;

        assert!(matches!(refused, Err(Error::UserNotFound)), "{refused:?}");
    }

    async fn a_look_sees_what_is_there_and_begins_nothing(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send(conversation.id, "hello").await;
        let fences = world.place.count("sync_fences").await;
        let head = world.engine.stats().head;

        let look = world.place.builder().inspect().await.unwrap();
        let contents = look.contents().await.unwrap();
        let people = look.people(&page(1_000)).await.unwrap();
        look.close().await;

        assert_eq!((contents.people, contents.messages), (2, 1));
        assert_eq!((contents.direct_conversations, contents.groups), (1, 0));
        assert_eq!(contents.position, head);
        let names: Vec<_> = people
            .iter()
            .map(|person| (person.user.username.as_str(), person.has_password))
            .collect();
        assert_eq!(names, [("alice", false), ("bob", false)]);
        assert_eq!(world.place.count("sync_fences").await, fences);
        alice.send(conversation.id, "and on").await;
        assert_eq!(world.engine.stats().head.get(), head.get() + 1);
    }

    async fn a_page_of_people_has_a_bound(world: World) {
        let mut limits = Limits::default();
        limits.page_people_max = 2;
        for name in ["alice", "bob", "carol"] {
            world.person(name).await;
        }
        let builder = world.place.builder().limits(limits);
        let look = builder.inspect().await.unwrap();

        for limit in [0, 3] {
            let refused = look.people(&page(limit)).await;
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
        let search = |text: String| PeopleQuery {
            search: Some(text),
            ..page(2)
        };
        for text in [String::new(), "x".repeat(65)] {
            let refused = look.people(&search(text)).await;
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
        let first = look.people(&page(2)).await.unwrap();
        let after = PeopleQuery {
            after: first.last().map(|person| person.user.username.clone()),
            ..page(2)
        };
        let rest = look.people(&after).await.unwrap();
        let found = look.people(&search("ARO".to_owned())).await.unwrap();
        look.close().await;

        assert_eq!((first.len(), rest.len()), (2, 1));
        assert_eq!(rest, found);
        assert_eq!(
            rest[0].user.display_name,
            DisplayName::parse("carol").unwrap()
        );
    }

    async fn an_engine_that_is_closed_is_not_ready(world: World) {
        world.engine.ready().await.unwrap();
        let head = world.engine.stats().head;

        world.engine.close().await;

        let closed = world.engine.ready().await;
        assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
        assert_eq!(world.engine.stats().head, head, "it took no position");
    }
);

/// A connection that may only read could not take the log away that it made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_file_that_nobody_uses_leaves_no_file_beside_it() {
    let world = World::new(DatabaseKind::Sqlite).await;
    world.person("alice").await;
    world.engine.close().await;

    let look = world.place.builder().inspect().await.unwrap();
    assert_eq!(look.contents().await.unwrap().people, 1);
    look.close().await;

    let files = std::fs::read_dir(world.place.folder()).unwrap();
    assert_eq!(files.count(), 1);
}
