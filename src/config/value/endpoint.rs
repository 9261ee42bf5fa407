//! Where something listens, or is to be found: an address and a port in one text.

use std::{fmt, net::Ipv6Addr};

use super::{Codec, Input, nodes::host_and_port, quoted};

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

/// Where something is sent by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Begins with a slash, and ends without one; or empty.
    pub path: String,
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let endpoint = Endpoint { host: self.host.clone(), port: self.port };
        write!(f, "{scheme}://{endpoint}{}", self.path)
    }
}

/// `http://HOST:PORT/PATH`, without a port that of OTLP; empty: none.
pub(in crate::config) struct HttpUrlText;

const OTLP_PORT: u16 = 4318;

impl HttpUrlText {
    fn read(text: &str) -> Result<HttpUrl, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("http:// or https:// is missing")?;
        let https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err("it begins with neither http:// nor https://"),
        };
        let (address, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if rest.contains(|c: char| ['?', '#', '@'].contains(&c) || c.is_whitespace() || c.is_control()) {
            return Err("only a host, a port and a path may follow");
        }
        if !path.is_ascii() {
            return Err("the path is not in ASCII");
        }
        let (host, port) = host_and_port(address, OTLP_PORT)?;
        Ok(HttpUrl { https, host, port, path: path.trim_end_matches('/').to_owned() })
    }
}

impl Codec for HttpUrlText {
    type Value = Option<HttpUrl>;

    fn parse(&self, input: &Input) -> Result<Option<HttpUrl>, String> {
        let Input::Text(text) = input else { return Err(input.is_not("a URL")) };
        if text.trim().is_empty() {
            return Ok(None);
        }
        // It may hold a password, where none belongs.
        Self::read(text.trim()).map(Some).map_err(|what| format!("the URL cannot be used: {what}"))
    }

    fn show(&self, value: &Option<HttpUrl>) -> Option<String> {
        Some(value.as_ref().map(HttpUrl::to_string).unwrap_or_default())
    }

    fn literal(&self, value: &Option<HttpUrl>) -> String {
        quoted(&self.show(value).unwrap_or_default())
    }

    fn form(&self) -> String {
        "a URL (\"http://127.0.0.1:4318\")".to_owned()
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

    #[test]
    fn urls_are_read_as_they_are_shown() {
        for (text, shown) in [
            ("http://collector", "http://collector:4318"),
            ("https://otel.example.com:443/otlp/", "https://otel.example.com:443/otlp"),
            ("http://[::1]:4318/", "http://[::1]:4318"),
        ] {
            let url = HttpUrlText.parse(&Input::text(text)).unwrap();
            assert_eq!(HttpUrlText.show(&url).unwrap(), shown);
            assert_eq!(HttpUrlText.parse(&Input::text(shown)).unwrap(), url);
        }
        assert_eq!(HttpUrlText.parse(&Input::text(" ")), Ok(None));
        for wrong in [
            "collector:4318",
            "grpc://collector",
            "http://",
            "http://u:p@h",
            "http://h:0",
            "http://h/a b",
            "http://h?x",
        ] {
            let error = HttpUrlText.parse(&Input::text(wrong)).unwrap_err();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
