//! Refusals: what the client hears, and that nothing is left behind.

use std::{sync::Arc, time::Duration};

use super::stage::{Client, Stage, config, password, request, startup};
use crate::{
    auth::AuthError,
    client::error::LoginError,
    config::{AuthType, User},
    error::Report,
    protocol::startup::SSL_REQUEST,
};

const V3: u32 = 3 << 16;

fn said(code: &str, text: &str) -> (String, String) {
    (code.to_owned(), text.to_owned())
}

/// A SASLInitialResponse for SCRAM-SHA-256.
fn sasl_initial(message: &[u8]) -> Vec<u8> {
    let mut payload = b"SCRAM-SHA-256\0".to_vec();
    payload.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    payload.extend_from_slice(message);
    let mut out = Vec::new();
    crate::protocol::encode::password(&mut out, &payload);
    out
}

/// Tries a login by the method that the stage asks for. Gives what was said, with what may differ from try to
/// try (salts, nonces) reduced to its length, and the last words.
async fn attempt(
    stage: &mut Stage,
    user: &str,
    database: &str,
    secret: &str,
) -> (Vec<(u8, usize)>, (String, String)) {
    use crate::auth::{ScramClient, ScramSecretSource, md5};
    let mut client = stage.connect().await;
    client.send(&startup(V3, &[("user", user), ("database", database)])).await;
    let (tag, body) = client.message().await;
    let mut heard = vec![(tag, body.len())];
    match body.split_first_chunk::<4>().unwrap() {
        ([.., 3], _) => client.send(&password(secret)).await,
        ([.., 5], salt) => {
            client.send(&password(&md5::hash(user, secret, salt.try_into().unwrap()))).await;
        }
        ([.., 10], _) => {
            let source = ScramSecretSource::Password(secret);
            let (mut scram, _, initial) = ScramClient::new(source, None, &["SCRAM-SHA-256"]).unwrap();
            client.send(&sasl_initial(&initial)).await;
            let (tag, body) = client.message().await;
            heard.push((tag, body.len()));
            let mut response = Vec::new();
            crate::protocol::encode::password(&mut response, &scram.on_continue(&body[4..]).unwrap());
            client.send(&response).await;
            // The proof of the server comes with whatever follows it.
            if secret == "pencil" && !["eve", "nobody", "md5"].contains(&user) {
                let (tag, body) = client.message().await;
                assert_eq!((tag, &body[..4]), (b'R', &[0, 0, 0, 12][..]));
                scram.on_final(&body[4..]).unwrap();
            }
        }
        other => panic!("unexpected request {other:?}"),
    }
    let last = client.fatal().await;
    stage.failure().await;
    (heard, last)
}

/// S46: unknown user, wrong password and unknown database cannot be told apart before the proof.
#[tokio::test]
async fn unknown_user_wrong_password_and_unknown_database_are_indistinguishable() {
    let refused = |user| said("28P01", &format!("password authentication failed for user \"{user}\""));
    for (auth_type, known) in [
        (AuthType::Plain, "plain"),
        (AuthType::Md5, "plain"),
        (AuthType::ScramSha256, "plain"),
        (AuthType::ScramSha256, "scram"),
    ] {
        let mut settings = config(auth_type);
        // The first of the list shows strangers what to expect.
        settings.users.retain(|name, _| name == known || name == "nobody");
        let mut stage = Stage::new(settings).await;
        let wrong = attempt(&mut stage, known, "app", "wrong").await;
        assert_eq!(wrong.1, refused(known));
        for (user, database) in [("eve", "app"), ("nobody", "app"), (known, "nowhere"), ("eve", "nowhere")] {
            let other = attempt(&mut stage, user, database, "wrong").await;
            assert_eq!(other, (wrong.0.clone(), refused(user)), "{auth_type:?} {user} {database}");
        }
        // Nor does the right password of somebody else open the door.
        assert_eq!(attempt(&mut stage, "eve", "app", "pencil").await.1, refused("eve"));
        // Only who has proved it hears of the database.
        let proved = attempt(&mut stage, known, "nowhere", "pencil").await;
        assert_eq!(proved.1, said("3D000", "no such database: nowhere"));
    }
}

