//! Limits on how often: a strict sliding window, and one such window for each client.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use poem::http::HeaderMap;

/// Clients that are remembered at a time. Past it, those idle for longest start afresh.
const CLIENTS_MAX: usize = 100_000;

/// So many in so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// How many are admitted within `per`.
    pub(crate) max: usize,
    /// The length of the window.
    pub(crate) per: Duration,
}

/// The times at which something was admitted lately. In any stretch of `per` there are at most
/// `max`; what is refused does not count.
#[derive(Debug, Default)]
pub(crate) struct Window {
    admitted: VecDeque<Instant>,
}

impl Window {
    /// Admits one more now, or says how long to wait until one is admitted.
    pub(crate) fn admit(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        while let Some(&oldest) = self.admitted.front() {
            let age = now.saturating_duration_since(oldest);
            if age < rate.per {
                if self.admitted.len() < rate.max {
                    break;
                }
                return Err(rate.per - age);
            }
            self.admitted.pop_front();
        }
        self.admitted.push_back(now);
        Ok(())
    }
}

/// One window for each client address and path.
#[derive(Debug)]
pub(crate) struct RateByClient {
    rate: Rate,
    windows: Mutex<Generations>,
}

type Windows = HashMap<(IpAddr, String), Window>;

/// The windows in use, in two maps: every `per`, the older map is dropped whole, and what was
/// used since has moved to the newer one. So nothing is ever searched for idle entries.
#[derive(Debug)]
struct Generations {
    newer: Windows,
    older: Windows,
    turned_at: Instant,
}

impl RateByClient {
    /// Starts with no client known.
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            windows: Mutex::new(Generations {
                newer: Windows::new(),
                older: Windows::new(),
                turned_at: Instant::now(),
            }),
        }
    }

    /// Admits one more request of a client now, or says how long to wait.
    pub(crate) fn admit(&self, client: IpAddr, path: &str, now: Instant) -> Result<(), Duration> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = now.saturating_duration_since(windows.turned_at) >= self.rate.per;
        if stale || windows.newer.len() >= CLIENTS_MAX / 2 {
            windows.older = std::mem::take(&mut windows.newer);
            windows.turned_at = now;
        }
        let key = (network(client), path.to_owned());
        let older = windows.older.remove(&key);
        let window = windows.newer.entry(key).or_default();
        if let Some(older) = older {
            *window = older;
        }
        window.admit(self.rate, now)
    }
}

/// Returns the address for which a client counts: one IPv6 client commonly owns a whole /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Returns the address of the client: the peer, unless that is a proxy we trust; then the
/// right-most address in `X-Forwarded-For` that is not such a proxy.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.contains(&address.to_canonical());
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    let forwarded = headers.get_all("x-forwarded-for").iter().rev();
    for hop in forwarded.flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')) {
        // Only what a trusted proxy wrote is believed, and the first garbage ends that.
        let Ok(address) = hop.trim().parse() else {
            return client;
        };
        client = address;
        if !is_trusted(address) {
            return client;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        max: 3,
        per: Duration::from_secs(10),
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn no_stretch_of_the_window_holds_more_than_the_maximum() {
        let start = Instant::now();
        let mut window = Window::default();

        assert_eq!(window.admit(RATE, start), Ok(()));
        assert_eq!(window.admit(RATE, after(start, 4)), Ok(()));
        assert_eq!(window.admit(RATE, after(start, 9)), Ok(()));
        assert_eq!(
            window.admit(RATE, after(start, 9)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(window.admit(RATE, after(start, 10)), Ok(()));
        assert_eq!(
            window.admit(RATE, after(start, 13)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(window.admit(RATE, after(start, 14)), Ok(()));
    }

    #[test]
    fn clients_and_paths_have_windows_of_their_own_and_a_64_is_one_client() {
        let start = Instant::now();
        let limiter = RateByClient::new(Rate { max: 1, ..RATE });
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");

        assert!(limiter.admit(ip("192.0.2.1"), "/login", start).is_ok());
        assert!(limiter.admit(ip("192.0.2.1"), "/login", start).is_err());
        assert!(
            limiter
                .admit(ip("::ffff:192.0.2.1"), "/login", start)
                .is_err()
        );
        assert!(limiter.admit(ip("192.0.2.1"), "/register", start).is_ok());
        assert!(limiter.admit(ip("192.0.2.2"), "/login", start).is_ok());
        assert!(limiter.admit(ip("2001:db8::1"), "/login", start).is_ok());
        assert!(
            limiter
                .admit(ip("2001:db8::ffff:1"), "/login", start)
                .is_err()
        );
        assert!(
            limiter
                .admit(ip("2001:db8:0:1::1"), "/login", start)
                .is_ok()
        );
    }

    #[test]
    fn turning_the_generations_forgets_nobody_too_early() {
        let start = Instant::now();
        let limiter = RateByClient::new(Rate { max: 1, ..RATE });
        let client = IpAddr::from([192, 0, 2, 1]);

        assert!(limiter.admit(client, "/login", after(start, 9)).is_ok());
        assert!(limiter.admit(client, "/login", after(start, 11)).is_err());
        assert!(limiter.admit(client, "/login", after(start, 18)).is_err());
        assert!(limiter.admit(client, "/login", after(start, 19)).is_ok());
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let inner = IpAddr::from([10, 0, 0, 2]);
        let peer = IpAddr::from([192, 0, 2, 9]);
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-forwarded-for",
            "1.1.1.1, 203.0.113.7, 10.0.0.2".parse().expect("a value"),
        );

        let client = |peer, trusted: &[IpAddr]| client_address(peer, &headers, trusted).to_string();
        assert_eq!(client(peer, &[proxy]), "192.0.2.9");
        assert_eq!(client(proxy, &[]), "10.0.0.1");
        assert_eq!(client(proxy, &[proxy]), "10.0.0.2");
        assert_eq!(client(proxy, &[proxy, inner]), "203.0.113.7");
    }
}
