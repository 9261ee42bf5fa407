//! The server side against RFC 7677's transcript, against our client, and against nonsense.

use proptest::prelude::*;

use super::*;
use crate::auth::{ScramClient, ScramSecretSource};

const BOTH: [&str; 2] = [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];

/// RFC 7677, section 3: user `user`, password `pencil`.
fn rfc_secret() -> Arc<ScramSecret> {
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    Arc::new(ScramSecret::parse(text).unwrap())
}

fn initial(mechanism: &str, message: &str) -> Vec<u8> {
    let mut body = mechanism.as_bytes().to_vec();
    body.push(0);
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message.as_bytes());
    body
}

fn server(binding: Option<&[u8]>) -> ScramServer {
    ScramServer::new(rfc_secret(), false, binding.map(Arc::from))
}

#[test]
fn transcript_of_rfc_7677_is_reproduced() {
    let mut server = server(None);
    let first = server
        .on_initial_with(
            &initial(SCRAM_SHA_256, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"),
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
    assert_eq!(
        String::from_utf8(first).unwrap(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let (keys, last) = server
        .on_final(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(last, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    let derived = ScramKeys::derive(b"pencil", &rfc_secret().salt, rfc_secret().iterations);
    assert!(keys == derived);
}

/// Runs a whole exchange of our client with our server.
fn exchange(
    mut server: ScramServer,
    source: ScramSecretSource<'_>,
    binding: Option<&[u8]>,
    offered: &[&str],
) -> Result<ScramKeys, AuthError> {
    let (mut client, mechanism, first) = ScramClient::new(source, binding, offered)?;
    let first = String::from_utf8(first).unwrap();
    let challenge = server.on_initial(&initial(mechanism, &first))?;
    let response = client.on_continue(&challenge)?;
    let (keys, last) = server.on_final(&response)?;
    client.on_final(&last)?;
    Ok(keys)
}

#[test]
fn client_and_server_agree_and_the_proved_keys_log_in_again() {
    let hash: &[u8] = b"hash of the certificate";
    let password = ScramSecretSource::Password("pencil");
    for (ours, theirs, offered) in [
        (None, None, &BOTH[1..]),
        (Some(hash), Some(hash), &BOTH[..]),
        // The client has no hash: "n" is fine even though we offer -PLUS.
        (Some(hash), None, &BOTH[..]),
        // The client could bind, we do not offer it: "y".
        (None, Some(hash), &BOTH[1..]),
    ] {
        let keys = exchange(server(ours), password, theirs, offered).unwrap();
        let again = exchange(server(ours), ScramSecretSource::Keys(&keys), theirs, offered).unwrap();
        assert!(keys == again);
    }
}

#[test]
fn wrong_password_and_doomed_exchange_fail_alike() {
    let wrong = exchange(server(None), ScramSecretSource::Password("pen"), None, &BOTH[1..]);
    let doomed = ScramServer::new(rfc_secret(), true, None);
    let unknown = exchange(doomed, ScramSecretSource::Password("pencil"), None, &BOTH[1..]);
    assert_eq!(wrong, Err(AuthError::Sasl));
    assert_eq!(unknown, Err(AuthError::Sasl));
}

#[test]
fn another_certificate_fails_the_channel_binding() {
    let result =
        exchange(server(Some(b"ours")), ScramSecretSource::Password("pencil"), Some(b"theirs"), &BOTH);
    assert_eq!(result, Err(AuthError::ChannelBindingCheck));
}

#[test]
fn removed_offer_of_channel_binding_is_noticed() {
    let result =
        exchange(server(Some(b"hash")), ScramSecretSource::Password("pencil"), Some(b"hash"), &BOTH[1..]);
    assert_eq!(result, Err(AuthError::ChannelBindingNegotiation));
}

#[test]
fn offer_lists_plus_only_with_a_certificate() {
    assert_eq!(server(None).mechanisms(), b"SCRAM-SHA-256\0\0");
    assert_eq!(server(Some(b"h")).mechanisms(), b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
}

#[test]
fn malformed_first_messages_are_refused() {
    use AuthError::{AuthorizationIdentity, ChannelBindingType, Extension, Malformed, Mechanism};
    let kind = |error: AuthError| std::mem::discriminant(&error);
    let malformed = || Malformed("");
    for (mechanism, message, expected) in [
        ("SCRAM-SHA-1", "n,,n=,r=x", Mechanism),
        (SCRAM_SHA_256, "", malformed()),
        (SCRAM_SHA_256, "n", malformed()),
        (SCRAM_SHA_256, "n,", malformed()),
        (SCRAM_SHA_256, "x,,n=,r=x", malformed()),
        (SCRAM_SHA_256, "n,a=admin,n=,r=x", AuthorizationIdentity),
        (SCRAM_SHA_256, "n,,m=ext,n=,r=x", Extension),
        (SCRAM_SHA_256, "n,,n=", malformed()),
        (SCRAM_SHA_256, "n,,r=x", malformed()),
        (SCRAM_SHA_256, "n,,n=,r=", malformed()),
        (SCRAM_SHA_256, "n,,n=,r=a\u{7f}b", malformed()),
        (SCRAM_SHA_256, "n,,n=,r=ä", malformed()),
        (SCRAM_SHA_256, "p=tls-server-end-point,,n=,r=x", malformed()),
        (SCRAM_SHA_256_PLUS, "n,,n=,r=x", malformed()),
        (SCRAM_SHA_256_PLUS, "p=tls-unique,,n=,r=x", ChannelBindingType),
    ] {
        let error = server(Some(b"h")).on_initial(&initial(mechanism, message)).unwrap_err();
        assert_eq!(kind(error), kind(expected), "{mechanism} {message}");
    }
    assert_eq!(server(None).on_initial(&initial(SCRAM_SHA_256_PLUS, "n,,n=,r=x")), Err(Mechanism));
    for body in [&b""[..], b"SCRAM-SHA-256", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256\0\xff\xff\xff\xffn,,n=,r=x"]
    {
        assert!(matches!(server(None).on_initial(body), Err(Malformed(_))), "{body:?}");
    }
}

#[test]
fn malformed_last_messages_are_refused() {
    for (message, expected) in [
        ("", AuthError::Malformed("Proof is missing.")),
        ("c=biws,r=xN,p=", AuthError::Malformed("Malformed proof.")),
        ("c=biws,r=xN,p=AAAA", AuthError::Malformed("Malformed proof.")),
        ("c=biws,r=xM,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", AuthError::Nonce),
        ("c=biws,r=x,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", AuthError::Nonce),
        ("c=biws,r=xN,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", AuthError::Sasl),
    ] {
        let mut server = server(None);
        server.on_initial_with(&initial(SCRAM_SHA_256, "n,,n=,r=x"), "N").unwrap();
        assert_eq!(server.on_final(message.as_bytes()), Err(expected), "{message}");
        assert!(server.on_final(message.as_bytes()).is_err());
    }
    let mut server = server(None);
    server.on_initial_with(&initial(SCRAM_SHA_256, "n,,n=,r=x"), "N").unwrap();
    let other_flag = server.on_final(b"c=eSws,r=xN,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    assert!(matches!(other_flag, Err(AuthError::Malformed(_))));
}

#[test]
fn last_message_before_the_first_is_refused() {
    assert!(server(None).on_final(b"c=biws,r=x,p=AAAA").is_err());
}

proptest! {
    #[test]
    fn random_messages_never_panic_nor_succeed(
        a in prop::collection::vec(any::<u8>(), 0..80),
        b in "[ncrypm=,a-zA-Z0-9/+]{0,60}",
        c in "(c=(biws|eSws)|),?(r=xN)?(,p=[A-Za-z0-9+/]{43}=)?",
    ) {
        prop_assert!(server(None).on_initial(&a).is_err());
        let _ = server(Some(b"h")).on_initial(&initial(SCRAM_SHA_256, &b));
        let mut server = server(None);
        server.on_initial_with(&initial(SCRAM_SHA_256, "n,,n=,r=x"), "N").unwrap();
        prop_assert!(server.on_final(c.as_bytes()).is_err());
    }

    #[test]
    fn client_survives_random_challenges(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "[rsi=,a-z0-9]{0,60}") {
        for data in [&bytes[..], text.as_bytes()] {
            let (mut client, ..) = ScramClient::new(ScramSecretSource::Password("x"), None, &BOTH).unwrap();
            prop_assert!(client.on_continue(data).is_err());
            prop_assert!(client.on_final(data).is_err());
        }
    }

    #[test]
    fn stored_secrets_of_random_text_never_panic(text in "SCRAM-SHA-256\\$[0-9]{0,5}:?[A-Za-z0-9=]{0,20}\\$?.{0,40}") {
        let _ = ScramSecret::parse(&text);
    }
}