/// S46: a mock exchange shows the same salt each time, as a real one does.
#[tokio::test]
async fn salt_of_an_unknown_user_is_stable() {
    let mut stage = Stage::new(config(AuthType::ScramSha256)).await;
    let mut salts = Vec::new();
    for user in ["eve", "eve", "mallory"] {
        let mut client = stage.connect().await;
        client.send(&startup(V3, &[("user", user)])).await;
        client.message().await;
        client.send(&sasl_initial(b"n,,n=,r=abc")).await;
        let (_, body) = client.message().await;
        let text = String::from_utf8(body[4..].to_vec()).unwrap();
        salts.push(text.split(',').nth(1).unwrap().to_owned());
        drop(client);
        assert!(matches!(stage.failure().await, LoginError::Closed));
    }
    assert_eq!(salts[0], salts[1]);
    assert_ne!(salts[0], salts[2]);
}

#[tokio::test]
async fn md5_secret_cannot_log_in_by_scram() {
    let mut stage = Stage::new(config(AuthType::ScramSha256)).await;
    let (_, last) = attempt(&mut stage, "md5", "app", "pencil").await;
    assert_eq!(last, said("28P01", "password authentication failed for user \"md5\""));
}

/// Whoever looks for PgBouncer's words finds them.
#[test]
fn refused_proof_tells_the_words_of_pgbouncer_too() {
    let refused = |cause| LoginError::WrongPassword { user: "eve".to_owned(), cause };
    assert_eq!(refused(AuthError::Sasl).detail().as_deref(), Some("SASL authentication failed."));
    assert_eq!(refused(AuthError::Password).detail(), None);
}

#[tokio::test]
async fn trust_needs_a_known_user() {
    let mut stage = Stage::new(config(AuthType::Trust)).await;
    let mut client = stage.connect().await;
    client.send(&startup(V3, &[("user", "eve"), ("database", "app")])).await;
    assert_eq!(client.fatal().await, said("28000", "\"trust\" authentication failed"));
    stage.failure().await;
}

/// S12, S13: what a stranger may send instead of a login. Each ends in a clear error, and in balanced counters.
#[tokio::test]
async fn malformed_openings_are_refused_and_leave_nothing_behind() {
    let mut stage = Stage::new(config(AuthType::ScramSha256)).await;
    let user = startup(V3, &[("user", "scram"), ("database", "app")]);
    let after = |bytes: &[u8]| [&user[..], bytes].concat();
    let long = "x".repeat(5000);
    let oversize = startup(V3, &[("user", &long), ("x", &long)]);
    // PostgreSQL says nothing either.
    for bytes in [vec![0, 0, 0, 3, 0, 0, 0, 0], vec![0xff; 8], oversize] {
        let mut client = stage.connect().await;
        client.send(&bytes).await;
        assert!(client.closed().await, "{bytes:.20?}");
        stage.failure().await;
    }
    for (bytes, code) in [
        (startup(2 << 16, &[("user", "x")]), "0A000"),
        (startup(V3, &[("database", "app")]), "28000"),
        (startup(V3, &[("user", "scram"), ("replication", "maybe")]), "22023"),
        (startup(V3, &[("user", "scram"), ("options", "-B 4")]), "0A000"),
        (vec![0, 0, 0, 13, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0], "08P01"),
        (vec![0, 0, 0, 15, 0, 3, 0, 0, b'u', 0, 0xff, 0xfe, b'x', 0, 0], "22021"),
    ] {
        let mut client = stage.connect().await;
        client.send(&bytes).await;
        assert_eq!(client.fatal().await.0, code, "{bytes:.20?}");
        stage.failure().await;
    }
    for (bytes, code) in [
        (after(b"Q\0\0\0\x04"), "08P01"),
        (after(b"p\0\0\0\x03"), "08P01"),
        (after(b"p\x7f\xff\xff\xff"), "08P01"),
        (after(b"p\0\0\x20\0"), "08P01"),
        (after(b"p\0\0\0\x08xxxx"), "08P01"),
        (after(&sasl_initial(b"n,,n=,r=")), "08P01"),
        (after(&sasl_initial(b"n,a=root,n=,r=abc")), "0A000"),
        (after(&sasl_initial(b"p=tls-unique,,n=,r=abc")), "08P01"),
    ] {
        let mut client = stage.connect().await;
        client.send(&bytes).await;
        assert_eq!(client.message().await.0, b'R');
        assert_eq!(client.fatal().await.0, code, "{bytes:?}");
        stage.failure().await;
    }
    assert_eq!(stage.context.shared.limits.clients(), 0);
    assert_eq!(stage.context.shared.limits.of_user("scram"), 0);
}

