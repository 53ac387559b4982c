//! Requests that another site made a browser send.
//!
//! On the loopback there is no password, so the browser of whoever forwards the port is what an attacker would use: by a name
//! of their own that resolves to 127.0.0.1, or by a form or a script on another page.

use std::net::IpAddr;

use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};

const FETCH_SITE: &str = "sec-fetch-site";

/// Whether a request names this machine as its own user would: `localhost` or a loopback address, with any port, since a
/// port that is forwarded may have another number.
///
/// # Errors
/// What would be right.
pub(super) fn names_this_machine(headers: &HeaderMap) -> Result<(), String> {
    let host = text(headers, HOST.as_str());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if loopback || name.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    let shown: String = host.chars().take(80).collect();
    Err(format!(
        "the Host {shown:?} is not this machine: open the map as http://localhost and the forwarded port"
    ))
}

/// Whether the page itself made the request, or a program that is no browser.
///
/// # Errors
/// Why not.
pub(super) fn is_our_pages(headers: &HeaderMap) -> Result<(), &'static str> {
    const OTHER: &str = "another site asks: only the map's own page may";
    let site = text(headers, FETCH_SITE);
    if !matches!(site, "" | "same-origin" | "none") {
        return Err(OTHER);
    }
    let origin = text(headers, ORIGIN.as_str());
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    if !origin.is_empty() && of_origin != Some(text(headers, HOST.as_str())) {
        return Err(OTHER);
    }
    Ok(())
}

/// Whether a body is JSON: what no form of another site can send.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, "authorization").split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// A header that is there once and is text, else nothing.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap_or("?"),
        (None, _) => "",
        // Twice is nothing that a browser sends.
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:9413", "127.0.0.2", "[::1]:9413", "LocalHost:1"]
        {
            assert_eq!(names_this_machine(&headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9413",
            "127.0.0.1.evil.example",
            "10.0.0.1:9413",
            "localhost:x",
        ] {
            let error = names_this_machine(&headers(&[("host", host)])).unwrap_err();
            assert!(error.contains("http://localhost"), "{host}: {error}");
        }
        assert!(names_this_machine(&headers(&[("host", "localhost"), ("host", "evil.example")])).is_err());
    }

    #[test]
    fn another_site_is_refused() {
        let ours = [
            &[("host", "localhost:1"), ("origin", "http://localhost:1"), ("sec-fetch-site", "same-origin")][..],
            &[("host", "localhost:1")],
        ];
        for all in ours {
            assert_eq!(is_our_pages(&headers(all)), Ok(()));
        }
        let others = [
            &[("host", "localhost:1"), ("origin", "http://localhost:2")][..],
            &[("host", "localhost:1"), ("origin", "null")],
            &[("host", "localhost:1"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:1"), ("sec-fetch-site", "same-site")],
        ];
        for all in others {
            assert!(is_our_pages(&headers(all)).is_err(), "{all:?}");
        }
    }

    #[test]
    fn what_a_form_can_send_is_no_json() {
        assert!(is_json(&headers(&[("content-type", "application/json; charset=utf-8")])));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"] {
            assert!(!is_json(&headers(&[("content-type", kind)])), "{kind}");
        }
    }

    #[test]
    fn a_token_is_read_from_its_header_alone() {
        assert_eq!(bearer(&headers(&[("authorization", "Bearer abc")])), Some("abc"));
        for value in ["Basic abc", "Bearer ", "abc"] {
            assert_eq!(bearer(&headers(&[("authorization", value)])), None, "{value}");
        }
    }
}
