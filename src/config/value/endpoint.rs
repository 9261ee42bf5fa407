//! Where something listens: an address and a port in one text.

use std::{fmt, net::Ipv6Addr};

use super::{Codec, Input, quoted};

/// An address to listen on, and the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address or a host name; `*`: all addresses.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<Ipv6Addr>() {
            Ok(host) => write!(f, "[{host}]:{}", self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `HOST:PORT`, `[IPv6]:PORT`, or a port alone, for whoever is on the same machine; empty: none.
pub(in crate::config) struct EndpointText;

impl EndpointText {
    fn read(text: &str) -> Option<Endpoint> {
        let (host, port) = match text.rsplit_once(':') {
            None => ("127.0.0.1", text),
            Some((host, port)) => match host.strip_prefix('[') {
                Some(host) => {
                    let host = host.strip_suffix(']')?;
                    host.parse::<Ipv6Addr>().ok()?;
                    (host, port)
                }
                None => (host, port),
            },
        };
        // Neither two of them nor an IPv6 address whose last part may be the port.
        let plain = |host: &str| {
            host == "*" || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        let valid = !host.is_empty() && (plain(host) || text.starts_with('['));
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port > 0 && digits)?;
        valid.then(|| Endpoint { host: host.to_owned(), port })
    }
}

impl Codec for EndpointText {
    type Value = Option<Endpoint>;

    fn parse(&self, input: &Input) -> Result<Option<Endpoint>, String> {
        let text = match input {
            Input::Text(text) => text.trim().to_owned(),
            Input::Integer { value, radix: 10 } => value.to_string(),
            _ => return Err(input.is_not("an address with a port")),
        };
        if text.is_empty() {
            return Ok(None);
        }
        Self::read(&text).map(Some).ok_or_else(|| input.is_not("an address with a port"))
    }

    fn show(&self, value: &Option<Endpoint>) -> Option<String> {
        Some(value.as_ref().map(Endpoint::to_string).unwrap_or_default())
    }

    fn literal(&self, value: &Option<Endpoint>) -> String {
        quoted(&self.show(value).unwrap_or_default())
    }

    fn form(&self) -> String {
        "\"ADDRESS:PORT\", as \"0.0.0.0:9127\" or \"[::1]:9127\", or a port from 1 to 65535".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_are_shown() {
        for (text, shown) in [
            ("9127", "127.0.0.1:9127"),
            ("0.0.0.0:9127", "0.0.0.0:9127"),
            (" *:1 ", "*:1"),
            ("[::1]:65535", "[::1]:65535"),
            ("metrics-1.example.com:80", "metrics-1.example.com:80"),
        ] {
            let endpoint = EndpointText.parse(&Input::text(text)).unwrap();
            assert_eq!(EndpointText.show(&endpoint).unwrap(), shown);
            assert_eq!(EndpointText.parse(&Input::text(shown)).unwrap(), endpoint);
        }
        assert_eq!(EndpointText.parse(&Input::text("")), Ok(None));
        let number = Input::Integer { value: 9127, radix: 10 };
        assert_eq!(EndpointText.parse(&number).unwrap().unwrap().port, 9127);
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "0",
            "65536",
            "+1",
            "host",
            ":9127",
            "host:",
            "host:port",
            "::1:9127",
            "[::1]",
            "[::1",
            "[host]:1",
            "a b:1",
            "http://host:1",
            "1:2:3",
        ] {
            assert!(EndpointText.parse(&Input::text(text)).is_err(), "{text}");
        }
    }
}