#[tokio::test]
async fn empty_password_is_refused() {
    let mut settings = config(AuthType::Plain);
    let empty = User { password: Some(crate::error::Secret(String::new())), ..User::default() };
    settings.users.insert("empty".to_owned(), Arc::new(empty));
    let mut stage = Stage::new(settings).await;
    for user in ["empty", "plain", "eve"] {
        let mut client = stage.connect().await;
        client.send(&startup(V3, &[("user", user), ("database", "app")])).await;
        client.message().await;
        client.send(&password("")).await;
        assert_eq!(client.fatal().await, said("28P01", "empty password returned by client"));
        stage.failure().await;
    }
}

/// S12: half a message, then nothing: the time-out speaks; counters balance.
#[tokio::test]
async fn slow_logins_end_with_client_login_timeout() {
    let mut settings = config(AuthType::ScramSha256);
    settings.settings.client_login_timeout = Duration::from_millis(200);
    let mut stage = Stage::new(settings).await;
    let full = startup(V3, &[("user", "scram"), ("database", "app")]);
    for bytes in [&b""[..], &full[..1], &full[..20], &request(SSL_REQUEST), &full] {
        let mut client = stage.connect().await;
        client.send(bytes).await;
        if bytes.len() == 8 {
            assert_eq!(client.byte().await, b'N');
        } else if bytes == full {
            assert_eq!(client.message().await.0, b'R');
        }
        assert_eq!(client.fatal().await, said("08P01", "client_login_timeout"));
        assert!(matches!(stage.failure().await, LoginError::Timeout));
    }
    assert_eq!(stage.context.shared.limits.clients(), 0);
}

/// S12: a client that leaves in the middle is said nothing, and nobody counts it any more.
#[tokio::test]
async fn client_that_leaves_is_forgotten() {
    let mut stage = Stage::new(config(AuthType::ScramSha256)).await;
    let full = startup(V3, &[("user", "scram"), ("database", "app")]);
    for len in [0, 1, 5, full.len()] {
        let mut client = stage.connect().await;
        client.send(&full[..len]).await;
        drop(client);
        assert!(matches!(stage.failure().await, LoginError::Closed | LoginError::Io(_)));
    }
    assert_eq!(stage.context.shared.limits.clients(), 0);
}

#[tokio::test]
async fn limits_are_checked_before_the_password() {
    let mut settings = config(AuthType::Plain);
    settings.settings.max_client_conn = 1;
    let mut stage = Stage::new(settings).await;
    let mut held: Vec<Client> = Vec::new();
    let mut first = stage.connect().await;
    first.send(&startup(V3, &[("user", "plain"), ("database", "app")])).await;
    first.message().await;
    held.push(first);
    let mut second = stage.connect().await;
    second.send(&startup(V3, &[("user", "plain"), ("database", "app")])).await;
    let expected = said("53300", "no more connections allowed (max_client_conn)");
    assert_eq!(second.fatal().await, expected);
    stage.failure().await;
    // The console still answers.
    let mut console = stage.connect().await;
    console.send(&startup(V3, &[("user", "plain"), ("database", "pooler")])).await;
    assert_eq!(console.message().await.0, b'R');
}
