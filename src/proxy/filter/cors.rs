//! CORS: browsers are told which scripts of other origins may ask (Fetch standard, section 3.2).
//!
//! The question before (preflight) is answered here. The request itself goes on whatever its origin is, as it is the browser that
//! keeps the answer from the script.

use std::sync::Arc;

use crate::model::{self, AnyOf, OriginPattern};
use crate::proxy::http::head::{Fields, Known, Method, RequestHead, ResponseHead};

/// A [`model::Cors`], ready.
#[derive(Debug)]
pub struct Cors {
    model: model::Cors,
    /// Every answer is the same, whoever asks.
    same_for_all: bool,
}

/// What an answer tells the browser, whoever gives it.
#[derive(Debug)]
pub struct Grant {
    /// None says nothing, so that the script learns nothing.
    origin: Option<Vec<u8>>,
    credentials: bool,
    exposed: Option<Arc<str>>,
    same_for_all: bool,
}

impl Cors {
    pub fn compile(model: &model::Cors) -> Self {
        Self {
            same_for_all: model.origins == [OriginPattern::Any] && !model.credentials,
            model: model.clone(),
        }
    }

    pub fn grant(&self, request: &RequestHead) -> Grant {
        Grant {
            credentials: self.model.credentials,
            exposed: match &self.model.exposed_headers {
                AnyOf::Any if self.model.credentials => None,
                AnyOf::Any => Some("*".into()),
                AnyOf::Listed(names) => Some(names.clone()).filter(|names| !names.is_empty()),
            },
            same_for_all: self.same_for_all,
            origin: self.origin(request).map(<[u8]>::to_vec),
        }
    }

    /// The answer to a preflight beside what every answer tells; None where the request is not one.
    pub fn answer(&self, request: &RequestHead) -> Option<ResponseHead> {
        const METHOD: &[u8] = b"access-control-request-method";
        const HEADERS: &[u8] = b"access-control-request-headers";
        if request.method != Method::Options || !request.fields.contains(Known::Origin) {
            return None;
        }
        let method = request.fields.find(METHOD)?;
        let mut head = ResponseHead::new(200);
        let fields = &mut head.fields;
        if self.origin(request).is_some() {
            let headers = request.fields.find(HEADERS);
            let methods = self.allowed(&self.model.methods, Some(method));
            let headers = self.allowed(&self.model.request_headers, headers);
            if let Some(methods) = methods {
                fields.push(b"access-control-allow-methods", methods);
            }
            if let Some(headers) = headers {
                fields.push(b"access-control-allow-headers", headers);
            }
            let max_age = self.model.max_age.to_string();
            fields.push(b"access-control-max-age", max_age.as_bytes());
        }
        fields.push(b"content-length", b"0");
        Some(head)
    }

    /// Who is told that it may ask: the request's origin, or `*`.
    fn origin<'r>(&self, request: &'r RequestHead) -> Option<&'r [u8]> {
        let mut origins = request.fields.get_all(Known::Origin);
        let origin = origins.next()?;
        if origins.next().is_some() {
            return None;
        }
        if self.same_for_all {
            return Some(b"*");
        }
        let mut allowed = self.model.origins.iter();
        allowed
            .any(|pattern| pattern.matches(origin))
            .then_some(origin)
    }

    /// With credentials `*` would not count, so what is asked for is said instead.
    fn allowed<'a>(&'a self, allowed: &'a AnyOf, asked: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match allowed {
            AnyOf::Any if self.model.credentials => asked,
            AnyOf::Any => Some(b"*"),
            AnyOf::Listed(list) if list.is_empty() => None,
            AnyOf::Listed(list) => Some(list.as_bytes()),
        }
    }
}

