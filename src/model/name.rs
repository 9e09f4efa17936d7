use std::fmt;
use std::sync::Arc;

/// A namespaced name, such as `shop/cart`; the namespace is `default` where a document leaves it out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Name {
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// A name in the namespace `default`.
    pub fn local(name: &str) -> Self {
        Self::new(Self::DEFAULT_NAMESPACE, name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
