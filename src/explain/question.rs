//! The request that is asked about, as a person writes it.

use super::{At, Explained, Known, Outcome, explain};
use crate::model::{Name, Snapshot};
use crate::proxy::http::head::{Method, RequestHead, Scheme};

/// A question as it is put: in words, and perhaps without a standpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    pub request: String,
    pub headers: Vec<String>,
    /// A namespace.
    pub from: Option<String>,
    /// `name` or `namespace/name`
    pub gateway: Option<String>,
}

impl Asked {
    /// Without a standpoint the request comes from outside, or, where no gateway takes it but the mesh does, from an application
    /// of `namespace`.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        namespace: &str,
        known: Known<'_>,
    ) -> Result<Explained, QuestionError> {
        let ask = |from: Standpoint| {
            let headers = self.headers.iter().map(String::as_str);
            let question = Question::parse(&self.request, headers, from)?;
            Ok(explain(snapshot, &question, known))
        };
        if let Some(from) = self.standpoint() {
            return ask(from);
        }
        let outside = ask(Standpoint::Outside { gateway: None })?;
        if !matches!(outside.at, At::Nowhere { .. }) {
            return Ok(outside);
        }
        let inside = ask(Standpoint::Namespace(namespace.to_owned()))?;
        match inside.outcome {
            // Nobody knows the host here either.
            Outcome::Outside => Ok(outside),
            _ => Ok(inside),
        }
    }

    fn standpoint(&self) -> Option<Standpoint> {
        let named = |gateway: &String| match gateway.split_once('/') {
            Some((namespace, name)) => Name::new(namespace, name),
            None => Name::local(gateway),
        };
        let gateway = self.gateway.as_ref().map(named);
        let outside = gateway.map(|gateway| Standpoint::Outside {
            gateway: Some(gateway),
        });
        let inside = self.from.clone().map(Standpoint::Namespace);
        inside.or(outside)
    }
}

/// A request that may never be sent.
#[derive(Clone, Debug)]
pub struct Question {
    pub head: RequestHead,
    pub scheme: Scheme,
    /// Where the client stands.
    pub from: Standpoint,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standpoint {
    /// Outside of the mesh: the request comes to a gateway; to this one, where it is named.
    Outside { gateway: Option<Name> },
    /// An application of this namespace, beside its sidecar.
    Namespace(String),
}

/// What is wrong with a question.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("{0:?} is not a request; write \"GET http://shop.example.com/cart\"")]
    Request(String),
    #[error("{0:?} is not a header; write \"x-user: ann\"")]
    Header(String),
    #[error("{0:?} has no path that HTTP can carry")]
    Target(String),
}

impl Question {
    /// `[METHOD] [http[s]://]HOST[:PORT][/PATH]`, and headers as `name: value`.
    pub fn parse<'h>(
        request: &str,
        headers: impl IntoIterator<Item = &'h str>,
        from: Standpoint,
    ) -> Result<Self, QuestionError> {
        let wrong = || QuestionError::Request(request.to_owned());
        let words: Vec<&str> = request.split_whitespace().collect();
        let (method, url) = match words[..] {
            [url] => ("GET", url),
            [method, url] => (method, url),
            _ => return Err(wrong()),
        };
        if !is_token(method) {
            return Err(wrong());
        }
        let (scheme, rest) = match url.split_once("://") {
            None => (Scheme::Http, url),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(_) => return Err(wrong()),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() || !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        let mut head = RequestHead::new();
        head.method = Method::from_bytes(method.as_bytes());
        head.set_target(target.as_bytes())
            .map_err(|_| QuestionError::Target(target.clone()))?;
        head.fields.push(b"Host", authority.as_bytes());
        for header in headers {
            let (name, value) = parse_header(header)?;
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        Ok(Self { head, scheme, from })
    }
}

fn parse_header(header: &str) -> Result<(&str, &str), QuestionError> {
    let wrong = || QuestionError::Header(header.to_owned());
    let (name, value) = header.split_once(':').ok_or_else(wrong)?;
    let value = value.trim();
    let visible = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    match is_token(name) && value.bytes().all(visible) {
        true => Ok((name, value)),
        false => Err(wrong()),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let special = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(request: &str, headers: &[&str]) -> Result<Question, QuestionError> {
        let outside = Standpoint::Outside { gateway: None };
        Question::parse(request, headers.iter().copied(), outside)
    }

    #[test]
    fn a_request_is_written_as_it_is_said() {
        let question =
            parse("POST https://shop:8443/a?b=1", &["X-User:  ann "]).expect("a request");
        let head = &question.head;
        assert_eq!(head.method, Method::Post);
        assert_eq!(
            (head.authority(), head.path()),
            (&b"shop:8443"[..], &b"/a"[..])
        );
        assert_eq!(head.query(), Some(&b"b=1"[..]));
        assert_eq!(head.fields.find(b"x-user"), Some(&b"ann"[..]));
        assert_eq!(question.scheme, Scheme::Https);
        let short = parse("shop?a", &[]).expect("a request");
        assert_eq!(short.head.path_and_query(), b"/?a");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for wrong in [
            "",
            "GET",
            "GET /a",
            "GET  http:///a",
            "ftp://a",
            "a b c",
            "G(T a",
        ] {
            // A lone word is a host.
            assert!(parse(wrong, &[]).is_err() || wrong == "GET", "{wrong}");
        }
        for wrong in ["x", ": a", "x y: a", "x: a\nb"] {
            assert!(parse("a", &[wrong]).is_err(), "{wrong}");
        }
    }
}
