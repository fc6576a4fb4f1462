//! The limit on requests that guess passwords or tokens.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use poem::web::Data;
use poem::{FromRequest, Request, RequestBody};

use crate::api::envelope::Failure;
use crate::rate::{RateByClient, client_address};

/// One request out of those that a client address may make on a path, taken before anything else
/// is looked at.
#[derive(Debug)]
pub(crate) struct Quota;

/// The limit on requests that guess passwords or tokens, and whose word on addresses it takes.
#[derive(Debug)]
pub(crate) struct Quotas {
    pub(crate) rates: RateByClient,
    pub(crate) trusted_proxies: Vec<IpAddr>,
}

impl<'a> FromRequest<'a> for Quota {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let quotas = Data::<&Arc<Quotas>>::from_request(request, body).await?;
        // Without an address, as on a Unix socket, all are one client.
        let peer = request.remote_addr().as_socket_addr();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
        let client = client_address(peer, request.headers(), &quotas.trusted_proxies);
        let path = request.original_uri().path();
        let admitted = quotas.rates.admit(client, path, Instant::now());
        Ok(admitted.map(|()| Self).map_err(Failure::rate_limited)?)
    }
}
