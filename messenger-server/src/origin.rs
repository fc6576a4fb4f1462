//! Which web pages may call: CORS for HTTP, and the `Origin` check of the WebSocket, which CORS
//! does not cover.

use std::str::FromStr;

use poem::http::{HeaderMap, HeaderValue, header};

/// One entry of the list of origins: `scheme://host[:port]`, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    /// Reads an origin, in lower case and without a final slash.
    ///
    /// # Errors
    ///
    /// The rule, if the text is no origin.
    fn from_str(text: &str) -> Result<Self, String> {
        let origin = text.trim().trim_end_matches('/').to_ascii_lowercase();
        let is_origin = origin.split_once("://").is_some_and(|(scheme, authority)| {
            let plain = |c: char| c.is_ascii_graphic() && !"/?#@,".contains(c);
            !scheme.is_empty() && !authority.is_empty() && authority.chars().all(plain)
        });
        if is_origin || origin == "*" {
            Ok(Self(origin))
        } else {
            Err("must be origins like https://chat.example, separated by commas".to_owned())
        }
    }
}

/// The origins that may call.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    list: Vec<Origin>,
    any: bool,
}

impl Origins {
    pub(crate) fn new(list: Vec<Origin>) -> Self {
        let any = list.iter().any(|origin| origin.0 == "*");
        Self { list, any }
    }

    /// Returns what `Access-Control-Allow-Origin` says to this origin; `None` if it may not call.
    /// Credentials are never allowed with it: tokens travel in a header, not in a cookie.
    pub(crate) fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        let listed = |entry: &Origin| entry.0.eq_ignore_ascii_case(text);
        self.list.iter().any(listed).then(|| origin.clone())
    }

    /// Tells whether a WebSocket may be opened: by what is no web page, by a page of a listed
    /// origin, or by a page of this very host.
    pub(crate) fn may_open_socket(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return true;
        };
        if self.allowed(origin).is_some() {
            return true;
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let same_host = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority
                .zip(host)
                .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        origin.to_str().is_ok_and(same_host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_opened_by_listed_pages_by_pages_of_this_host_and_by_no_page() {
        let list = vec!["https://chat.example".parse().expect("an origin")];
        let origins = Origins::new(list);
        let may = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("api.example:8000"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a value"));
            }
            origins.may_open_socket(&headers)
        };

        for yes in [
            None,
            Some("https://chat.example"),
            Some("HTTPS://Chat.Example"),
            Some("http://api.example:8000"),
        ] {
            assert!(may(yes), "{yes:?}");
        }
        for no in [
            "null",
            "",
            "https://evil.example",
            "http://chat.example",
            "https://chat.example:444",
            "https://chat.example.evil.example",
            "https://evil-chat.example",
            "http://api.example",
            "http://evil.example/http://api.example:8000",
        ] {
            assert!(!may(Some(no)), "{no}");
        }
    }
}
