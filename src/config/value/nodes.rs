//! Hosts, lists of nodes, and of the APIs that tell them.

use super::{
    Codec, Input, quoted,
    words::{List, Name},
};
use crate::config::{At, MOST_NODES, NodeAddress, PatroniApi, host_with_port};

/// `["db1", "db2:5433", "[::1]:5432", "db3 weight=2", "db4 addresses=each"]`.
pub(in crate::config) struct Nodes;

const DEFAULT_PORT: u16 = 5432;

impl Codec for Nodes {
    type Value = Vec<NodeAddress>;

    fn parse(&self, input: &Input) -> Result<Vec<NodeAddress>, String> {
        let texts = match input {
            Input::List(texts) => texts.clone(),
            other => List.parse(other)?,
        };
        let nodes = texts.iter().map(|text| node(text)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err("the list is empty".to_owned());
        }
        if nodes.len() > MOST_NODES {
            return Err(format!("there are more than {MOST_NODES} nodes"));
        }
        let twice = nodes.iter().enumerate().find(|(i, node)| {
            nodes.iter().take(*i).any(|other| other.host == node.host && other.port == node.port)
        });
        match twice {
            Some((_, node)) => Err(format!("{}:{} is there twice", node.host, node.port)),
            None => Ok(nodes),
        }
    }

    fn show(&self, value: &Vec<NodeAddress>) -> Option<String> {
        (!value.is_empty()).then(|| value.iter().map(text_of).collect::<Vec<_>>().join(", "))
    }

    fn literal(&self, value: &Vec<NodeAddress>) -> String {
        format!("[{}]", value.iter().map(|node| quoted(&text_of(node))).collect::<Vec<_>>().join(", "))
    }

    fn form(&self) -> String {
        "a list of addresses ([\"db1\", \"db2:5433\", \"[::1]:5432 weight=2\", \"db3 addresses=each\"])"
            .to_owned()
    }
}

fn text_of(node: &NodeAddress) -> String {
    let weight = if node.weight == 1 { String::new() } else { format!(" weight={}", node.weight) };
    let each = if node.at == At::Each { " addresses=each" } else { "" };
    format!("{}{weight}{each}", host_with_port(&node.host, node.port))
}

fn node(text: &str) -> Result<NodeAddress, String> {
    let wrong = |what: &str| format!("\"{}\": {what}", text.escape_debug());
    let mut words = text.split_ascii_whitespace();
    let address = words.next().ok_or_else(|| wrong("there is no address"))?;
    let (mut weight, mut at) = (1, At::Any);
    for word in words {
        let number = word.strip_prefix("weight=").and_then(|number| number.parse().ok());
        match number.filter(|w| (1..=1000).contains(w)) {
            Some(number) => weight = number,
            None if word == "addresses=each" => at = At::Each,
            None => {
                let known = "weight=1 to weight=1000 or addresses=each";
                return Err(wrong(&format!("what follows the address is not {known}")));
            }
        }
    }
    let (host, port) = host_and_port(address, DEFAULT_PORT).map_err(wrong)?;
    if at == At::Each && (host.starts_with(['/', '@']) || host.parse::<std::net::IpAddr>().is_ok()) {
        return Err(wrong("addresses=each needs a name"));
    }
    Ok(NodeAddress { host, port, weight, at })
}

/// `db1`, `db1:5432`, `[::1]`, `[::1]:5432`.
pub(crate) fn host_and_port(address: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or("the ] is missing")?;
        match (behind.strip_prefix(':'), behind) {
            (None, "") => (host, None),
            (port, _) => (host, Some(port.unwrap_or_default())),
        }
    } else {
        match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or("the port is not from 1 to 65535")?,
    };
    if host.is_empty() || host.contains('\0') {
        return Err("there is no host");
    }
    if host.contains(':') && !address.starts_with('[') {
        return Err("an IPv6 address needs brackets");
    }
    Ok((host.to_owned(), port))
}

/// A host as it is written: its port is that of the database if it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct HostName {
    pub host: String,
    pub port: Option<u16>,
}

/// `"db1"`, or `["db1", "db2:5433", "[::1]:5432"]`.
pub(in crate::config) struct Hosts;

impl Codec for Hosts {
    type Value = Vec<HostName>;

    fn parse(&self, input: &Input) -> Result<Vec<HostName>, String> {
        let Input::List(texts) = input else {
            return Name.parse(input).map(|host| vec![HostName { host, port: None }]);
        };
        match texts.len() {
            0 => Err("the list is empty".to_owned()),
            1..=MOST_NODES => texts.iter().map(|text| host_of_list(text)).collect(),
            _ => Err(format!("there are more than {MOST_NODES} hosts")),
        }
    }

    fn show(&self, value: &Vec<HostName>) -> Option<String> {
        (!value.is_empty()).then(|| value.iter().map(HostName::text).collect::<Vec<_>>().join(","))
    }

    fn literal(&self, value: &Vec<HostName>) -> String {
        match value.as_slice() {
            [HostName { host, port: None }] => quoted(host),
            hosts => format!("[{}]", hosts.iter().map(|h| quoted(&h.text())).collect::<Vec<_>>().join(", ")),
        }
    }

    fn form(&self) -> String {
        "a host, or a list of hosts ([\"db1\", \"db2:5433\"])".to_owned()
    }
}

