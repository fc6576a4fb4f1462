//! The server, its settings and what they still mean.
//!
//! `messenger-server --help` lists every setting with its unit and its default, and so does the file
//! `messenger-server/SETTINGS.md`, which is made of the same. Each is an environment variable, too, and
//! may stand in a `.env` file in the working folder, which does not override the real environment.
//!
//! # What must be kept
//!
//! The database, the secret, and the attachments.
//!
//! Without `SECRET_KEY` the server makes a random secret at its first start and keeps it beside an
//! SQLite file (`app.db.secret`) or, with PostgreSQL, in `messenger.secret` in the working folder, both
//! with mode 0600. Whoever has the secret can sign access tokens; with another secret, everybody's
//! access tokens stop working and their apps refresh them. All servers over one database need the same
//! secret.
//!
//! Files that are sent with messages are in the folder `attachments` beside an SQLite database or, with
//! PostgreSQL, in the working folder; `ATTACHMENTS_URL` names another place. A folder is made with mode
//! 0700, and the log says at the start which place it is. All servers over one database need the same
//! place, a shared folder or a bucket. No file in it has a name that a person gave it.
//!
//! A file `place` in it, a line that the database knows, says that it is the right one: once there are
//! attachments no server starts with another place, or with an empty one because a disk is not there. A
//! database that knows none yet takes the first that it is given. To move the attachments, copy all
//! of it with that file while no server runs, and name the new place. If they are lost for good, make the
//! file in the new place with the line that the refusal to start names.
//!
//! An SQLite database is three files while a server runs (`app.db`, `-wal`, `-shm`) and one after it
//! has stopped. Do not copy one of three.
//!
//! # Commands
//!
//! Each reads the settings as the server does, and may be run while it runs:
//!
//! | command | what |
//! |---|---|
//! | `messenger-server stats` | how many people, conversations, messages, sessions there are, and how large the database is |
//! | `messenger-server user list`, `user sessions NAME` | who there is, page by page (`--search`, `--after`, `--limit`), and on which devices |
//! | `messenger-server user add NAME`, `user password NAME` | an account, another password; the password is asked for, or is a line of standard input |
//! | `messenger-server user logout NAME` | ends all sessions; tokens stop working and sockets close |
//! | `messenger-server user delete NAME` | ends an account (`--erase-messages` with what it wrote); asks, unless `--yes` |
//! | `messenger-server migrate` | brings the schema up to date, as every start does, shows on a terminal which migration it is at, and says from what to what |
//!
//! `stats`, `user list` and `user sessions` only read, and no client notices them. The others write as
//! one more server would: a running one sees what they did within moments. `--json` is for programs.
//!
//! # Backups
//!
//! `messenger-server backup FILE` copies an SQLite database into a new file while the server runs, as of
//! one moment, and checks the copy: what was acknowledged before is in it. Keep the secret as well.
//!
//! `messenger-server restore FILE` puts it back. Stop the server first; the former database stays
//! beside the new one, with `.before-` and a time after its name. Whatever clients know from before is
//! void: they are told `resync_required`, begin again, and send again what the copy does not have and
//! they still keep. `FILE` may also be a copy of the files of a server that did not run, with its `-wal`
//! beside it if there is one. One that a newer version has made is refused.
//!
//! In process it is [`MessengerEngine::backup`](crate::MessengerEngine::backup) and
//! [`EngineBuilder::restore`](crate::EngineBuilder::restore). PostgreSQL has tools of its own
//! (`pg_dump`, `pg_basebackup`); what a restore means there is said below.
//!
//! Copy the attachments **after** the database: a file is there before any message has it, so a copy that
//! is later than that of the database has all of them, and at worst some more. What a restore has taken
//! back stays in its place as files that nothing names. A file that is missing is a 404 to whoever asks
//! for it, and a line in the log.
//!
//! # Attachments
//!
//! They go up and down as streams, so a file of any length takes a few MiB of memory, and one picture at a
//! time up to 44 MiB to be made small. `ATTACHMENT_BYTES_MAX` bounds a file, `ATTACHMENT_TYPES` what their
//! senders say that they are, which nobody checks: whoever downloads one gets it as a file to keep, and
//! browsers are told to run nothing of it. One person has at most 100 that were not sent, 4 uploads at a
//! time and 16 downloads; everybody together has 32 uploads and 256 downloads. An upload ends if it brings
//! less than 32 KiB in 30 s of waiting for it, and after six hours. What was not sent goes after a day, and
//! what belonged to a deleted message within moments; if the place can not be reached, as soon as it can.
//! Nothing bounds what all messages hold together but the disk, of which uploads leave 256 MiB free (507
//! from there on), so that people can still write: watch it.
//!
//! `ATTACHMENTS_URL=s3://bucket/prefix` keeps them in a bucket, with `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, and for others than Amazon `AWS_ENDPOINT`, as usual. The keys must allow to
//! get, put, delete and list. An upload takes up to 16 MiB of memory then; a bucket that is silent for
//! about a minute is 503. Give the bucket a rule that removes uploads in parts which nobody finished: those
//! of a server that died are known to nobody else.
//! A server without S3 is built with `--no-default-features`.
//!
//! # Durability
//!
//! A send is acknowledged when it is on disk. `DATABASE_DURABILITY=relaxed` gives up the last
//! moments before a power loss for faster single sends; `/health` says which is on.
//!
//! An SQLite database's write-ahead log grows to about 32 MiB before it is moved into the database,
//! which one send in some thousands waits for. While readers overlap it can not be moved whole; past
//! 128 MiB a write waits up to a second for them. A program of yours that reads the file for minutes
//! lets it grow on.
//!
//! # Where it runs
//!
//! `messenger-server/deploy/` has what to begin with; each file says at its top how it is used:
//!
//! | file | what |
//! |---|---|
//! | `Dockerfile` | a small image without a shell; not root, data in `/data`, its health checked by `messenger-server health` |
//! | `messenger.service` | a systemd unit: a user of its own, data in `/var/lib/messenger`, and nothing else writable |
//! | `nginx.conf`, `Caddyfile` | a proxy in front of it |
//!
//! What a proxy must keep, whichever it is: WebSockets are upgraded; answers are not collected before
//! they are passed on (`/v1/events`, exports); nothing is cut before 75 s of silence, since a long poll
//! waits 25 s, and on a quiet socket or stream something is said within 30 s; bodies up to
//! `REST_BODY_BYTES_MAX` pass, and to `/v1/attachments` up to `ATTACHMENT_BYTES_MAX`, as they come.
//!
//! # In front of it
//!
//! Put a proxy that ends TLS before a server that the internet can reach. Name the proxy in
//! `TRUSTED_PROXIES`: only then is the client's address taken from `X-Forwarded-For`, which is what
//! the limit on log-ins counts by. Let it pass on `Host` as it came: a WebSocket whose `Origin` is
//! present must name that host or be listed in `CORS_ORIGINS`, or it is answered 403. The web client
//! at `/` needs TLS: browsers let a page keep itself, and lock between tabs, over https and on
//! `localhost` only.
//!
//! Each connection is an open file, and each attachment on its way another. The server raises its soft
//! limit of open files by itself, up to the hard one, and warns at the start if that is below what
//! `HTTP_MAX_CONNECTIONS` and `WS_MAX_CONNECTIONS` allow.
//!
//! One client does not take everything: one person has at most `WS_MAX_CONNECTIONS_PER_USER` WebSockets and
//! event streams, and 4 searches that are under way or wait; 2 bootstraps or pages of a sync are read for
//! them at a time, and more wait for these. An answer stays in memory until it is read: of
//! those from 256 KiB on one person may leave 64 MiB unread, and all together 512 MiB; past any of these it
//! is 503 with `Retry-After`.
//!
//! # Watching it
//!
//! `METRICS_LISTEN=127.0.0.1:9464` opens a second listener for Prometheus, which is told at `/metrics`:
//!
//! | name | what |
//! |---|---|
//! | `messenger_http_requests_total`, `messenger_http_request_duration_seconds` | requests by method, route (never a path) and status; a long poll takes up to 25 s |
//! | `messenger_http_connections`, `messenger_sockets`, `messenger_event_streams` | what is open |
//! | `messenger_messages_sent_total`, `messenger_writes_total` | messages, and all writes by outcome: `done`, `refused` by a rule, `failed` |
//! | `messenger_writes_queued`, `messenger_batch_writes`, `messenger_batch_duration_seconds`, `messenger_commit_duration_seconds` | the write path: what waits, how much goes into a transaction, how long it takes |
//! | `messenger_change_log_position`, `messenger_change_log_lag`, `messenger_change_log_look_age_seconds` | live events: how many changes behind, and since when nothing is known of other servers |
//! | `messenger_hub_queued`, `messenger_hub_listeners`, `messenger_hub_moves_remembered` | who listens, and what waits for them |
//! | `messenger_subscriber_queue_longest`, `messenger_subscriber_queue_overflows_total` | the ring of 64 live events that each listener has: the fullest one, as of a few seconds ago, and events that were pushed out before they were read, which costs a read of the database |
//! | `messenger_password_hashings`, `…_queued`, `…_refused_total` | log-ins under way |
//! | `messenger_hook_changes_total`, `messenger_hook_conversations_waiting`, `messenger_hook_waiting_seconds`, `messenger_hook_lag`, `messenger_hook_stopped` | the webhook: changes by outcome (`told`, `failed` tries, `left_out`, `missed`), and how far it is behind |
//! | `messenger_database_bytes` | its size on disk; missing while it does not answer |
//!
//! Worth waking somebody up: `failed` writes that grow, `messenger_writes_queued` near 4,096,
//! `messenger_change_log_look_age_seconds` above 5, `messenger_hook_waiting_seconds` that grows, refused
//! hashings, and a disk that fills.
//! A host that embeds the engine reads [`MessengerEngine::stats`](crate::MessengerEngine::stats).
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318` sends traces to a collector by OTLP over HTTP: a
//! span of each request, as a part of the caller's trace (`traceparent`), with its method, route, status
//! and request id; in it `write`, what a write waited and took; and each transaction (`batch`, linked to
//! its writes) with its `commit`. No span has a path, a name, a token or a text. The other `OTEL_`
//! variables mean what OpenTelemetry says (`OTEL_TRACES_SAMPLER=traceidratio` with
//! `OTEL_TRACES_SAMPLER_ARG=0.01` sends one in a hundred, whatever callers ask for; samplers whose names
//! begin with `parentbased_`, the default among them, do what a caller's `traceparent` says). The server
//! speaks no TLS to a collector; put one beside it that does. A collector that is away costs spans and
//! nothing else.
//!
//! `/health` says whether the server works, and reads from the database: restart it when that fails for
//! long. `/ready` says whether to send it requests, and writes, at most once a second: a database that is
//! locked or a standby makes it 503, a full disk 507, and so does a stop. Both are told on the listener
//! for metrics, too.
//!
//! # Telling others
//!
//! `WEBHOOK_URL` is told of what happens, so that a service for notifications can be attached. Each change
//! is a `POST` of `{"type": "message.created", "timestamp": …, "data": {…}}`, which `openapi.json` describes
//! (`x-webhooks`); `WEBHOOK_EVENTS` says which types. A new message comes with its sender, its
//! conversation, and in `notify` the members who want to hear of it. No token and no password is in any of
//! them.
//!
//! It is signed as [Standard Webhooks](https://www.standardwebhooks.com) has it: `webhook-signature` has
//! `v1,` and the HMAC-SHA256 of `webhook-id`, `webhook-timestamp` and the body, joined by dots, with the
//! bytes of `WEBHOOK_SECRET`. There are libraries that verify it. For another secret set both, with a space
//! in between, until the endpoint knows the new one; the new one may stand first or second.
//!
//! What the endpoint must do:
//!
//! - verify the signature over the bytes that came, and refuse a timestamp that is minutes old;
//! - answer within 15 s, with any 2xx, once it has stored what came or is done with it;
//! - know what it has had by `webhook-id`: the same comes again after a lost answer or a crash here;
//! - answer a `type` that it does not know with a 2xx.
//!
//! | answer | what becomes of it |
//! |---|---|
//! | 2xx | taken |
//! | 410 | nothing more is told until the server is started again; an error in the log |
//! | 429, 503 | tried again; nothing is told before `Retry-After`, for which 15 min are the most |
//! | anything else, redirects too, or none | tried again after 5 s, then twice as long each time up to 15 min |
//!
//! The changes of a conversation come in order: while one is tried again, those after it wait, and other
//! conversations go on. An endpoint that takes nothing costs a position in the database and a few rows, and
//! is told everything when it is back. A change that was tried for 3 days, while nothing of its conversation
//! was taken, is left out with its id in the log (`left_out`). The change log is kept for an endpoint for
//! 7 days; past it, `changes.missed` says from where to where. A server that is told of a webhook for the
//! first time begins with what happens from then on. Of several servers over one database one tells; if it
//! is killed, another one, or the same after a start, goes on within 10 s.
//!
//! The address needs `https://`, verified by the roots that browsers trust. `http://` is for `localhost`,
//! private addresses and names without a dot, like another container's. Redirects are not followed.
//!
//! # When PostgreSQL does not answer
//!
//! Connections that are cut are made anew at the next use, the writer's too, however long the outage
//! was. Connections that fall silent are noticed after 10 s and replaced; what was under way on them is
//! answered 503 (a read after 30 s) and may be sent again. Subscriptions and sockets wait and go on. A
//! server that has become a standby is left at the first write that it refuses.
//!
//! A refresh, a registration and a change of the password have no id under which they could be sent
//! again: whoever gets a 503 for one of these may have to log in. `REFRESH_TOKEN_GRACE_SECONDS`
//! forgives a spent refresh token for some seconds, at the price that a thief is seen later.
//!
//! # Settings of the predecessor
//!
//! `REALTIME_DISPATCHER_*` are accepted and mean what they still can. There is no outbox any more
//! that a dispatcher would empty:
//!
//! - `REALTIME_DISPATCHER_ENABLED=false` stops the delivery of live messages. Sync has everything,
//!   and a session that is ended still closes its sockets. `resume` is refused then (`INVALID_COMMAND`;
//!   the welcome's `features` do not list it), and `GET /v1/events` is 404.
//! - `REALTIME_DISPATCHER_POLL_MS` is how often a server looks for changes of *other* servers. What
//!   is sent through it is delivered without waiting for that.
//! - `REALTIME_DISPATCHER_BATCH_SIZE` is how many lines of the change log are read at a time.
//!
//! # After a restore or a fail-over of PostgreSQL
//!
//! Nothing has to be restarted: at the next write every server notices and forgets what it knows of
//! the end of the history. Sockets are closed, and clients sync again; one that had seen what was
//! lost is told to start again. That is so for a database that was made anew, and for one whose
//! tables were made or emptied by the restore; rows that are deleted and inserted by hand can not be
//! told from changes. Do not change users or members by hand while servers run:
//! they keep such rows in memory until somebody moves the head of the change log.
//!
//! # Stopping
//!
//! On SIGTERM `/ready` answers 503 at once. After `STOP_DELAY_SECONDS`, in which it serves as before so
//! that a balancer can notice, the server takes no more connections, lets open requests end, closes
//! sockets with a close frame, finishes the writes that are queued, and exits within 10 s. Metrics are
//! told to the end.
