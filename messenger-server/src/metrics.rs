//! What Prometheus reads: the requests, which are counted here, and what the engine and the
//! connections say of themselves at the moment of the question.
//!
//! Labels come from the route table and from the short list of statuses that we answer, so their
//! number is bounded whatever is asked. A counter is looked up once and then an atomic.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use messenger_core::{EngineStats, Histogram, HookStats, MessengerEngine};
use poem::http::{Method, StatusCode, header};
use poem::{Response, Route, endpoint, get};
use prometheus::core::Collector;
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, TextEncoder};
use tokio_util::task::TaskTracker;

use crate::api::events::Sockets;
use crate::edge::Methods;

/// Upper bounds of the times of requests, in seconds. A long poll waits up to 25 s.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// The statuses that are answered.
const STATUSES: [u16; 20] = [
    101, 200, 201, 204, 400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 426, 429, 500, 503,
    507,
];
/// The label of what is in no table.
const OTHER: &str = "other";
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The requests of a server, by operation.
pub(crate) struct Requests {
    operations: Vec<Series>,
    by_id: HashMap<&'static str, usize>,
    routes: Vec<(Methods, Method, usize)>,
    other: Series,
    count: IntCounterVec,
    seconds: HistogramVec,
}

/// The numbers of one operation, each made when it is first needed.
struct Series {
    method: String,
    route: String,
    counts: [OnceLock<IntCounter>; STATUSES.len()],
    seconds: OnceLock<prometheus::Histogram>,
}

/// What the document calls an operation, and where it is.
pub(crate) struct Operation {
    pub(crate) id: Option<&'static str>,
    pub(crate) method: Method,
    pub(crate) route: String,
}

impl Series {
    fn new(method: &str, route: String) -> Self {
        Self {
            method: method.to_owned(),
            route,
            counts: std::array::from_fn(|_| OnceLock::new()),
            seconds: OnceLock::new(),
        }
    }
}

impl Requests {
    pub(crate) fn new(operations: Vec<Operation>) -> Self {
        const NAMED: &str = "the names are ones that Prometheus takes";
        let count = Opts::new(
            "messenger_http_requests_total",
            "Requests that were answered.",
        );
        let seconds = HistogramOpts::new(
            "messenger_http_request_duration_seconds",
            "Time from the head of a request to the head of its answer.",
        );
        let mut requests = Self {
            operations: Vec::new(),
            by_id: HashMap::new(),
            routes: Vec::new(),
            other: Series::new(OTHER, OTHER.to_owned()),
            count: IntCounterVec::new(count, &["method", "route", "status"]).expect(NAMED),
            seconds: HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["method", "route"])
                .expect(NAMED),
        };
        for Operation { id, method, route } in operations {
            let place = requests.operations.len();
            requests.by_id.extend(id.map(|id| (id, place)));
            let series = Series::new(method.as_str(), route.clone());
            requests.operations.push(series);
            let methods = Methods::new(route, method.as_str());
            requests.routes.push((methods, method, place));
        }
        // Of two routes that fit, the one with fewer places to fill is meant.
        let places = |methods: &Methods| methods.path().matches('{').count();
        requests.routes.sort_by_key(|(methods, ..)| places(methods));
        requests
    }

    /// The method and the template of a route: of the operation that answered, or, where none came to
    /// it, of the path.
    pub(crate) fn named(&self, id: Option<&str>, method: &Method, path: &str) -> (&str, &str) {
        let series = self.series(id, method, path);
        (&series.method, &series.route)
    }

    /// Counts an answer.
    pub(crate) fn answered(
        &self,
        asked: (Option<&str>, &Method, &str),
        status: StatusCode,
        took: Duration,
    ) {
        let (id, method, path) = asked;
        let series = self.series(id, method, path);
        let make = || {
            let labels = [&*series.method, &*series.route, status.as_str()];
            self.count.with_label_values(&labels)
        };
        let known = STATUSES.iter().position(|known| *known == status.as_u16());
        match known {
            Some(place) => series.counts[place].get_or_init(make).inc(),
            None => make().inc(),
        }
        let seconds = || {
            let labels = [&*series.method, &*series.route];
            self.seconds.with_label_values(&labels)
        };
        let seconds = series.seconds.get_or_init(seconds);
        seconds.observe(took.as_secs_f64());
    }

    fn series(&self, id: Option<&str>, method: &Method, path: &str) -> &Series {
        let known = id.and_then(|id| self.by_id.get(id)).copied();
        let fits = || {
            let fits = |(route, of, _): &&(Methods, Method, usize)| of == method && route.fit(path);
            self.routes.iter().find(fits).map(|(.., place)| *place)
        };
        known
            .or_else(fits)
            .map_or(&self.other, |place| &self.operations[place])
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Whom the numbers are asked of.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) engine: MessengerEngine,
    pub(crate) requests: Arc<Requests>,
    pub(crate) sockets: Sockets,
    pub(crate) connections: TaskTracker,
}

