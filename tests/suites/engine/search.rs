//! Messages are found by their text, by whoever may see them and by nobody else.

use std::time::Duration;

use futures_util::future::{join, join_all};
use messenger_core::accounts::Erase;
use messenger_core::conversations::{HistoryPolicy, NewGroup, Title};
use messenger_core::messages::{Found, Message, Search, SearchText};
use messenger_core::{ConversationId, Error, Limits, MessengerEngine, Result};
use tests::{DatabaseKind, Random};

use crate::world::{Person, Place, World, eventually, is_not_found, on_both_databases};

/// Time enough for the slowest machine: what a search waits for comes in milliseconds.
fn patient() -> Limits {
    let mut limits = Limits::default();
    limits.search_wait_max = Duration::from_secs(60);
    limits
}

async fn open(place: &Place, limits: Limits) -> MessengerEngine {
    place.builder().limits(limits).open().await.unwrap()
}

fn text(query: &str) -> SearchText {
    SearchText::parse(query, &Limits::default()).unwrap()
}

impl Person {
    async fn search(&self, search: Search) -> Result<Found> {
        self.engine.messages().search(&self.actor, search).await
    }

    /// Everything that is found, page by page.
    async fn find_all(&self, query: &str, within: Option<ConversationId>) -> Vec<Message> {
        let mut search = Search::new(text(query));
        search.conversation = within;
        search.limit = 7;
        let mut found = Vec::new();
        loop {
            let page = self.search(search.clone()).await.unwrap();
            assert!(page.is_complete, "{query}");
            found.extend(page.messages);
            match page.next_before {
                Some(before) => search.before = Some(before),
                None => return found,
            }
        }
    }

    async fn find(&self, query: &str) -> Vec<String> {
        let found = self.find_all(query, None).await.into_iter();
        found.map(|message| message.content).collect()
    }
}

/// A world whose searches wait for as long as it takes.
async fn patient_world(world: World) -> (World, Person, Person, ConversationId) {
    world.engine.close().await;
    let engine = open(&world.place, patient()).await;
    let world = World { engine, ..world };
    let (alice, bob, conversation) = world.alice_and_bob().await;
    (world, alice, bob, conversation.id)
}

