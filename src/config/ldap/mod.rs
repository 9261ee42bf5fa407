//! auth_ldap_options, and the options of method ldap in auth_hba_file: `key=value` by blanks or commas, as in PgBouncer and in
//! PostgreSQL ("LDAP Authentication" in its docs). Read when the configuration is, so that what is wrong is told then.

mod filter;

pub use self::filter::{Comparison, Filter, Part};
use crate::error::Secret;

/// Where users are known, and how they are found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ldap {
    /// Hosts and ports, in the order in which they are tried.
    pub servers: Vec<(String, u16)>,
    pub encryption: Encryption,
    pub way: Way,
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    None,
    /// By StartTLS.
    StartTls,
    /// From the first byte.
    Ldaps,
}

/// What a user's name becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Between these two, the name to bind as.
    Bind { prefix: String, suffix: String },
    /// What is searched for, by somebody who may.
    Search { base: String, scope: Scope, filter: Filter, binddn: String, bindpasswd: Secret<String> },
}

/// How far below the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Base = 0,
    One = 1,
    Subtree = 2,
}

/// Options as they are written.
#[derive(Debug, Default)]
struct Given {
    server: Option<String>,
    port: Option<u16>,
    is_ldaps: bool,
    start_tls: bool,
    prefix: Option<String>,
    suffix: Option<String>,
    base: Option<String>,
    scope: Option<Scope>,
    attribute: Option<String>,
    filter: Option<String>,
    binddn: Option<String>,
    bindpasswd: Option<String>,
}

impl Ldap {
    /// Reads options; says what is wrong with them, without their values: there are passwords among them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut given = Given::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (key, value, behind) = pair(rest)?;
            given.set(&key, value)?;
            rest = behind.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        given.resolve()
    }
}

/// Options as they may be shown.
pub(super) fn without_password(options: &str) -> String {
    let mut out = String::new();
    let mut rest = options;
    while !rest.trim().is_empty() {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let blank = rest.len() - start.len();
        // What cannot be read may hide one.
        let Ok((key, _, behind)) = pair(start) else { return out + "…" };
        if key == "ldapbindpasswd" {
            out.extend([rest.get(..blank).unwrap_or_default(), "ldapbindpasswd=…"]);
        } else {
            out.push_str(rest.get(..rest.len() - behind.len()).unwrap_or_default());
        }
        rest = behind;
    }
    out
}

/// A key, its value, and what is behind them. Double quotes may stand around either, and twice within for one.
fn pair(text: &str) -> Result<(String, String, &str), String> {
    let wrong = || "expected options as ldapserver=HOST ldapbasedn=\"DN\"".to_owned();
    let (key, rest) = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or_else(wrong)?,
        None => text.split_at_checked(text.find('=').ok_or_else(wrong)?).map(owned).ok_or_else(wrong)?,
    };
    let rest = rest.strip_prefix('=').ok_or_else(wrong)?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted)
            .ok_or_else(|| format!("the double quote of {} is not closed", key.escape_debug()))?,
        None => {
            let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
            rest.split_at_checked(end).map(owned).ok_or_else(wrong)?
        }
    };
    if key.is_empty() || value.is_empty() {
        return Err(if key.is_empty() { wrong() } else { format!("{} is empty", key.escape_debug()) });
    }
    Ok((key, value, rest))
}

fn owned<'a>((first, rest): (&str, &'a str)) -> (String, &'a str) {
    (first.to_owned(), rest)
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut out, mut rest) = (String::new(), text);
    loop {
        let (part, behind) = rest.split_once('"')?;
        out.push_str(part);
        match behind.strip_prefix('"') {
            Some(behind) => {
                out.push('"');
                rest = behind;
            }
            None => return Some((out, behind)),
        }
    }
}

