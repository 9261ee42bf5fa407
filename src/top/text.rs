//! How numbers and names are shown.

use std::fmt::Write as _;

/// A text of others, in one line, without anything that a terminal would obey or that turns what stands beside it around.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    for c in text.chars() {
        if c.is_whitespace() {
            blank = true;
            continue;
        }
        if std::mem::take(&mut blank) {
            out.push(' ');
        }
        match c {
            c if c.is_control() => {
                let _ = write!(out, "{}", c.escape_default());
            }
            // Joiners, marks of direction, tags, and what else has no width or is invisible.
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// 12345.6 as `12.3k`.
pub(super) fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"])
}

/// 1234567 as `1.2 MB`.
pub(super) fn bytes(number: f64) -> String {
    scaled(number, 1000.0, &[" B", " kB", " MB", " GB", " TB"])
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let (mut number, mut units) = (number.max(0.0), units.iter());
    let mut unit = units.next().copied().unwrap_or_default();
    let mut whole = true;
    // What would be rounded to the next unit is shown in it.
    while number >= step - 0.5 {
        let Some(next) = units.next() else { break };
        (number, unit, whole) = (number / step, next, false);
    }
    if number >= 99.95 || (whole && number.fract() == 0.0) {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

/// Microseconds as `850 µs`, `12.3 ms`, `4.5 s`, `3 min`.
pub(super) fn time(micros: f64) -> String {
    match micros.max(0.0) {
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 99_950.0 => format!("{:.1} ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        us if us < 99_950_000.0 => format!("{:.1} s", us / 1e6),
        us if us < 7_200_000_000.0 => format!("{:.0} min", us / 6e7),
        us => format!("{:.0} h", us / 3.6e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_cannot_steer_a_terminal() {
        for (text, expected) in [
            ("app", "app"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}x", "\\u{1b}[2J\\u{1b}]0;title\\u{7}x"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("SELECT 1\n\tFROM  a\r\n", "SELECT 1 FROM a"),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{e0041}", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}"),
            ("Ünïcødé 表 🐘", "Ünïcødé 表 🐘"),
            ("\u{0}", "\\u{0}"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (7.0, "7"),
            (7.25, "7.2"),
            (999.0, "999"),
            (999.7, "1.0k"),
            (12_345.0, "12.3k"),
            (2.5e6, "2.5M"),
            (-3.0, "0"),
        ] {
            assert_eq!(count(number), expected);
        }
        assert_eq!(
            (bytes(0.0), bytes(1500.0), bytes(3.2e9)),
            ("0 B".into(), "1.5 kB".into(), "3.2 GB".into())
        );
        for (micros, expected) in [
            (0.0, "0 µs"),
            (850.4, "850 µs"),
            (999.9, "1.0 ms"),
            (12_345.0, "12.3 ms"),
            (250_000.0, "250 ms"),
            (4_500_000.0, "4.5 s"),
            (180_000_000.0, "3 min"),
            (1e10, "3 h"),
        ] {
            assert_eq!(time(micros), expected);
        }
    }
}