on_both_databases!(
    async fn messages_are_found_in_every_script_the_newest_first(world: World) {
        let (_world, alice, bob, conversation) = patient_world(world).await;
        for said in [
            "我家在上海东边",
            "Where is Shanghai?",
            "In China, SHANGHAI 上海!",
            "ok 👍🏽",
        ] {
            alice.send(conversation, said).await;
        }

        assert_eq!(
            bob.find("上海").await,
            ["In China, SHANGHAI 上海!", "我家在上海东边"]
        );
        assert_eq!(
            bob.find("shang").await,
            ["In China, SHANGHAI 上海!", "Where is Shanghai?"]
        );
        assert_eq!(bob.find("is where").await, ["Where is Shanghai?"]);
        assert_eq!(alice.find("边").await, ["我家在上海东边"]);
        assert_eq!(alice.find("👍").await, ["ok 👍🏽"]);
        assert_eq!(alice.find("海上").await, [""; 0]);
        assert_eq!(alice.find("hanghai").await, [""; 0]);
    }

    async fn what_was_edited_or_deleted_is_found_as_it_is_now(world: World) {
        let (_world, alice, bob, conversation) = patient_world(world).await;
        let edited = alice.send(conversation, "red apples").await;
        let deleted = alice.send(conversation, "red pears").await;
        let emptied = alice.send(conversation, "red plums").await;
        assert_eq!(bob.find("red").await.len(), 3);

        alice.edit(&edited, "green apples").await.unwrap();
        alice.delete_message(&deleted).await.unwrap();
        alice.edit(&emptied, "…").await.unwrap();

        assert_eq!(bob.find("red").await, [""; 0]);
        assert_eq!(bob.find("green").await, ["green apples"]);
        assert_eq!(bob.find("pears").await, [""; 0]);
        let mut found = bob.find_all("apples", None).await;
        assert_eq!(found.pop(), Some(bob.read(&edited).await));
    }

    async fn nobody_finds_what_they_may_not_see(world: World) {
        let (world, alice, bob, _) = patient_world(world).await;
        let (carol, dave) = (world.person("carol").await, world.person("dave").await);
        let group = NewGroup {
            title: Title::parse("Hikers", alice.engine.limits()).unwrap(),
            members: vec![bob.user.id, carol.user.id],
            history: HistoryPolicy::SinceJoin,
        };
        let conversations = alice.engine.conversations();
        let group = conversations.create_group(&alice.actor, group).await;
        let group = group.unwrap().id;
        alice.send(group, "treasure one").await;
        alice.add(group, &[&dave]).await.unwrap();
        alice.send(group, "treasure two").await;
        alice.remove(group, &bob).await.unwrap();
        carol.leave(group).await.unwrap();

        assert_eq!(
            alice.find("treasure").await,
            ["treasure two", "treasure one"]
        );
        assert_eq!(dave.find("treasure").await, ["treasure two"]);
        assert_eq!(bob.find("treasure").await, [""; 0]);
        assert_eq!(carol.find("treasure").await, [""; 0]);
        let mut named = Search::new(text("treasure"));
        named.conversation = Some(group);
        assert!(is_not_found(&bob.search(named).await));

        alice.delete(group).await.unwrap();

        assert_eq!(alice.find("treasure").await, [""; 0]);
        assert_eq!(dave.find("treasure").await, [""; 0]);
    }

    async fn a_search_may_stay_within_one_conversation(world: World) {
        let (world, alice, bob, direct) = patient_world(world).await;
        let carol = world.person("carol").await;
        let other = alice.open_direct(&carol).await.id;
        alice.send(direct, "hello bob").await;
        alice.send(other, "hello carol").await;

        let contents = |found: Vec<Message>| -> Vec<String> {
            found.into_iter().map(|message| message.content).collect()
        };
        let here = alice.find_all("hello", Some(direct)).await;
        assert_eq!(contents(here), ["hello bob"]);
        let both = alice.find_all("hello", None).await;
        assert_eq!(contents(both), ["hello carol", "hello bob"]);
        let mut search = Search::new(text("hello"));
        search.conversation = Some(other);
        assert!(is_not_found(&bob.search(search).await));
    }

    async fn pages_bring_each_message_once(world: World) {
        let (_world, alice, bob, conversation) = patient_world(world).await;
        let mut expected: Vec<String> = Vec::new();
        for number in 0..120 {
            let said = format!("step {number}");
            alice.send(conversation, &said).await;
            expected.insert(0, said);
        }

        assert_eq!(bob.find("step").await, expected);
        let mut search = Search::new(text("step"));
        search.limit = 50;
        let first = bob.search(search.clone()).await.unwrap();
        assert_eq!(first.messages.len(), 50);
        // What comes meanwhile is newer than the rest.
        alice.send(conversation, "step aside").await;
        search.before = first.next_before;
        let second = bob.search(search).await.unwrap();
        assert_eq!(second.messages[0].content, "step 69");
    }

    async fn pages_go_on_past_what_was_sent_before_an_engine_was_opened(world: World) {
        let (world, mut alice, _, conversation) = patient_world(world).await;
        let mut engine = world.engine;
        let mut expected: Vec<String> = Vec::new();
        // Positions follow the clock at each opening: they are far from those before.
        for opening in 0..4 {
            for number in 0..6 {
                let said = format!("step {opening} {number}");
                alice.send(conversation, &said).await;
                expected.insert(0, said);
            }
            engine.close().await;
            engine = open(&world.place, patient()).await;
            alice = alice.at(&engine);
        }

        assert_eq!(alice.find("step").await, expected);
        assert_eq!(alice.find("step 1").await.len(), 6 + 3);
        assert_eq!(alice.find("nothing").await, [""; 0]);
    }

    async fn an_empty_index_is_filled(world: World) {
        let (world, alice, _, conversation) = patient_world(world).await;
        // So long that a step takes fewer than its number.
        let long = "界".repeat(600);
        for number in 0..450 {
            let said = format!("old {number} {long}");
            alice.send(conversation, &said).await;
        }
        world.engine.close().await;
        // As it was before there was an index.
        for table in ["search_heads", "search_messages"] {
            world.place.execute(&format!("DELETE FROM {table}")).await;
        }
        if world.place.kind() == DatabaseKind::Sqlite {
            let all = "INSERT INTO search_terms (search_terms) VALUES ('delete-all')";
            world.place.execute(all).await;
        }

        let engine = open(&world.place, patient()).await;

        let alice = alice.at(&engine);
        alice.send(conversation, "new").await;
        let found = loop {
            let found = alice.search(Search::new(text("old 0"))).await.unwrap();
            if found.is_complete {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(found.messages.len(), 1);
        assert_eq!(alice.find("old").await.len(), 450);
        assert_eq!(alice.find("new").await, ["new"]);
        assert_eq!(world.place.count("search_messages").await, 451);
    }

    async fn an_index_that_misses_lines_of_the_change_log_is_filled_anew(world: World) {
        let (world, alice, _, conversation) = patient_world(world).await;
        alice.send(conversation, "before").await;
        assert_eq!(alice.find("before").await, ["before"]);
        world.engine.close().await;
        // As if nobody had looked for so long that the lines have been deleted.
        world.place.execute("UPDATE search_heads SET pos = 0").await;
        world.place.execute("DELETE FROM search_messages").await;

        let engine = open(&world.place, patient()).await;

        let alice = alice.at(&engine);
        while !alice
            .search(Search::new(text("before")))
            .await
            .unwrap()
            .is_complete
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(alice.find("before").await, ["before"]);
    }

    async fn what_was_sent_through_another_engine_is_found_at_once(world: World) {
        let (world, alice, bob, conversation) = patient_world(world).await;
        let other = open(&world.place, patient()).await;
        let elsewhere = bob.at(&other);

        for round in 0..20 {
            alice.send(conversation, &format!("round{round}")).await;
            assert_eq!(elsewhere.find(&format!("round{round}")).await.len(), 1);
            elsewhere.send(conversation, &format!("back{round}")).await;
            assert_eq!(alice.find(&format!("back{round}")).await.len(), 1);
        }
        assert_eq!(alice.find("round").await.len(), 20);
    }

    async fn what_somebody_wrote_is_not_found_once_it_is_erased(world: World) {
        let (_world, alice, bob, conversation) = patient_world(world).await;
        alice.send(conversation, "my secret").await;
        bob.send(conversation, "a secret of mine").await;
        assert_eq!(bob.find("secret").await.len(), 2);

        let users = alice.engine.users();
        users
            .delete_me(&alice.actor, Erase::Messages)
            .await
            .unwrap();

        while bob.find("my secret").await.len() == 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bob.find("secret").await, ["a secret of mine"]);
    }

    async fn no_character_means_anything_to_the_database(world: World) {
        let (_world, alice, _, conversation) = patient_world(world).await;
        let said = r#"a"b*c:d'e\f(g)h&i|j!k<l>m%n_o^p+q-r{s}t[u]v,w;x?y/z AND OR NOT NEAR"#;
        alice.send(conversation, said).await;
        alice
            .send(conversation, "zero\u{1}width\u{200b}joined")
            .await;

        for asked in [
            said, "a* \"b", "g)", "'", "AND", "NOT x", "not:near", "\\f", "width",
        ] {
            let asked = SearchText::parse(asked, &Limits::default());
            let Ok(asked) = asked else { continue };
            let found = alice.search(Search::new(asked.clone())).await.unwrap();
            let is_first = asked.matches(said);
            assert_eq!(found.messages.len(), 1, "{asked:?}");
            assert_eq!(found.messages[0].content == said, is_first);
        }
    }

    async fn a_page_looks_at_no_more_messages_than_it_may(world: World) {
        let (world, alice, bob, conversation) = patient_world(world).await;
        alice.send(conversation, "甲乙甲").await;
        for _ in 0..250 {
            // Has each pair of what is asked for, but not in one piece.
            alice.send(conversation, "甲乙 乙甲").await;
        }
        assert_eq!(bob.find("甲乙甲").await, ["甲乙甲"]);
        world.engine.close().await;
        let mut limits = patient();
        limits.search_looked_at_max = 100;

        let bob = bob.at(&open(&world.place, limits).await);
        let mut search = Search::new(text("甲乙甲"));
        let mut pages = 0;
        let found = loop {
            let page = bob.search(search.clone()).await.unwrap();
            pages += 1;
            match page.next_before {
                Some(before) => {
                    assert_eq!(page.messages, []);
                    search.before = Some(before);
                }
                None => break page.messages,
            }
        };
        assert_eq!(found.len(), 1);
        assert_eq!(pages, 3);
    }

    async fn a_page_looks_no_longer_than_it_may(world: World) {
        let (world, alice, bob, conversation) = patient_world(world).await;
        alice.send(conversation, "甲乙甲").await;
        for _ in 0..100 {
            alice.send(conversation, "甲乙 乙甲").await;
        }
        assert_eq!(bob.find("甲乙甲").await, ["甲乙甲"]);
        world.engine.close().await;
        let mut limits = patient();
        limits.search_time_max = Duration::ZERO;

        let bob = bob.at(&open(&world.place, limits).await);
        let first = bob.search(Search::new(text("甲乙甲"))).await.unwrap();

        assert_eq!(first.messages, []);
        assert!(first.next_before.is_some());
        assert_eq!(bob.find("甲乙甲").await, ["甲乙甲"]);
    }

    async fn past_the_places_a_search_is_refused(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.searches_max = 1;
        limits.searches_per_user_max = 50;
        limits.search_wait_max = Duration::ZERO;
        let engine = open(&world.place, limits).await;
        let alice = Person::join(&engine, "alice").await;

        let searches = (0..50).map(|_| alice.search(Search::new(text("hello"))));
        let answers = join_all(searches).await;

        let refused = |answer: &&Result<Found>| matches!(answer, Err(Error::Busy { .. }));
        assert!(answers.iter().filter(refused).count() > 0);
        assert!(answers.iter().any(Result::is_ok));
        alice.search(Search::new(text("hello"))).await.unwrap();
    }

    async fn one_person_does_not_take_every_turn(world: World) {
        world.engine.close().await;
        let mut limits = patient();
        limits.searches_per_user_max = 4;
        let engine = open(&world.place, limits).await;
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;

        let searches = (0..50).map(|_| alice.search(Search::new(text("hello"))));
        let (answers, bobs) =
            join(join_all(searches), bob.search(Search::new(text("hello")))).await;

        let refused = |answer: &&Result<Found>| matches!(answer, Err(Error::Busy { .. }));
        assert_eq!(answers.iter().filter(refused).count(), 46);
        bobs.unwrap();
        alice.search(Search::new(text("hello"))).await.unwrap();
    }

    async fn the_index_goes_on_though_others_never_stop_writing(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.search_index_interval = Duration::from_millis(1);
        limits.search_index_behind_max = 10;
        let engine = open(&world.place, limits).await;
        let alice = Person::join(&engine, "alice").await;
        let bob = Person::join(&engine, "bob").await;
        let conversation = alice.open_direct(&bob).await.id;
        let first = alice.send(conversation, "the first").await;

        let talk = async |person: &Person| {
            loop {
                person.send(conversation, "and so on").await;
            }
        };
        let reached = eventually("it is indexed", async || {
            let reached = "SELECT coalesce(max(pos), 0) FROM search_heads";
            world.place.number(reached).await >= first.version.get()
        });
        tokio::select! {
            () = talk(&alice) => {}
            () = talk(&bob) => {}
            () = talk(&alice) => {}
            () = reached => {}
        }
    }

    async fn a_search_of_too_many_conversations_says_so(world: World) {
        world.engine.close().await;
        let mut limits = patient();
        limits.search_conversations_max = 2;
        let engine = open(&world.place, limits).await;
        let alice = Person::join(&engine, "alice").await;
        let mut conversations = Vec::new();
        for name in ["bob", "carol", "dave"] {
            let other = Person::join(&engine, name).await;
            let conversation = alice.open_direct(&other).await.id;
            alice.send(conversation, &format!("hello {name}")).await;
            conversations.push(conversation);
        }

        let found = alice.search(Search::new(text("hello"))).await.unwrap();

        let contents: Vec<&str> = found
            .messages
            .iter()
            .map(|found| found.content.as_str())
            .collect();
        assert_eq!(contents, ["hello dave", "hello carol"]);
        assert!(!found.is_complete);
        let mut first = Search::new(text("hello"));
        first.conversation = Some(conversations[0]);
        let found = alice.search(first).await.unwrap();
        assert_eq!((found.messages.len(), found.is_complete), (1, true));
    }

    async fn a_damaged_index_keeps_nobody_from_sending(world: World) {
        world.engine.close().await;
        let mut limits = Limits::default();
        limits.search_index_interval = Duration::from_millis(1);
        let engine = open(&world.place, limits).await;
        let (alice, bob) = (
            Person::join(&engine, "alice").await,
            Person::join(&engine, "bob").await,
        );
        let conversation = alice.open_direct(&bob).await.id;
        world.place.execute("DROP TABLE search_messages").await;

        for number in 0..100 {
            alice.send(conversation, &number.to_string()).await;
        }

        assert_eq!(bob.history(conversation).await.len(), 100);
        let found = bob.search(Search::new(text("7"))).await;
        assert!(matches!(found, Err(Error::Storage(_))), "{found:?}");
    }

    async fn a_page_has_1_to_50_messages(world: World) {
        let (_world, alice, _, _) = patient_world(world).await;
        for limit in [0, 51] {
            let mut search = Search::new(text("x"));
            search.limit = limit;
            let refused = alice.search(search).await;
            assert!(matches!(refused, Err(Error::Invalid(rule)) if rule.field == "limit"));
        }
        for limit in [1, 50] {
            let mut search = Search::new(text("x"));
            search.limit = limit;
            assert!(alice.search(search).await.unwrap().is_complete);
        }
    }

    async fn a_search_finds_what_going_through_everything_finds(world: World) {
        let (world, alice, bob, direct) = patient_world(world).await;
        let carol = world.person("carol").await;
        let group = alice.create_group(&[&bob, &carol]).await;
        let seed = Random::seed("SEARCH_SEED");
        println!("SEARCH_SEED={seed}");
        let mut random = Random::new(seed);
        let words = [
            "red", "read", "ready", "上海", "海东", "东边", "海", "Ä", "a", "👍", "7",
        ];
        let some_words = |random: &mut Random| {
            let count = 1 + random.below(4);
            let gap = ["", " ", ", "][random.below(3)];
            let chosen: Vec<&str> = (0..count)
                .map(|_| words[random.below(words.len())])
                .collect();
            chosen.join(gap)
        };
        let mut sent: Vec<(Person, Message)> = Vec::new();
        for _ in 0..150 {
            let (who, place) = match random.below(5) {
                0 => (&alice, direct),
                1 => (&bob, direct),
                2 => (&alice, group),
                3 => (&bob, group),
                _ => (&carol, group),
            };
            match random.below(10) {
                0 if !sent.is_empty() => {
                    let (who, message) = &sent[random.below(sent.len())];
                    let _ = who.delete_message(message).await;
                }
                1 | 2 if !sent.is_empty() => {
                    let (who, message) = &sent[random.below(sent.len())];
                    let _ = who.edit(message, &some_words(&mut random)).await;
                }
                3 if random.below(4) == 0 => {
                    let _ = carol.leave(group).await;
                }
                4 => {
                    let _ = alice.add(group, &[&carol]).await;
                }
                _ => {
                    let said = crate::world::message(&some_words(&mut random));
                    if let Ok(one) = who.try_send(place, said).await {
                        sent.push((who.clone(), one.message));
                    }
                }
            }
            if random.below(5) != 0 {
                continue;
            }
            let asked = some_words(&mut random);
            for who in [&alice, &bob, &carol] {
                let mut expected: Vec<Message> = Vec::new();
                for place in [direct, group] {
                    let conversations = who.engine.conversations();
                    if conversations.membership(&who.actor, place).await.is_ok() {
                        expected.extend(who.history(place).await);
                    }
                }
                let asks = text(&asked);
                expected.retain(|one| one.deleted_at.is_none() && asks.matches(&one.content));
                expected.sort_by_key(|one| std::cmp::Reverse((one.created_at, one.id)));
                let mut found = who.find_all(&asked, None).await;
                found.sort_by_key(|one| std::cmp::Reverse((one.created_at, one.id)));
                assert_eq!(found, expected, "{asked:?} as {}", who.user.username);
            }
        }
    }
);