impl Sources {
    /// The route that tells the numbers.
    pub(crate) fn route(self) -> Route {
        let told = endpoint::make(move |_| {
            let sources = self.clone();
            async move { sources.told().await }
        });
        Route::new().at("/metrics", get(told))
    }

    async fn told(&self) -> Response {
        let database_bytes = self.engine.database_bytes().await.ok();
        let mut families = self.requests.count.collect();
        families.extend(self.requests.seconds.collect());
        families.extend(self.connections());
        let stats = self.engine.stats();
        families.extend(engine(&stats));
        families.extend(hooks(&stats.hooks));
        // A database that does not answer has no size, which the others must not wait for.
        families.extend(database_bytes.map(|bytes| {
            let help = "Size of the database on disk; of SQLite, with its log.";
            gauge("messenger_database_bytes", help, bytes as f64)
        }));
        families.retain(|family| !family.get_metric().is_empty());
        match TextEncoder::new().encode_to_string(&families) {
            Ok(text) => Response::builder()
                .header(header::CONTENT_TYPE, CONTENT_TYPE)
                .body(text),
            Err(error) => {
                tracing::error!(%error, "the metrics can not be written");
                StatusCode::INTERNAL_SERVER_ERROR.into()
            }
        }
    }

    fn connections(&self) -> [MetricFamily; 4] {
        let open = self.sockets.open();
        let mut info = gauge("messenger_info", "What runs here.", 1.0);
        let version = label("version", env!("CARGO_PKG_VERSION"));
        for metric in info.mut_metric().iter_mut() {
            metric.set_label(vec![version.clone()]);
        }
        [
            info,
            gauge(
                "messenger_http_connections",
                "Connections that are open, without those that became WebSockets.",
                self.connections.len() as f64,
            ),
            gauge(
                "messenger_sockets",
                "WebSockets that are open.",
                open.sockets as f64,
            ),
            gauge(
                "messenger_event_streams",
                "Streams of server-sent events that are open.",
                open.streams as f64,
            ),
        ]
    }
}

