//! The server, its settings and what they still mean.
//!
//! `messenger-server --help` lists every setting with its unit and its default; each is an
//! environment variable, too, and may stand in a `.env` file in the working folder, which does not
//! override the real environment.
//!
//! # What must be kept
//!
//! The database, and the secret. Without `SECRET_KEY` the server makes a random secret at its first
//! start and keeps it beside an SQLite file (`app.db.secret`) or, with PostgreSQL, in
//! `messenger.secret` in the working folder, both with mode 0600. Whoever has the secret can sign
//! access tokens; with another secret, everybody's access tokens stop working and their apps
//! refresh them. All servers over one database need the same secret.
//!
//! An SQLite database is three files while a server runs (`app.db`, `-wal`, `-shm`) and one after it
//! has stopped. Do not copy one of three.
//!
//! # Backups
//!
//! `messenger-server backup FILE` copies an SQLite database into a new file while the server runs, as of
//! one moment, and checks the copy: what was acknowledged before is in it. Keep the secret as well.
//!
//! `messenger-server restore FILE` puts it back. Stop the server first; the former database stays
//! beside the new one, with `.before-` and a time after its name. Whatever clients know from before is
//! void: they are told `resync_required`, begin again, and send again what the copy does not have and
//! they still keep.
//!
//! In process it is [`MessengerEngine::backup`](crate::MessengerEngine::backup) and
//! [`EngineBuilder::restore`](crate::EngineBuilder::restore). PostgreSQL has tools of its own
//! (`pg_dump`, `pg_basebackup`); what a restore means there is said below.
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
//! # In front of it
//!
//! Put a proxy that ends TLS before a server that the internet can reach. Name the proxy in
//! `TRUSTED_PROXIES`: only then is the client's address taken from `X-Forwarded-For`, which is what
//! the limit on log-ins counts by. Let it pass on `Host` as it came: a WebSocket whose `Origin` is
//! present must name that host or be listed in `CORS_ORIGINS`, or it is answered 403.
//!
//! Each connection is an open file. The server raises its soft limit of open files by itself, up to
//! the hard one, and warns at the start if that is below what `HTTP_MAX_CONNECTIONS` and
//! `WS_MAX_CONNECTIONS` allow.
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
//! On SIGTERM the server takes no more connections, lets open requests end, closes sockets with a
//! close frame, finishes the writes that are queued, and exits within 10 s.
