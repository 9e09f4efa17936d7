//! URLRewrite: the backend is asked for another path, or as another host.

use std::sync::Arc;

use super::path::PathModifier;
use crate::model::{self, RouteMatch};
use crate::proxy::http::head::{Known, RequestHead};

/// A [`model::UrlRewrite`], ready.
#[derive(Debug)]
pub struct Rewrite {
    hostname: Option<Arc<str>>,
    path: Option<PathModifier>,
}

impl Rewrite {
    pub fn compile(model: &model::UrlRewrite, matches: &[RouteMatch]) -> Self {
        let path = model.path.as_ref();
        Self {
            hostname: model.hostname.clone(),
            path: path.map(|path| PathModifier::compile(path, matches)),
        }
    }

    pub fn modify(&self, head: &mut RequestHead) {
        if let Some(modifier) = &self.path {
            let path = modifier.modify(head.path()).into_owned();
            if path != head.path() {
                let set = head.set_path(&path);
                debug_assert!(set.is_ok(), "of a path and what `config` let pass");
            }
        }
        if let Some(hostname) = &self.hostname {
            tell_host_asked_for(head);
            head.set_authority(hostname.as_bytes());
        }
    }
}

/// Applications build links from it. One that is there is of the first proxy, and nearer to the client.
fn tell_host_asked_for(head: &mut RequestHead) {
    let authority = head.authority().to_vec();
    if !authority.is_empty() && !head.fields.contains(Known::XForwardedHost) {
        head.fields.push(b"X-Forwarded-Host", &authority);
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::matching;
    use super::*;

    fn rewritten(hostname: Option<&str>, path: Option<model::PathModifier>) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_target(b"http://shop:81/foo/bar?q=/foo")
            .expect("a target");
        let model = model::UrlRewrite {
            hostname: hostname.map(Arc::from),
            path,
        };
        Rewrite::compile(&model, &[matching("/foo")]).modify(&mut head);
        head
    }

    fn forwarded_host(head: &RequestHead) -> Option<&[u8]> {
        head.fields.get(Known::XForwardedHost)
    }

    #[test]
    fn the_path_changes_and_query_and_host_stay() {
        let prefix = model::PathModifier::Prefix("/x".into());
        let head = rewritten(None, Some(prefix));
        assert_eq!(head.path_and_query(), b"/x/bar?q=/foo");
        assert_eq!(head.authority(), b"shop:81");
        assert_eq!(forwarded_host(&head), None);
    }

    #[test]
    fn the_host_changes_and_the_one_asked_for_is_told() {
        let head = rewritten(Some("one.test"), None);
        assert_eq!(head.authority(), b"one.test");
        assert_eq!(head.path_and_query(), b"/foo/bar?q=/foo");
        assert_eq!(forwarded_host(&head), Some(&b"shop:81"[..]));
    }
}