impl Given {
    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "ldapserver" => self.server = Some(value),
            "ldapport" => self.port = Some(port(&value)?),
            "ldapscheme" => self.is_ldaps = is_ldaps(&value).ok_or("ldapscheme is ldap or ldaps")?,
            "ldaptls" => self.start_tls = value == "1",
            "ldapprefix" => self.prefix = Some(value),
            "ldapsuffix" => self.suffix = Some(value),
            "ldapbasedn" => self.base = Some(value),
            "ldapbinddn" => self.binddn = Some(value),
            "ldapbindpasswd" => self.bindpasswd = Some(value),
            "ldapsearchattribute" => self.attribute = Some(value),
            "ldapsearchfilter" => self.filter = Some(value),
            "ldapurl" => self.url(&value)?,
            other => return Err(format!("unknown option \"{}\"", other.escape_debug())),
        }
        Ok(())
    }

    /// RFC 4516: `ldap[s]://HOST[:PORT]/BASE[?ATTRIBUTE[?SCOPE[?FILTER]]]`.
    fn url(&mut self, url: &str) -> Result<(), String> {
        let wrong = "ldapurl is ldap[s]://HOST[:PORT]/BASE[?ATTRIBUTE[?SCOPE[?FILTER]]]";
        let (scheme, rest) = url.split_once("://").ok_or(wrong)?;
        self.is_ldaps = is_ldaps(scheme).ok_or(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port_text) = match host.rsplit_once(':') {
            Some((host, digits)) if !digits.ends_with(']') => (host, Some(digits)),
            _ => (host, None),
        };
        self.server =
            (!host.is_empty()).then(|| host.trim_matches(['[', ']']).to_owned()).or(self.server.take());
        self.port = port_text.map(port).transpose()?.or(self.port);
        let mut parts = path.split('?').map(|part| percent_decoded(part).ok_or(wrong));
        let mut next = || -> Result<Option<String>, &str> {
            Ok(parts.next().transpose()?.filter(|part| !part.is_empty()))
        };
        self.base = next()?;
        let attribute = next()?;
        self.attribute = attribute.and_then(|list| list.split(',').next().map(str::to_owned));
        self.scope = Some(match next()?.as_deref() {
            None | Some("base") => Scope::Base,
            Some("one" | "onelevel") => Scope::One,
            Some("sub" | "subtree") => Scope::Subtree,
            Some(_) => return Err(wrong.to_owned()),
        });
        self.filter = next()?;
        Ok(())
    }

    fn resolve(self) -> Result<Ldap, String> {
        let simple = self.prefix.is_some() || self.suffix.is_some();
        let searching = self.base.is_some()
            || self.binddn.is_some()
            || self.bindpasswd.is_some()
            || self.attribute.is_some()
            || self.filter.is_some();
        if simple && searching {
            return Err("ldapprefix and ldapsuffix go with none of ldapbasedn, ldapbinddn, ldapbindpasswd, \
                        ldapsearchattribute, ldapsearchfilter and ldapurl"
                .to_owned());
        }
        if self.attribute.is_some() && self.filter.is_some() {
            return Err("ldapsearchattribute and ldapsearchfilter do not go together".to_owned());
        }
        let encryption = match (self.is_ldaps, self.start_tls) {
            (true, true) => return Err("ldaptls goes with ldapscheme=ldap only".to_owned()),
            (true, false) => Encryption::Ldaps,
            (false, true) => Encryption::StartTls,
            (false, false) => Encryption::None,
        };
        let default_port = if self.is_ldaps { 636 } else { 389 };
        let port = self.port.unwrap_or(default_port);
        let named = self.server.unwrap_or_default();
        let servers: Vec<_> = named.split_whitespace().map(|host| (host.to_owned(), port)).collect();
        if servers.is_empty() {
            return Err("ldapserver is missing".to_owned());
        }
        let way = if simple {
            Way::Bind { prefix: self.prefix.unwrap_or_default(), suffix: self.suffix.unwrap_or_default() }
        } else {
            let base = self.base.ok_or("ldapbasedn, ldapprefix or ldapsuffix is missing")?;
            let filter = match self.filter {
                Some(text) => Filter::parse(&text)?,
                None => Filter::attribute_is_user(self.attribute.as_deref().unwrap_or("uid"))?,
            };
            Way::Search {
                base,
                scope: self.scope.unwrap_or(Scope::Subtree),
                filter,
                binddn: self.binddn.unwrap_or_default(),
                bindpasswd: Secret(self.bindpasswd.unwrap_or_default()),
            }
        };
        Ok(Ldap { servers, encryption, way })
    }
}

