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
    /// The domain that every service is a host of.
    pub const MESH_DOMAIN: &'static str = "mesh";

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

    /// The host that the service is everywhere: `cart.shop.mesh`, in lower case.
    pub fn full_host(&self) -> String {
        let Name { namespace, name } = self;
        format!("{name}.{namespace}.{}", Self::MESH_DOMAIN).to_ascii_lowercase()
    }

    /// Every host that the service may be called by from a namespace, in lower case.
    pub fn hosts(&self, from_namespace: &str) -> Vec<Box<str>> {
        let Name { namespace, name } = self;
        let short = format!("{name}.{namespace}").to_ascii_lowercase();
        let mut hosts = vec![
            self.full_host(),
            format!("{short}.svc"),
            format!("{short}.svc.cluster.local"),
            short,
        ];
        if &**namespace == from_namespace {
            hosts.push(name.to_ascii_lowercase());
        }
        hosts.into_iter().map(String::into_boxed_str).collect()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_called_by_its_bare_name_in_its_own_namespace_only() {
        let cart = Name::new("shop", "Cart");
        let elsewhere = [
            "cart.shop.mesh",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "cart.shop",
        ];
        assert_eq!(cart.hosts("office"), elsewhere.map(Into::into));
        let at_home = cart.hosts("shop");
        assert_eq!((at_home.len(), &*at_home[4]), (5, "cart"));
    }
}