impl HostName {
    fn text(&self) -> String {
        match self.port {
            Some(port) => host_with_port(&self.host, port),
            None => self.host.clone(),
        }
    }
}

fn host_of_list(text: &str) -> Result<HostName, String> {
    let wrong = |what: &str| format!("\"{}\": {what}", text.escape_debug());
    if text.contains(|c: char| c == ',' || c.is_whitespace()) {
        return Err(wrong("is not one host"));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(HostName { host: text.to_owned(), port: None });
    }
    let (host, port) = host_and_port(text, 0).map_err(wrong)?;
    Ok(HostName { host, port: (port > 0).then_some(port) })
}

/// `["http://10.0.0.1:8008", "https://db2"]`.
pub(in crate::config) struct PatroniApis;

const PATRONI_PORT: u16 = 8008;

impl Codec for PatroniApis {
    type Value = Vec<PatroniApi>;

    fn parse(&self, input: &Input) -> Result<Vec<PatroniApi>, String> {
        let texts = match input {
            Input::List(texts) => texts.clone(),
            other => List.parse(other)?,
        };
        match texts.len() {
            0 => Err("the list is empty".to_owned()),
            1..=MOST_NODES => texts.iter().map(|text| patroni_api(text)).collect(),
            _ => Err(format!("there are more than {MOST_NODES} addresses")),
        }
    }

    fn show(&self, value: &Vec<PatroniApi>) -> Option<String> {
        (!value.is_empty()).then(|| value.iter().map(PatroniApi::to_string).collect::<Vec<_>>().join(", "))
    }

    fn literal(&self, value: &Vec<PatroniApi>) -> String {
        format!("[{}]", value.iter().map(|api| quoted(&api.to_string())).collect::<Vec<_>>().join(", "))
    }

    fn form(&self) -> String {
        "a list of REST APIs ([\"http://10.0.0.1:8008\", \"http://10.0.0.2:8008\"])".to_owned()
    }
}

fn patroni_api(text: &str) -> Result<PatroniApi, String> {
    let wrong = |what: &str| format!("\"{}\": {what}", text.escape_debug());
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("http:// or https:// is missing"))?;
    let https = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(wrong("it begins with neither http:// nor https://")),
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong("only a host and a port may follow"));
    }
    let (host, port) = host_and_port(address, PATRONI_PORT).map_err(wrong)?;
    Ok(PatroniApi { https, host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<String, String> {
        let list = Input::List(texts.iter().map(|&t| t.to_owned()).collect());
        Nodes.parse(&list).map(|nodes| Nodes.literal(&nodes))
    }

    #[test]
    fn nodes_are_read_and_written() {
        for (texts, expected) in [
            (&["db1"][..], Ok(r#"["db1:5432"]"#)),
            (
                &["db1:1", "/run/pg:2", "[::1]:3 weight=7"],
                Ok(r#"["db1:1", "/run/pg:2", "[::1]:3 weight=7"]"#),
            ),
            (&["[::1]"], Ok(r#"["[::1]:5432"]"#)),
            (&[], Err("the list is empty")),
            (&["a:1", "a:1"], Err("a:1 is there twice")),
            (&["a:0"], Err(r#""a:0": the port is not from 1 to 65535"#)),
            (&["::1"], Err(r#""::1": an IPv6 address needs brackets"#)),
            (&["[::1"], Err(r#""[::1": the ] is missing"#)),
            (&[" "], Err(r#"" ": there is no address"#)),
            (&[":1"], Err(r#"":1": there is no host"#)),
            (
                &["a weight=0"],
                Err(
                    r#""a weight=0": what follows the address is not weight=1 to weight=1000 or addresses=each"#,
                ),
            ),
            (&["a:1 addresses=each weight=3"], Ok(r#"["a:1 weight=3 addresses=each"]"#)),
            (&["[::1] addresses=each"], Err(r#""[::1] addresses=each": addresses=each needs a name"#)),
            (&["/run addresses=each"], Err(r#""/run addresses=each": addresses=each needs a name"#)),
            (&["[::1]x"], Err(r#""[::1]x": the port is not from 1 to 65535"#)),
        ] {
            assert_eq!(parse(texts), expected.map(str::to_owned).map_err(str::to_owned), "{texts:?}");
        }
        assert_eq!(Nodes.parse(&Input::text("a, b:7")).map(|n| n.len()), Ok(2));
    }

    #[test]
    fn apis_are_read_and_written() {
        for (text, expected) in [
            ("http://10.0.0.1:8008", Ok("http://10.0.0.1:8008")),
            ("https://db1/", Ok("https://db1:8008")),
            ("http://[::1]:80", Ok("http://[::1]:80")),
            ("10.0.0.1:8008", Err("http:// or https:// is missing")),
            ("ftp://a", Err("it begins with neither http:// nor https://")),
            ("http://a/cluster", Err("only a host and a port may follow")),
            ("http://u:p@a", Err("only a host and a port may follow")),
            ("http://", Err("there is no host")),
            ("http://a:0", Err("the port is not from 1 to 65535")),
        ] {
            let read = PatroniApis.parse(&Input::List(vec![text.to_owned()]));
            let shown = read.map(|apis| apis[0].to_string());
            let expected = expected.map(str::to_owned).map_err(|what| format!("\"{text}\": {what}"));
            assert_eq!(shown, expected);
        }
        assert!(PatroniApis.parse(&Input::List(Vec::new())).is_err());
    }
}
