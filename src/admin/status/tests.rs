//! What the page may do, and who may ask for it.

use std::collections::BTreeSet;

use hyper::header::HeaderName;

use super::*;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const CODE: &str = include_str!("page.js");

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

#[test]
fn other_sites_get_nothing() {
    let own = ("host", "pooler:9127");
    for (part, given, foreign) in [
        // What is no browser.
        (Part::Numbers, vec![], false),
        (Part::Numbers, vec![("sec-fetch-site", "same-origin")], false),
        (Part::Page, vec![("sec-fetch-site", "none")], false),
        (Part::Numbers, vec![("sec-fetch-site", "cross-site")], true),
        (Part::Numbers, vec![("sec-fetch-site", "same-site")], true),
        (Part::Script, vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], true),
        // A link.
        (
            Part::Page,
            vec![
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            false,
        ),
        (
            Part::Page,
            vec![
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "iframe"),
            ],
            true,
        ),
        (
            Part::Numbers,
            vec![
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            true,
        ),
        (Part::Numbers, vec![own, ("origin", "http://pooler:9127")], false),
        (Part::Numbers, vec![own, ("origin", "https://pooler:9127")], false),
        (Part::Numbers, vec![own, ("origin", "http://pooler:80")], true),
        (Part::Numbers, vec![own, ("origin", "null")], true),
        (Part::Numbers, vec![("origin", "http://pooler:9127")], true),
    ] {
        assert_eq!(is_foreign(part, &headers(&given)), foreign, "{part:?} {given:?}");
    }
}

#[test]
fn the_page_has_nothing_that_its_policy_forbids() {
    for forbidden in ["<script>", "style=", "onclick", "onload", "javascript:", "http://", "https://"] {
        let text = PAGE.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains(forbidden), "{forbidden}");
    }
    for forbidden in
        ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "http"]
    {
        let text = CODE.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains(forbidden), "{forbidden}");
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
}

/// Each element that the script looks for is in the page, once.
#[test]
fn what_the_script_fills_is_there() {
    let ids: Vec<&str> = PAGE.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len());
    let wanted: Vec<&str> = CODE.split("$(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(wanted.len() > 10);
    for id in wanted {
        assert!(ids.contains(&id), "{id}");
    }
}
