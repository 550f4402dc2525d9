//! A device: a machine with a tunnel to a gateway.

use sepulcher::codex::key::PublicKey;

use crate::host::{Host, Rights, until};
use crate::lab::{Gateway, World};

/// A machine that makes its own keys; the private ones never leave it.
pub struct Device {
    /// The machine.
    pub host: Host,
    /// Its public key.
    pub key: PublicKey,
}

impl Device {
    /// A machine with a key and an interface that is not configured.
    pub fn new(world: &World, name: &str) -> Self {
        let rights = Rights { capabilities: &["NET_ADMIN", "NET_RAW"], tun: true, ..Rights::default() };
        let host = world.host(
            name,
            &["bash", "-c", "mkdir -p /var/run/wireguard && exec wireguard-go -f wg0"],
            rights,
        );
        until("wireguard-go serves wg0", || host.try_sh("wg show wg0").ok());
        let key = new_key(&host);
        Self { host, key }
    }

    /// Makes another key; the tunnel goes on with the old one until [`Device::use_key`].
    pub fn renew(&mut self) {
        self.key = new_key(&self.host);
    }

    /// Uses the last key that was made, with its preshared key.
    pub fn use_key(&self, gateway: &Gateway, preshared: Option<&str>) {
        // An empty file removes the key that was there.
        let preshared = preshared.map_or("/dev/null".into(), |key| format!("<(echo '{key}')"));
        self.host
            .sh(&format!("wg set wg0 private-key /run/key peer {} preshared-key {preshared}", gateway.key));
    }

    /// Configures the tunnel as the client configuration would, and brings it up.
    pub fn dial(&self, gateway: &Gateway, address: &str, preshared: Option<&str>) {
        self.host.sh(&format!(
            "wg set wg0 peer {} allowed-ips 10.88.16.0/20 endpoint {}:51820 && \
             ip address add {address}/20 dev wg0 && ip link set wg0 mtu 1420 up",
            gateway.key, gateway.outside
        ));
        self.use_key(gateway, preshared);
    }

    /// The Oculus's page through the tunnel, within two seconds.
    pub fn page(&self) -> Option<String> {
        self.host.get("http://10.88.16.1:6006/traces")
    }

    /// Waits for the page.
    pub fn talks(&self) -> String {
        until(&format!("{} gets the page", self.host.name), || self.page())
    }
}

fn new_key(host: &Host) -> PublicKey {
    host.sh("(umask 077 && wg genkey > /run/key) && wg pubkey < /run/key").trim().parse().unwrap()
}
