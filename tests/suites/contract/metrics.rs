//! What Prometheus is told.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use tests::{EventStream, Http, World, fresh_id, on_both_databases, soon};

/// What the server tells whoever watches it.
struct Told(String);

impl Told {
    async fn by(world: &World) -> Self {
        let http = Http::new(world.server.metrics_address());
        let answer = http.bare(http.request(Method::GET, "/metrics")).await;
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        Self(answer.text().await.unwrap())
    }

    /// The number of a series that is told once.
    #[track_caller]
    fn number(&self, series: &str) -> f64 {
        let lines = self.0.lines();
        let told: Vec<_> = lines
            .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .collect();
        assert_eq!(told.len(), 1, "{series} in {}", self.0);
        told[0].parse().unwrap()
    }

    /// The same for requests with an answer of this status.
    #[track_caller]
    fn requests(&self, method: &str, route: &str, status: u16) -> f64 {
        self.number(&format!(
            "messenger_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"
        ))
    }
}

on_both_databases!(
    #[with(METRICS_LISTEN = "127.0.0.1:0")]
    async fn requests_are_counted_by_route_and_status_and_never_by_path(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        for n in 0..3 {
            alice.send(&conversation, &n.to_string()).await;
        }
        let body = json!({"client_message_id": "client-message-1", "content": "once"});
        let path = format!("/v1/conversations/{conversation}/messages");
        alice.post(&path, &body).await.data(201);
        alice.post(&path, &body).await.data(200);
        alice
            .post(&path, &json!({}))
            .await
            .error(422, "validation_error");
        world.http.get(&path).await.error(401, "not_authenticated");
        bob.get("/v1/no/such/route").await.error(404, "not_found");

        let told = Told::by(&world).await;

        let messages = "/v1/conversations/{conversation_id}/messages";
        assert_eq!(told.requests("POST", "/v1/auth/register", 201), 2.0);
        assert_eq!(told.requests("POST", messages, 201), 4.0);
        assert_eq!(told.requests("POST", messages, 200), 1.0);
        assert_eq!(told.requests("POST", messages, 422), 1.0);
        assert_eq!(told.requests("GET", messages, 401), 1.0);
        assert_eq!(told.requests("other", "other", 404), 1.0);
        let times = "messenger_http_request_duration_seconds_count";
        let sends = format!("{times}{{method=\"POST\",route=\"{messages}\"}}");
        assert_eq!(told.number(&sends), 6.0);
        assert!(!told.0.contains(&conversation), "{}", told.0);
        assert!(!told.0.contains("no/such"), "{}", told.0);
    }

    #[with(METRICS_LISTEN = "127.0.0.1:0")]
    async fn what_the_engine_did_is_told_in_exact_numbers(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let before = Told::by(&world).await;
        for n in 0..3 {
            alice.send(&conversation, &n.to_string()).await;
        }
        let nowhere = alice.try_send(&fresh_id(), &fresh_id(), "nobody").await;
        nowhere.error(404, "conversation_not_found");

        let told = Told::by(&world).await;

        let more = |series: &str| told.number(series) - before.number(series);
        assert_eq!(more("messenger_messages_sent_total"), 3.0);
        assert_eq!(more("messenger_writes_total{outcome=\"refused\"}"), 1.0);
        assert_eq!(more("messenger_writes_total{outcome=\"failed\"}"), 0.0);
        for series in [
            "messenger_batch_writes_sum",
            "messenger_batch_writes_count",
            "messenger_batch_writes_bucket{le=\"1\"}",
            "messenger_commit_duration_seconds_count",
            "messenger_batch_duration_seconds_count",
        ] {
            assert_eq!(more(series), 4.0, "{series}");
        }
        assert_eq!(more("messenger_writes_total{outcome=\"done\"}"), 3.0);
        assert!(more("messenger_commit_duration_seconds_sum") > 0.0);
        assert_eq!(more("messenger_change_log_position"), 3.0);
        for queue in [
            "messenger_writes_queued",
            "messenger_subscriber_queue_longest",
            "messenger_subscriber_queue_overflows_total",
            "messenger_password_hashings_queued",
            "messenger_password_hashings_refused_total",
        ] {
            assert_eq!(told.number(queue), 0.0, "{queue}");
        }
        assert!(told.number("messenger_database_bytes") > 4_096.0);
    }

    #[with(METRICS_LISTEN = "127.0.0.1:0")]
    async fn open_sockets_and_streams_are_counted(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let socket = alice.listening(&[&conversation]).await;
        let mut stream = EventStream::open(&bob.http, "/v1/events", None).await;
        stream.expect("sync.page").await;
        stream.expect("sync.live").await;

        let told = Told::by(&world).await;
        assert_eq!(told.number("messenger_sockets"), 1.0);
        assert_eq!(told.number("messenger_event_streams"), 1.0);
        assert_eq!(told.number("messenger_hub_listeners"), 2.0);
        assert!(told.number("messenger_http_connections") >= 1.0);

        drop(socket);
        let gone = async {
            loop {
                let told = Told::by(&world).await;
                if told.number("messenger_sockets") == 0.0 {
                    break;
                }
            }
        };
        soon("the socket to be gone", gone).await;
    }

    #[with(METRICS_LISTEN = "127.0.0.1:0")]
    async fn each_metric_says_its_kind_and_what_it_is(world: World) {
        world.register("alice").await;

        let told = Told::by(&world).await;

        let named = |word: &str| -> BTreeSet<String> {
            let lines = told.0.lines().filter_map(|line| line.strip_prefix(word));
            let names = lines.filter_map(|line| line.split(' ').next());
            names.map(str::to_owned).collect()
        };
        let (helps, kinds) = (named("# HELP "), named("# TYPE "));
        assert_eq!(helps, kinds);
        assert!(helps.len() > 20, "{helps:?}");
        for line in told.0.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let family = of_histogram.filter(|family| helps.contains(*family));
            let family = family.unwrap_or(name);
            assert!(
                family.starts_with("messenger_") && helps.contains(family),
                "{line}"
            );
            let counts = told.0.contains(&format!("# TYPE {family} counter"));
            assert_eq!(counts, family.ends_with("_total"), "{line}");
        }
    }

    #[with(METRICS_LISTEN = "127.0.0.1:0")]
    async fn metrics_are_told_on_their_own_listener_only(world: World) {
        world.http.get("/metrics").await.error(404, "not_found");
        let watcher = Http::new(world.server.metrics_address());

        watcher.get("/health").await.data(200);
        watcher.get("/ready").await.data(200);
        watcher
            .get("/v1/conversations")
            .await
            .error(404, "not_found");
    }
);