impl Grant {
    /// In place of what the application may have said itself.
    pub fn tell(&self, fields: &mut Fields) {
        if !self.same_for_all {
            fields.append_to_list(b"vary", b"Origin");
        }
        let Some(origin) = &self.origin else {
            return;
        };
        fields.set(b"access-control-allow-origin", origin);
        if self.credentials {
            fields.set(b"access-control-allow-credentials", b"true");
        }
        if let Some(exposed) = &self.exposed {
            fields.set(b"access-control-expose-headers", exposed.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool, others: AnyOf) -> Cors {
        let origins = origins.iter().filter_map(|text| OriginPattern::parse(text));
        Cors::compile(&model::Cors {
            origins: origins.collect(),
            credentials,
            methods: others.clone(),
            request_headers: others.clone(),
            exposed_headers: others,
            max_age: 5,
        })
    }

    fn request(method: Method, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.method = method;
        head.fields = Fields::of(fields);
        head
    }

    const PREFLIGHT: [(&str, &str); 3] = [
        ("Origin", "https://a.com"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "x-a, x-b"),
    ];

    fn answered(cors: &Cors) -> Fields {
        let request = request(Method::Options, &PREFLIGHT);
        let mut answer = cors.answer(&request).expect("a preflight is answered");
        cors.grant(&request).tell(&mut answer.fields);
        answer.fields
    }

    #[test]
    fn a_list_is_told_with_the_origin_that_asks() {
        let cors = cors(
            &["https://a.com", "https://b.com"],
            true,
            AnyOf::Listed("GET, x-c".into()),
        );
        let expected = [
            ("access-control-allow-methods", "GET, x-c"),
            ("access-control-allow-headers", "GET, x-c"),
            ("access-control-max-age", "5"),
            ("content-length", "0"),
            ("vary", "Origin"),
            ("access-control-allow-origin", "https://a.com"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "GET, x-c"),
        ];
        assert_eq!(answered(&cors), Fields::of(&expected));
    }

    #[test]
    fn a_star_is_told_as_such_without_credentials() {
        let expected = [
            ("access-control-allow-methods", "*"),
            ("access-control-allow-headers", "*"),
            ("access-control-max-age", "5"),
            ("content-length", "0"),
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "*"),
        ];
        let cors = cors(&["*"], false, AnyOf::Any);
        assert_eq!(answered(&cors), Fields::of(&expected));
    }

    #[test]
    fn a_star_with_credentials_is_what_is_asked_for() {
        let expected = [
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-max-age", "5"),
            ("content-length", "0"),
            ("vary", "Origin"),
            ("access-control-allow-origin", "https://a.com"),
            ("access-control-allow-credentials", "true"),
        ];
        let cors = cors(&["*"], true, AnyOf::Any);
        assert_eq!(answered(&cors), Fields::of(&expected));
    }

    #[test]
    fn another_origin_is_told_nothing() {
        let cors = cors(&["https://b.com"], true, AnyOf::Any);
        let expected = [("content-length", "0"), ("vary", "Origin")];
        assert_eq!(answered(&cors), Fields::of(&expected));
    }

    #[test]
    fn two_origins_at_once_are_nobodys() {
        let cors = cors(&["https://a.com"], false, AnyOf::Any);
        let twice = [("Origin", "https://a.com"), ("Origin", "https://a.com")];
        assert_eq!(cors.grant(&request(Method::Get, &twice)).origin, None);
    }

    #[test]
    fn only_options_with_origin_and_method_is_a_preflight() {
        let cors = cors(&["*"], false, AnyOf::Any);
        assert!(cors.answer(&request(Method::Get, &PREFLIGHT)).is_none());
        assert!(
            cors.answer(&request(Method::Options, &PREFLIGHT[..1]))
                .is_none()
        );
        assert!(
            cors.answer(&request(Method::Options, &PREFLIGHT[1..]))
                .is_none()
        );
    }

    #[test]
    fn what_the_application_says_itself_is_replaced() {
        let mut fields = Fields::of(&[
            ("Vary", "Accept"),
            ("Access-Control-Allow-Origin", "*"),
            ("x-a", "1"),
        ]);
        let cors = cors(&["https://a.com"], false, AnyOf::Listed("".into()));
        cors.grant(&request(Method::Get, &PREFLIGHT))
            .tell(&mut fields);
        let expected = [
            ("vary", "Accept, Origin"),
            ("access-control-allow-origin", "https://a.com"),
            ("x-a", "1"),
        ];
        assert_eq!(fields, Fields::of(&expected));
    }
}
