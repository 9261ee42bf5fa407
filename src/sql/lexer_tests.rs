//! Where tokens begin and end, and that finding out takes linear time.

use proptest::prelude::*;

use super::*;

/// Tokens with spaces between them; `!` is junk.
fn tokens(text: &str, standard_strings: bool) -> String {
    let tokens = Lexer::new(text.as_bytes(), standard_strings).map(|token| match token {
        Ok(token) => {
            let kind = match token.kind {
                TokenKind::Word => "w",
                TokenKind::Quoted => "q",
                TokenKind::Number => "n",
                TokenKind::Text => "t",
                TokenKind::Escaped => "e",
                TokenKind::Bits => "b",
                TokenKind::Param => "$",
                TokenKind::Punctuation(_) => "",
                TokenKind::Mark => "m",
                TokenKind::Operator => "o",
            };
            format!("{kind}‹{}›", text.get(token.range()).unwrap_or("?"))
        }
        Err(Junk) => "!".to_owned(),
    });
    tokens.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(tokens(text, true), *expected, "{text}");
    }
}

#[test]
fn words_and_identifiers() {
    check(&[
        ("", ""),
        (" \t\r\n\x0b\x0c", ""),
        ("select a_1 , B$c", "w‹select› w‹a_1› ‹,› w‹B$c›"),
        ("größe x", "w‹größe› w‹x›"),
        (r#""a b" "c""d" "$$""#, r#"q‹"a b"› q‹"c""d"› q‹"$$"›"#),
        (r#""""#, "!"),
        (r#""a"#, "!"),
        (r#""a"""#, "!"),
        ("a.b.*", "w‹a› ‹.› w‹b› ‹.› o‹*›"),
        ("n'a'", "w‹n› t‹'a'›"),
        ("u&x u&1", "w‹u› o‹&› w‹x› w‹u› o‹&› n‹1›"),
        (r#"u&"a""#, "!"),
        ("a\0b", "w‹a›"),
        ("a \\g", "w‹a› !"),
        ("{", "!"),
    ]);
}

#[test]
fn strings_end_where_the_server_ends_them() {
    check(&[
        ("'a''b' 'c'", "t‹'a''b'› t‹'c'›"),
        (r"'a\' b", r"t‹'a\'› w‹b›"),
        (r"E'a\' b' c", r"e‹E'a\' b'› w‹c›"),
        (r"e'\\' b", r"e‹e'\\'› w‹b›"),
        (r"E'a\", "!"),
        (r"E'a\'", "!"),
        (r"E'a'' \''", r"e‹E'a'' \''›"),
        ("'a", "!"),
        ("'a'\n'b' c", "t‹'a'\n'b'› w‹c›"),
        ("'a' \t\r 'b' c", "t‹'a' \t\r 'b'› w‹c›"),
        ("'a' 'b'", "t‹'a'› t‹'b'›"),
        ("'a' -- x'\n -- y\n 'b'", "t‹'a' -- x'\n -- y\n 'b'›"),
        ("'a' -- x 'b'", "t‹'a'›"),
        ("'a'\n/**/'b'", "t‹'a'› t‹'b'›"),
        ("'a'\n-'b'", "t‹'a'› o‹-› t‹'b'›"),
        ("E'a'\n'\\' b' c", "e‹E'a'\n'\\' b'› w‹c›"),
        ("'a'\nE'b'", "t‹'a'› e‹E'b'›"),
        ("'a'\n\"b\"", "t‹'a'› q‹\"b\"›"),
        ("B'01' x'1f'", "b‹B'01'› b‹x'1f'›"),
        // Two quotes are not one inside bits.
        ("B'1''0'", "b‹B'1'› t‹'0'›"),
        ("B'1'\n'0'", "b‹B'1'\n'0'›"),
        (r"U&'d\0061' x", r"e‹U&'d\0061'› w‹x›"),
        (r"u&'\' x", r"e‹u&'\'› w‹x›"),
        ("ab'c'", "w‹ab› t‹'c'›"),
    ]);
}

#[test]
fn backslashes_escape_unless_strings_conform() {
    assert_eq!(tokens(r"'a\' b' c", false), r"e‹'a\' b'› w‹c›");
    assert_eq!(tokens(r"'a\\' b", false), r"e‹'a\\'› w‹b›");
    assert_eq!(tokens("U&'a'", false), "!");
    assert_eq!(tokens(r"N'\'' x", false), r"w‹N› e‹'\''› w‹x›");
}

#[test]
fn dollar_quotes() {
    check(&[
        ("$$a'b$$ c", "t‹$$a'b$$› w‹c›"),
        ("$a$ $$ $b$ $a$ c", "t‹$a$ $$ $b$ $a$› w‹c›"),
        ("$$a$b$$", "t‹$$a$b$$›"),
        ("$a$x$b$a$ y", "t‹$a$x$b$a$› w‹y›"),
        ("$a$$a$", "t‹$a$$a$›"),
        ("$é_1$x$é_1$", "t‹$é_1$x$é_1$›"),
        ("$a$ x $A$", "!"),
        ("$$", "!"),
        ("$$x$", "!"),
        ("$a", "!"),
        ("$a b$", "!"),
        ("a$$b$$", "w‹a$$b$$›"),
        ("1$$b$$", "n‹1› t‹$$b$$›"),
        ("$1 $12+$3", "$‹$1› $‹$12› o‹+› $‹$3›"),
        ("$1a", "!"),
        ("$1$$a$$", "$‹$1› t‹$$a$$›"),
        ("$", "!"),
    ]);
}

#[test]
fn comments() {
    check(&[
        ("a--b\nc", "w‹a› w‹c›"),
        ("a--b\rc", "w‹a› w‹c›"),
        ("a--", "w‹a›"),
        ("a/*b*/c", "w‹a› w‹c›"),
        ("a/*/*b*/c*/d", "w‹a› w‹d›"),
        ("a/*/*/ b */ c */ d", "w‹a› w‹d›"),
        ("a/**/b", "w‹a› w‹b›"),
        ("a/***/b", "w‹a› w‹b›"),
        ("a/*'*/d'c'", "w‹a› w‹d› t‹'c'›"),
        ("a/*--*/b", "w‹a› w‹b›"),
        ("a--/*\nb", "w‹a› w‹b›"),
        ("a/*", "w‹a› !"),
        ("a/*/", "w‹a› !"),
        ("a/*/**/", "w‹a› !"),
        ("a */ b", "w‹a› o‹*/› w‹b›"),
        ("a+/*x*/b", "w‹a› o‹+› w‹b›"),
        ("a+--x\nb", "w‹a› o‹+› w‹b›"),
    ]);
    let mut lexer = Lexer::new(b"a /* b */ -- c", true);
    assert_eq!(lexer.comment(), None);
    assert_eq!(lexer.by_ref().count(), 1);
    assert_eq!(lexer.comment(), Some(&b"/* b */"[..]));
}

#[test]
fn numbers() {
    check(&[
        ("1 12 1.5 .5 1. 1.e5 1e5 1e-5 1E+5", "n‹1› n‹12› n‹1.5› n‹.5› n‹1.› n‹1.e5› n‹1e5› n‹1e-5› n‹1E+5›"),
        ("1..2", "n‹1› m‹..› n‹2›"),
        ("1...2", "n‹1› m‹..› n‹.2›"),
        ("1.2.3", "n‹1.2› n‹.3›"),
        ("1_000 1_0.0_1", "n‹1_000› n‹1_0.0_1›"),
        ("0x1F 0o17 0b11 0x_f", "n‹0x1F› n‹0o17› n‹0b11› n‹0x_f›"),
        ("1a", "!"),
        ("1_", "!"),
        ("1__0", "!"),
        ("1e", "!"),
        ("1e+", "!"),
        ("1.a", "!"),
        ("0x", "!"),
        ("0xg", "!"),
        ("0o8", "!"),
        ("0b12", "!"),
        ("1é", "!"),
        ("1+1", "n‹1› o‹+› n‹1›"),
        ("a.1", "w‹a› n‹.1›"),
        ("a[1:2]", "w‹a› ‹[› n‹1› ‹:› n‹2› ‹]›"),
    ]);
}

#[test]
fn operators() {
    check(&[
        ("a::b :=", "w‹a› m‹::› w‹b› m‹:=›"),
        (":::", "m‹::› ‹:›"),
        ("a=>b", "w‹a› m‹=>› w‹b›"),
        ("a=>-b", "w‹a› m‹=>› o‹-› w‹b›"),
        ("a <> b != c <= d >= e", "w‹a› o‹<>› w‹b› o‹!=› w‹c› o‹<=› w‹d› o‹>=› w‹e›"),
        ("a*-b", "w‹a› o‹*› o‹-› w‹b›"),
        ("a*+-+b", "w‹a› o‹*› o‹+› o‹-› o‹+› w‹b›"),
        ("a @- b", "w‹a› o‹@-› w‹b›"),
        ("a +@+- b", "w‹a› o‹+@+-› w‹b›"),
        ("a->>'b'", "w‹a› o‹->>› t‹'b'›"),
        ("a#>>b ?| c", "w‹a› o‹#>>› w‹b› o‹?|› w‹c›"),
        ("+-+", "o‹+› o‹-› o‹+›"),
        ("a%-1", "w‹a› o‹%-› n‹1›"),
        ("a|/*c*/b", "w‹a› o‹|› w‹b›"),
    ]);
    assert_eq!(tokens(&"*".repeat(63), true), format!("o‹{}›", "*".repeat(63)));
    assert_eq!(tokens(&"*".repeat(64), true), "!");
}

/// Inputs that hurt scanners that look back, look ahead or recurse. Each takes time in proportion to its length.
#[test]
fn long_texts_are_read_in_linear_time() {
    const MANY: usize = 1 << 20;
    for piece in [
        "+", "-", "-+", "*+", "/*", "'a'\n", "'a' ", "$a$", "$aa", "(", "\"a\"", "''", "E'\\'", "1.", ". ",
        "'-",
    ] {
        let text = piece.repeat(MANY / piece.len());
        let start = std::time::Instant::now();
        let tokens = Lexer::new(text.as_bytes(), true).count();
        // A quadratic one takes minutes.
        assert!(start.elapsed().as_secs() < 10, "{piece}: {tokens} tokens in {:?}", start.elapsed());
    }
}

proptest! {
    /// Tokens come in order, do not overlap, and leave out only spaces and comments.
    #[test]
    fn any_bytes_give_tokens_in_order(text: Vec<u8>, standard: bool) {
        let mut end = 0;
        for token in Lexer::new(&text, standard).flatten() {
            prop_assert!(token.start() >= end && token.len() > 0 && token.range().end <= text.len());
            end = token.range().end;
        }
    }

    #[test]
    fn pieces_of_sql_give_tokens_in_order(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..30), standard: bool
    ) {
        let text = pieces.concat();
        let mut end = 0;
        for token in Lexer::new(text.as_bytes(), standard).flatten() {
            prop_assert!(token.start() >= end && token.len() > 0 && token.range().end <= text.len());
            let between = text.get(end..token.start()).unwrap_or("?").trim_matches([' ', '\n']);
            prop_assert!(between.is_empty() || between.starts_with(['-', '/']), "{between}");
            end = token.range().end;
        }
    }
}

const PIECES: &[&str] = &[
    "a", "'", "''", "\"", "\\", "$", "$$", "$a$", "E'", "U&'", "--", "\n", "/*", "*/", "+", "-", "*", "=",
    ">", "@", "1", ".", "e", "0x", "_", "(", ")", ";", ":", " ", "é",
];
