//! Where the map is served, if anywhere.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;

use clap::Args;
use stowage_shared::contract::EXTENDER_MAP_PORT;

/// The flags.
#[derive(Debug, Clone, Args)]
pub struct MapArgs {
    /// Where the live map is served, such as 127.0.0.1:9413. On another address than the loopback its data need a bearer
    /// token.
    // Off by default: outside of a pod the loopback is every user's of the machine, and the map names all pods. The chart
    // has it on: who may port-forward into the scheduler's pod reaches the verbs too, which bind pods.
    #[arg(long, env = "MAP_ADDRESS", default_value_t = MapAddress(None))]
    pub map_address: MapAddress,
}

/// An address, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapAddress(pub Option<SocketAddr>);

/// Why a text is no such address.
#[derive(Debug, thiserror::Error)]
#[error("neither off nor an address with a port such as 127.0.0.1:{EXTENDER_MAP_PORT}")]
pub struct MapAddressError(#[from] AddrParseError);

impl FromStr for MapAddress {
    type Err = MapAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == OFF {
            return Ok(Self(None));
        }
        Ok(Self(Some(text.parse()?)))
    }
}

impl fmt::Display for MapAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str(OFF),
        }
    }
}

const OFF: &str = "off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_as_it_is_read() {
        for text in ["off", "127.0.0.1:9413", "0.0.0.0:80", "[::1]:9413"] {
            assert_eq!(text.parse::<MapAddress>().unwrap().to_string(), text);
        }
        let error = "9413".parse::<MapAddress>().unwrap_err().to_string();
        assert!(error.contains("off") && error.contains("127.0.0.1:9413"), "{error}");
    }
}