/// What an engine says of itself.
fn engine(stats: &EngineStats) -> Vec<MetricFamily> {
    let outcomes = [
        ("done", stats.writes),
        ("refused", stats.writes_refused),
        ("failed", stats.writes_failed),
    ];
    let writes = outcomes.map(|(outcome, count)| {
        let mut metric = counted(count);
        metric.set_label(vec![label("outcome", outcome)]);
        metric
    });
    vec![
        family(
            "messenger_messages_sent_total",
            "Messages that were stored, repeats not counted.",
            MetricType::COUNTER,
            vec![counted(stats.messages_sent)],
        ),
        family(
            "messenger_writes_total",
            "Writes that took place, that broke a rule, or that could not be stored.",
            MetricType::COUNTER,
            writes.to_vec(),
        ),
        gauge(
            "messenger_writes_queued",
            "Writes that wait for the writer.",
            stats.writes_queued as f64,
        ),
        histogram(
            "messenger_batch_writes",
            "Writes in a transaction.",
            &stats.batch_writes,
        ),
        histogram(
            "messenger_batch_duration_seconds",
            "Time of a transaction from its beginning to the end of its commit.",
            &stats.batch_seconds,
        ),
        histogram(
            "messenger_commit_duration_seconds",
            "Time of a commit.",
            &stats.commit_seconds,
        ),
        gauge(
            "messenger_change_log_position",
            "Last position of the change log.",
            stats.head.get() as f64,
        ),
        gauge(
            "messenger_change_log_lag",
            "Positions that live events are behind the change log.",
            stats.lag() as f64,
        ),
        gauge(
            "messenger_change_log_look_age_seconds",
            "Time since the change log was last looked at with success.",
            stats.looked_ago.as_secs_f64(),
        ),
        gauge(
            "messenger_hub_queued",
            "Transactions and questions that wait for the delivery of events.",
            stats.hub_queued as f64,
        ),
        gauge(
            "messenger_hub_listeners",
            "People who listen, or did a few seconds ago.",
            stats.listeners as f64,
        ),
        gauge(
            "messenger_hub_moves_remembered",
            "Comings and goings that are remembered for those who begin to listen.",
            stats.moves_remembered as f64,
        ),
        gauge(
            "messenger_subscriber_queue_longest",
            "Events that wait in the longest queue of a listener; it is a ring of 64.",
            stats.subscriber_queue_longest as f64,
        ),
        family(
            "messenger_subscriber_queue_overflows_total",
            "Events that were pushed out of full queues of listeners, who read the database then.",
            MetricType::COUNTER,
            vec![counted(stats.subscriber_queue_overflows)],
        ),
        gauge(
            "messenger_password_hashings",
            "Passwords that are being hashed.",
            stats.hashings as f64,
        ),
        gauge(
            "messenger_password_hashings_queued",
            "Passwords that wait to be hashed.",
            stats.hashings_queued as f64,
        ),
        family(
            "messenger_password_hashings_refused_total",
            "Passwords that were not hashed, since too many waited.",
            MetricType::COUNTER,
            vec![counted(stats.hashings_refused)],
        ),
    ]
}

/// What the engine says of the endpoints that are told of changes.
fn hooks(hooks: &[HookStats]) -> Vec<MetricFamily> {
    let of = |hook: &HookStats, mut metric: Metric, more: Option<LabelPair>| {
        let name = label("hook", &hook.name);
        metric.set_label([name].into_iter().chain(more).collect());
        metric
    };
    let changes = hooks.iter().flat_map(|hook| {
        let outcomes = [
            ("told", hook.told),
            ("failed", hook.failed),
            ("left_out", hook.left_out),
            ("missed", hook.missed),
        ];
        outcomes.map(|(outcome, count)| of(hook, counted(count), Some(label("outcome", outcome))))
    });
    let each = |name: &str, help: &str, value: fn(&HookStats) -> f64| {
        let metrics = hooks
            .iter()
            .map(|hook| of(hook, measured(value(hook)), None));
        family(name, help, MetricType::GAUGE, metrics.collect())
    };
    vec![
        family(
            "messenger_hook_changes_total",
            "Changes that were told, tries that failed, changes that were left out, and holes.",
            MetricType::COUNTER,
            changes.collect(),
        ),
        each(
            "messenger_hook_conversations_waiting",
            "Conversations that wait since telling them failed.",
            |hook| hook.waiting as f64,
        ),
        each(
            "messenger_hook_waiting_seconds",
            "Time for which something has waited to be told.",
            |hook| hook.waiting_for.as_secs_f64(),
        ),
        each(
            "messenger_hook_lag",
            "Positions of the change log that were not told, conversations that wait not counted.",
            |hook| hook.lag as f64,
        ),
        each(
            "messenger_hook_stopped",
            "Whether nothing is told any more until the server is started again.",
            |hook| f64::from(u8::from(hook.is_stopped)),
        ),
    ]
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![measured(value)])
}

fn measured(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn counted(count: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count as f64);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

fn histogram(name: &str, help: &str, seen: &Histogram) -> MetricFamily {
    let mut upto = 0;
    let buckets = seen.bounds.iter().zip(&seen.counts).map(|(bound, count)| {
        upto += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(upto);
        bucket
    });
    let mut told = prometheus::proto::Histogram::default();
    told.set_bucket(buckets.collect());
    told.set_sample_count(seen.count());
    told.set_sample_sum(seen.sum);
    let mut metric = Metric::default();
    metric.set_histogram(told);
    family(name, help, MetricType::HISTOGRAM, vec![metric])
}
