//! Pages of one address, whatever name they are asked by: no other is ever connected to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::probe::web::Page;

/// A page longer than that is no page.
const LIMIT: u64 = 1 << 20;

/// A client that connects to one address alone.
#[derive(Debug)]
pub struct Client(ureq::Agent);

#[derive(Debug)]
struct Fixed(IpAddr);

impl Resolver for Fixed {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let port = uri.port_u16().ok_or_else(|| ureq::Error::BadUri("a port is needed".to_owned()))?;
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(self.0, port));
        Ok(addresses)
    }
}

impl Client {
    /// Each page may take that long. Certificates are not judged: nothing is told to the server, and what it says is
    /// only compared with itself.
    pub fn new(address: IpAddr, patience: Duration) -> Self {
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("")
            .tls_config(TlsConfig::builder().disable_verification(true).build())
            .timeout_global(Some(patience))
            .max_idle_connections(0)
            .build();
        Self(ureq::Agent::with_parts(config, DefaultConnector::new(), Fixed(address)))
    }

    /// One page. The address names its port.
    pub fn page(&self, address: &str) -> Result<Page, io::Error> {
        let answer = self.0.get(address).call().map_err(ureq::Error::into_io)?;
        let status = answer.status().as_u16();
        let text = |value: &ureq::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let body = answer.into_body().into_with_config().limit(LIMIT).read_to_vec();
        Ok(Page { status, headers, body: body.map_err(ureq::Error::into_io)? })
    }
}
