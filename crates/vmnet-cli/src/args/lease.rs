//! `vmnet lease`.

use clap::{ArgGroup, Subcommand};
use std::net::IpAddr;
use vmnet_wire::ethernet::Mac;

const EXAMPLES: &str = "\
Examples:
  vmnet lease list lab
  vmnet lease reserve lab 192.168.64.10 --name web
  vmnet lease release lab 192.168.64.23";

const LIST_EXAMPLES: &str = "\
Examples:
  vmnet lease list
  vmnet lease list lab --json | jq -r '.leases[] | select(.name == \"web\") | .address'";

const RESERVE_EXAMPLES: &str = "\
Examples:
  vmnet lease reserve lab 192.168.64.10 --name web
  vmnet lease reserve lab 192.168.64.11 --mac 52:54:00:12:34:56
  vmnet lease reserve lab 192.168.64.12 --client-id 01525400123456
  vmnet lease reserve lab fd12:3456:789a:1::10 --name web";

const UNRESERVE_EXAMPLES: &str = "\
Examples:
  vmnet lease unreserve lab 192.168.64.10";

const RELEASE_EXAMPLES: &str = "\
Examples:
  vmnet lease release lab 192.168.64.23";

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Lease {
    #[command(subcommand)]
    pub(crate) verb: LeaseVerb,
}

/// Leases: list, reserve, unreserve, release.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseVerb {
    /// List leases and reservations.
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(List),
    /// Keep an address for a guest, for as long as the network is there.
    #[command(after_help = RESERVE_EXAMPLES)]
    Reserve(Reserve),
    /// Keep an address no longer; a lease on it stays until it ends.
    #[command(after_help = UNRESERVE_EXAMPLES)]
    Unreserve(Address),
    /// End a lease, so that another guest can have its address.
    #[command(after_help = RELEASE_EXAMPLES)]
    Release(Address),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those of this network.
    pub(crate) network: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("guest").required(true).args(["mac", "client_id", "name"])))]
pub(crate) struct Reserve {
    /// The network's name or UUID.
    pub(crate) network: String,
    /// The address, IPv4 or IPv6.
    #[arg(value_parser = super::address)]
    pub(crate) address: IpAddr,
    /// For the guest with this MAC.
    #[arg(long)]
    pub(crate) mac: Option<Mac>,
    /// For the guest that sends this client id (DHCP option 61; for IPv6 its DUID), in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = client_id)]
    pub(crate) client_id: Option<String>,
    /// For the guest that calls itself so.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Address {
    /// The network's name or UUID.
    pub(crate) network: String,
    /// The address, IPv4 or IPv6.
    #[arg(value_parser = super::address)]
    pub(crate) address: IpAddr,
}

/// Hexadecimal digits, with or without colons between the bytes.
fn client_id(text: &str) -> Result<String, String> {
    let spaced = text.contains(':');
    if spaced && text.split(':').any(|byte| byte.len() != 2) {
        return Err("between colons stand two hexadecimal digits, like 01:52:54:00".to_owned());
    }
    let digits = text.replace(':', "").to_ascii_lowercase();
    if digits.is_empty()
        || !digits.len().is_multiple_of(2)
        || !digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Err("say bytes in hexadecimal, two digits each, like 01525400123456".to_owned());
    }
    // RFC 2132 §2: the length of an option is one byte.
    if digits.len() > 2 * 255 {
        return Err("a client id has 255 bytes at most".to_owned());
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::client_id;

    #[test]
    fn client_ids() {
        assert_eq!(client_id("01:52:54:00:AB").as_deref(), Ok("01525400ab"));
        assert_eq!(client_id("ff").as_deref(), Ok("ff"));
        let long = "ab".repeat(256);
        for bad in ["", "f", "0g", "1:2", "01:", ":01", "01::02", "0x01", &long] {
            assert!(client_id(bad).is_err(), "{bad}");
        }
    }
}