fn is_ldaps(scheme: &str) -> Option<bool> {
    match scheme {
        "ldap" => Some(false),
        "ldaps" => Some(true),
        _ => None,
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| "the port is a number up to 65535".to_owned())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(base: &str, scope: Scope, filter: &str, binddn: &str, bindpasswd: &str) -> Way {
        let filter = Filter::parse(filter).unwrap();
        let (base, binddn) = (base.to_owned(), binddn.to_owned());
        Way::Search { base, scope, filter, binddn, bindpasswd: Secret(bindpasswd.to_owned()) }
    }

    #[test]
    fn options_say_where_and_how() {
        let bind =
            |prefix: &str, suffix: &str| Way::Bind { prefix: prefix.to_owned(), suffix: suffix.to_owned() };
        for (text, servers, encryption, way) in [
            (
                "ldapserver=a ldapprefix=\"cn=\" ldapsuffix=\", dc=example, dc=net\"",
                &[("a", 389)][..],
                Encryption::None,
                bind("cn=", ", dc=example, dc=net"),
            ),
            (
                "ldapserver=\"a b\",ldapport=1389 , ldaptls=1 ldapsuffix=@example.net",
                &[("a", 1389), ("b", 1389)],
                Encryption::StartTls,
                bind("", "@example.net"),
            ),
            (
                "ldapscheme=ldaps ldapserver=a ldapbasedn=\"dc=x\" ldapbinddn=\"cn=r\" ldapbindpasswd=\"s\"\"e c\"",
                &[("a", 636)],
                Encryption::Ldaps,
                search("dc=x", Scope::Subtree, "(uid=$username)", "cn=r", "s\"e c"),
            ),
            (
                "\"ldapserver\"=a ldapbasedn=dc=x ldapsearchattribute=cn",
                &[("a", 389)],
                Encryption::None,
                search("dc=x", Scope::Subtree, "(cn=$username)", "", ""),
            ),
            (
                "ldapurl=\"ldap://h:390/dc=x,dc=y?uid,cn?sub\"",
                &[("h", 390)],
                Encryption::None,
                search("dc=x,dc=y", Scope::Subtree, "(uid=$username)", "", ""),
            ),
            (
                "ldapurl=ldaps://[::1]/dc=x%20y??one?(cn=$username)",
                &[("::1", 636)],
                Encryption::Ldaps,
                search("dc=x y", Scope::One, "(cn=$username)", "", ""),
            ),
        ] {
            let servers = servers.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
            assert_eq!(Ldap::parse(text), Ok(Ldap { servers, encryption, way }), "{text}");
        }
    }

    #[test]
    fn options_are_shown_without_the_password() {
        for (options, shown) in [
            ("", ""),
            ("ldapserver=x", "ldapserver=x"),
            (
                "ldapserver=\"a b\",  ldapbindpasswd=\"s \"\" t\" ldapbasedn=dc",
                "ldapserver=\"a b\",  ldapbindpasswd=… ldapbasedn=dc",
            ),
            ("ldapserver=x \"ldapbindpasswd\"=y", "ldapserver=x ldapbindpasswd=…"),
            ("ldapserver=x ldapbindpasswd=\"y", "ldapserver=x…"),
        ] {
            assert_eq!(without_password(options), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_passwords() {
        for (text, expected) in [
            ("", "ldapserver is missing"),
            ("ldapserver", "expected options as ldapserver=HOST ldapbasedn=\"DN\""),
            ("ldapserver=", "ldapserver is empty"),
            ("ldapserver=a", "ldapbasedn, ldapprefix or ldapsuffix is missing"),
            ("ldapserver=a ldapbasedn=\"dc=x", "the double quote of ldapbasedn is not closed"),
            ("ldapserver=a ldapport=x ldapbasedn=dc=x", "the port is a number up to 65535"),
            ("ldapserver=a ldapscheme=http", "ldapscheme is ldap or ldaps"),
            (
                "ldapserver=a ldapscheme=ldaps ldaptls=1 ldapbasedn=x",
                "ldaptls goes with ldapscheme=ldap only",
            ),
            (
                "ldapserver=a ldapbasedn=x ldapsearchattribute=a ldapsearchfilter=(a=b)",
                "ldapsearchattribute and ldapsearchfilter do not go together",
            ),
            ("ldapserver=a ldapnope=secret", "unknown option \"ldapnope\""),
            ("ldapserver=a ldapbasedn=x ldapsearchfilter=(uid", "ldapsearchfilter is not of RFC 4515"),
            ("ldapurl=http://x/y", "ldapurl is ldap[s]://HOST[:PORT]/BASE[?ATTRIBUTE[?SCOPE[?FILTER]]]"),
        ] {
            assert_eq!(Ldap::parse(text), Err(expected.to_owned()), "{text}");
        }
        let mixed = Ldap::parse("ldapserver=a ldapprefix=x ldapbasedn=y").unwrap_err();
        assert!(mixed.starts_with("ldapprefix and ldapsuffix go with none of "), "{mixed}");
        assert!(
            !format!("{:?}", Ldap::parse("ldapserver=a ldapbasedn=x ldapbindpasswd=hidden"))
                .contains("hidden")
        );
    }
}
