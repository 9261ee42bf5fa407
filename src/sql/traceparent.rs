//! The trace that a statement belongs to, as its client says in a comment: `/*traceparent='00-…-…-01'*/`.
//!
//! Sources: the specification of sqlcommenter (keys and values are encoded as in URLs, values are in quotes, comments stand behind
//! the statement or in front of it); W3C Trace Context, "traceparent Header".

/// Comments that are looked at, at each end.
const MOST_COMMENTS: usize = 8;
/// Longer ones are not.
const LONGEST: usize = 4096;

/// Which span of which trace caused a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    /// Its trace is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// From the comments around a text. What is no valid one counts as none.
    pub fn of(text: &[u8]) -> Option<Self> {
        Self::behind(text).or_else(|| Self::in_front(text))
    }

    fn behind(text: &[u8]) -> Option<Self> {
        let mut text = text;
        for _ in 0..MOST_COMMENTS {
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || [b';', 0].contains(byte);
            let end = text.iter().rposition(|byte| !is_end(byte))? + 1;
            let inner = text.get(..end)?.strip_suffix(b"*/")?;
            let window = inner.get(inner.len().saturating_sub(LONGEST)..)?;
            let start = inner.len() - window.len() + memchr::memmem::rfind(window, b"/*")?;
            if let Some(found) = inner.get(start + 2..).and_then(Self::in_comment) {
                return Some(found);
            }
            text = text.get(..start)?;
        }
        None
    }

    fn in_front(text: &[u8]) -> Option<Self> {
        let mut text = text;
        for _ in 0..MOST_COMMENTS {
            let inner = text.trim_ascii_start().strip_prefix(b"/*")?;
            let window = inner.get(..LONGEST.min(inner.len()))?;
            let end = memchr::memmem::find(window, b"*/")?;
            if let Some(found) = inner.get(..end).and_then(Self::in_comment) {
                return Some(found);
            }
            text = inner.get(end + 2..)?;
        }
        None
    }

    /// Among `key='value'` pairs.
    fn in_comment(comment: &[u8]) -> Option<Self> {
        let value_of = |pair: &[u8]| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (pair.get(..equals)?.trim_ascii(), pair.get(equals + 1..)?.trim_ascii());
            let value = value.strip_prefix(b"'")?.strip_suffix(b"'")?;
            (key == b"traceparent").then(|| decoded(value)).flatten()
        };
        let value = comment.split(|byte| *byte == b',').find_map(value_of)?;
        Self::read(&value)
    }

    /// `version-trace-span-flags`. Of later versions only what this one knows is read.
    fn read(value: &[u8]) -> Option<Self> {
        let mut parts = value.splitn(5, |byte| *byte == b'-');
        let version = hex::<1>(parts.next()?)?;
        let (trace, span, flags) =
            (hex::<16>(parts.next()?)?, hex::<8>(parts.next()?)?, hex::<1>(parts.next()?)?);
        let known = version == [0];
        let valid =
            version != [0xff] && (!known || parts.next().is_none()) && trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace, span, sampled: flags.iter().all(|flags| flags & 1 == 1) })
    }
}

/// Without what URLs encode as `%XX`.
fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [*rest.next()?, *rest.next()?];
                let [byte] = hex::<1>(&digits.map(|digit| digit.to_ascii_lowercase()))?;
                decoded.push(byte);
            }
            byte => decoded.push(*byte),
        }
    }
    Some(decoded)
}

/// Digits in lower case, and so many of them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn found(text: &str) -> Option<bool> {
        let found = TraceParent::of(text.as_bytes())?;
        assert_eq!((found.trace[0], found.trace[15], found.span[0]), (0x0a, 0x9c, 0xb7), "{text}");
        Some(found.sampled)
    }

    #[test]
    fn comments_at_both_ends_are_read() {
        let not_sampled = TRACE.replace("-01", "-00");
        for (text, sampled) in [
            (format!("SELECT 1 /*traceparent='{TRACE}'*/"), Some(true)),
            (format!("SELECT 1 /*traceparent='{not_sampled}'*/"), Some(false)),
            (
                format!(
                    "SELECT 1 /*action='%2Fparam*d',controller='index,'framework='spring',traceparent='{TRACE}',tracestate='congo%3Dt61rcWkgMzE,rojo%3D00f067aa0ba902b7'*/;\n\0"
                ),
                Some(true),
            ),
            (format!("/*traceparent='{TRACE}'*/ SELECT 1"), Some(true)),
            (format!("  /* pooler: primary */ /* db='x', traceparent = '{TRACE}' */SELECT 1"), Some(true)),
            (format!("SELECT 1 /*traceparent='{TRACE}'*/ /* another */"), Some(true)),
            (format!("SELECT 1 /*traceparent='{}'*/", TRACE.replace('-', "%2D")), Some(true)),
            (format!("/* */SELECT 1 /*traceparent='{TRACE}'*/"), Some(true)),
            (format!("SELECT '/*traceparent=''{TRACE}''*/'"), None),
            (format!("SELECT /*traceparent='{TRACE}'*/ 1"), None),
            (format!("SELECT 1 /*tracestate='{TRACE}'*/"), None),
            (format!("SELECT 1 /*traceparent={TRACE}*/"), None),
            ("SELECT 1".to_owned(), None),
            ("/*".to_owned(), None),
            ("*/".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(found(&text), sampled, "{text}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for wrong in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "%",
            "%zz",
            "",
        ] {
            assert_eq!(
                TraceParent::of(format!("SELECT 1 /*traceparent='{wrong}'*/").as_bytes()),
                None,
                "{wrong}"
            );
        }
        // What later versions add is passed over.
        let later = TRACE.replace("00-0a", "01-0a") + "-more";
        assert_eq!(found(&format!("SELECT 1 /*traceparent='{later}'*/")), Some(true));
    }

    #[test]
    fn long_texts_cost_little() {
        let comments = "/**/".repeat(100_000);
        assert_eq!(TraceParent::of(comments.as_bytes()), None);
        let long = format!("SELECT 1 /*{}*/", "x".repeat(1 << 20));
        assert_eq!(TraceParent::of(long.as_bytes()), None);
    }
}
