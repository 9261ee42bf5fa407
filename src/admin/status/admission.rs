//! Who may see the status page: `admin_users` and `stats_users`, by the passwords that the configuration has of them.
//!
//! Users whom only PostgreSQL, a directory or the system knows are refused, and so are those who need no password.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, PoisonError},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::{HeaderMap, header::AUTHORIZATION};
use zeroize::Zeroizing;

use crate::{
    admin::commands::Commands,
    auth::{SecretCache, Stored, secrets},
    client::failures::FailedLogin,
    config::Config,
    error::Printable,
};

/// Longer ones are nobody's.
const LONGEST: usize = 4096;

/// Why somebody does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// He has not proved who he is.
    Unknown,
    /// He has failed too often: seconds to wait.
    Wait(u64),
}

/// Lets in whoever proves to be one of them.
pub(super) async fn admit(headers: &HeaderMap, from: IpAddr, commands: &Commands) -> Result<(), Denied> {
    // Browsers ask without at first.
    let given = headers.get(AUTHORIZATION).ok_or(Denied::Unknown)?;
    let throttle = || commands.status.throttle.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(seconds) = throttle().begin(from, Instant::now()) {
        return Err(Denied::Wait(seconds));
    }
    // Ends with the attempt, also where the connection ends before.
    let mut attempt = Attempt { commands, from, right: false };
    let credentials = given.to_str().ok().and_then(read);
    let process = &commands.process;
    if let Some((user, password)) = &credentials
        && is_right(&process.config(), &process.logins.secrets, user, password).await
    {
        attempt.right = true;
        return Ok(());
    }
    let user = credentials.as_ref().map_or("(none)", |(user, _)| user.as_str());
    tracing::warn!(user = %Printable(user), peer = %from, "status page: login refused");
    process.logins.failures.add(FailedLogin::Password);
    Err(Denied::Unknown)
}

struct Attempt<'a> {
    commands: &'a Commands,
    from: IpAddr,
    right: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut throttle = self.commands.status.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.end(self.from, self.right, Instant::now());
    }
}

/// User and password (RFC 7617).
fn read(header: &str) -> Option<(String, Zeroizing<String>)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > LONGEST {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(encoded.trim()).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), Zeroizing::new(password.to_owned())))
}

async fn is_right(config: &Config, secrets: &SecretCache, user: &str, password: &Zeroizing<String>) -> bool {
    let settings = &config.settings;
    let may = settings.admin_users.iter().chain(&settings.stats_users).any(|name| name == user);
    let known = config.users.get(user).filter(|_| may).and_then(|user| user.password.as_ref());
    let stored = known.and_then(|password| Stored::parse(&password.0));
    match stored {
        Some(Stored::Scram(secret)) => {
            secrets.verify(Arc::new(secret), password.clone()).await.unwrap_or(false)
        }
        Some(stored) => stored.verify(user, password),
        None => {
            // Takes as long as a known one does, where those are SCRAM secrets.
            let mut all = config.users.values();
            let first = all.find_map(|user| Stored::parse(&user.password.as_ref()?.0));
            if matches!(first, Some(Stored::Scram(_))) {
                let iterations = NonZeroU32::new(settings.scram_iterations);
                let mock = secrets.mock(user, iterations.unwrap_or(secrets::DEFAULT_ITERATIONS));
                let _ = secrets.verify(mock, password.clone()).await;
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::ScramSecret, config::User, error::Secret};

    fn config() -> Config {
        let mut config = Config::default();
        config.settings.admin_users = vec!["root".to_owned(), "scram".to_owned(), "open".to_owned()];
        config.settings.stats_users = vec!["md5".to_owned(), "nobody".to_owned()];
        let secret = ScramSecret::derive("pw", b"salt of 16 bytes", NonZeroU32::MIN);
        let parts = [&*secret.salt, &secret.stored_key, &secret.server_key];
        let [salt, stored, server] = parts.map(|bytes| BASE64.encode(bytes));
        let secret = format!("SCRAM-SHA-256$1:{salt}${stored}:{server}");
        let md5 = crate::auth::md5::stored("md5", "pw");
        for (name, password) in [
            ("root", Some("pä:ss")),
            ("scram", Some(secret.as_str())),
            ("md5", Some(md5.as_str())),
            ("open", None),
            ("app", Some("pw")),
        ] {
            let password = password.map(|password| Secret(password.to_owned()));
            let user = User { name: name.to_owned(), password, ..User::default() };
            config.users.insert(name.to_owned(), Arc::new(user));
        }
        config
    }

    #[tokio::test]
    async fn only_users_of_the_console_whose_secret_is_known_get_in() {
        let (config, secrets) = (config(), SecretCache::new().unwrap());
        for (user, password, right) in [
            ("root", "pä:ss", true),
            ("root", "pw", false),
            ("root", "", false),
            ("scram", "pw", true),
            ("scram", "pW", false),
            ("md5", "pw", true),
            ("md5", "x", false),
            // Known, but not of the console.
            ("app", "pw", false),
            // Nothing proves who these are.
            ("open", "", false),
            ("nobody", "", false),
            ("", "", false),
        ] {
            let password = Zeroizing::new(password.to_owned());
            assert_eq!(is_right(&config, &secrets, user, &password).await, right, "{user} {password:?}");
        }
    }

    #[test]
    fn credentials_are_read_as_browsers_send_them() {
        let of = |text: &str| read(&format!("Basic {}", BASE64.encode(text)));
        let (user, password) = of("root:pä:ss").unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("root", "pä:ss"));
        assert!(of("root").is_none() && read("Bearer cm9vdDo=").is_none() && read("Basic").is_none());
        assert!(read("Basic !").is_none() && of(&format!("a:{}", "x".repeat(LONGEST))).is_none());
        assert!(read("basic cm9vdDo=").is_some());
    }
}
