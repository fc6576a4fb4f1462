//! The signing secret and the files that nobody else may read.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tests::{DatabaseKind, Home, World};

async fn home() -> Home {
    Home::new(DatabaseKind::Sqlite).await
}

/// The permission bits of a file.
fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path);
    let metadata = metadata.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}

#[tokio::test]
async fn a_short_secret_is_refused_and_not_repeated() {
    for secret in ["x", "hunter2hunter2", &"s".repeat(31)] {
        let mut home = home().await;
        home.set("SECRET_KEY", secret);

        let finished = home.run(&[]).await;

        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(
            finished.stderr.trim_end().lines().count(),
            1,
            "{finished:?}"
        );
        assert!(finished.stderr.contains("SECRET_KEY"), "{finished:?}");
        assert!(
            secret.len() < 2 || !finished.stderr.contains(secret),
            "{finished:?}"
        );
    }
}

#[tokio::test]
async fn a_secret_of_32_bytes_is_long_enough() {
    let mut home = home().await;
    home.set("SECRET_KEY", "k9Qz-71_bTf!w3Xv0rPmN5sLc8yUaJdE");

    World::at(home).await.register("alice").await;
}

// The predecessor signed with a public constant unless told otherwise; examples have more of them.
#[tokio::test]
async fn a_well_known_secret_is_refused() {
    let well_known = [
        "change-me-change-me-change-me-change-me",
        "YOUR-SECRET-KEY-of-your-own-server-1234",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "00000000000000000000000000000000",
        "abababababababababababababababababababab",
    ];
    for secret in well_known {
        let mut home = home().await;
        home.set("SECRET_KEY", secret);

        let finished = home.run(&[]).await;

        assert_eq!(finished.code, Some(2), "{secret}: {finished:?}");
        assert!(finished.stderr.contains("SECRET_KEY"), "{finished:?}");
    }
}

#[tokio::test]
async fn without_a_secret_one_is_made_beside_the_database_and_kept() {
    let mut home = home().await;
    home.unset("SECRET_KEY");
    let world = World::at(home).await;
    let alice = world.register("alice").await;
    let file = world.home.file("app.db.secret");
    assert_eq!(mode(&file), 0o600);
    let secret = fs::read(&file).unwrap();
    assert!(secret.len() >= 32, "{} bytes", secret.len());

    let world = world.restart().await;

    assert_eq!(fs::read(&file).unwrap(), secret);
    let kept = world.http.with_token(&alice.access_token);
    assert_eq!(kept.get("/v1/users/me").await.data(200), &alice.user);
}

#[tokio::test]
async fn no_two_servers_make_the_same_secret() {
    let mut secrets = Vec::new();
    for _ in 0..3 {
        let mut home = home().await;
        home.unset("SECRET_KEY");
        let world = World::at(home).await;
        secrets.push(fs::read(world.home.file("app.db.secret")).unwrap());
    }

    assert!(secrets[0] != secrets[1] && secrets[1] != secrets[2] && secrets[0] != secrets[2]);
}

#[tokio::test]
async fn the_secret_is_in_no_log() {
    let mut home = home().await;
    home.unset("SECRET_KEY").set("DEBUG", "true");
    let world = World::at(home).await;
    world.register("alice").await;

    let secret = fs::read(world.home.file("app.db.secret")).unwrap();
    let log = world.server.log();

    let text = String::from_utf8_lossy(&secret);
    assert!(!log.contains(text.trim()), "{log}");
}

#[tokio::test]
async fn the_files_of_the_database_are_for_their_owner_alone() {
    let world = World::at(home().await).await;
    world.register("alice").await;

    let entries = fs::read_dir(world.home.folder()).unwrap();
    let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();

    assert!(files.contains(&world.home.file("app.db")), "{files:?}");
    assert!(files.contains(&world.home.file("attachments")), "{files:?}");
    for file in files {
        let expected = if file.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&file), expected, "{}", file.display());
    }
}

// A database on a server has no folder of its own.
#[tokio::test]
async fn beside_postgres_the_secret_is_kept_in_the_working_folder() {
    let mut home = Home::new(DatabaseKind::Postgres).await;
    home.unset("SECRET_KEY");
    let world = World::at(home).await;
    let alice = world.register("alice").await;
    assert_eq!(mode(&world.home.file("messenger.secret")), 0o600);

    let world = world.restart().await;

    let kept = world.http.with_token(&alice.access_token);
    assert_eq!(kept.get("/v1/users/me").await.data(200), &alice.user);
}

#[tokio::test]
async fn a_webhook_without_a_good_secret_or_in_the_clear_stops_the_start_with_one_line() {
    let good = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let url = "https://push.example.com/hooks";
    for (variable, url, secret) in [
        ("WEBHOOK_SECRET", url, ""),
        ("WEBHOOK_SECRET", url, "hunter2hunter2hunter2hunter2hunter2"),
        ("WEBHOOK_SECRET", url, "whsec_aHVudGVyMmh1bnRlcjI="),
        ("WEBHOOK_SECRET", url, &format!("{good} {good} {good}")),
        ("WEBHOOK_URL", "http://push.example.com/hooks", good),
        ("WEBHOOK_URL", "push.example.com", good),
        ("WEBHOOK_URL", "", good),
    ] {
        let mut home = home().await;
        home.set("WEBHOOK_URL", url).set("WEBHOOK_SECRET", secret);

        let finished = home.run(&[]).await;

        let line = finished.stderr.trim_end();
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(line.lines().count(), 1, "{finished:?}");
        assert!(line.contains(variable), "{finished:?}");
        assert!(!line.contains("hunter2") && !line.contains(good), "{line}");
    }
    let mut home = home().await;
    home.set("WEBHOOK_EVENTS", "message.created,everything");
    let finished = home.run(&[]).await;
    assert!(finished.stderr.contains("WEBHOOK_EVENTS"), "{finished:?}");
}
