use clap::ValueEnum;

/// What all sidecars of one injector have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The image of the sidecar.
    pub image: String,
    /// The image that carries nft, for the redirect rules.
    pub init_image: String,
    /// The registry's URL.
    pub registry: String,
    /// A Secret in the pod's namespace with the registry's `ca.crt` and `token`; None shows no token and trusts the system's roots.
    pub registry_secret: Option<String>,
    pub style: Style,
    /// Kubernetes quantities, such as `10m` and `64Mi`.
    pub cpu_request: String,
    pub memory_request: String,
    pub memory_limit: String,
}

/// How the sidecar stands in the pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Style {
    /// A native sidecar: an init container that stays. It is ready before the application starts, outlives it, and lets Jobs end
    Native,
    /// A container beside the others, without probes: for `podman kube play` and for Kubernetes before 1.29.
    /// Its namespace is the one that the file says, else default
    Plain,
}

/// The image with nft that is built beside an image: `example.com/pillion:1` has `example.com/pillion-init:1`.
pub fn init_image_of(image: &str) -> String {
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    let end = image[name..]
        .find([':', '@'])
        .map_or(image.len(), |tag| name + tag);
    format!("{}-init{}", &image[..end], &image[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_image_has_the_same_registry_and_tag() {
        for (image, init) in [
            ("pillion", "pillion-init"),
            ("pillion:0.1.0", "pillion-init:0.1.0"),
            (
                "example.com:5000/mesh/pillion",
                "example.com:5000/mesh/pillion-init",
            ),
            (
                "example.com:5000/pillion:1",
                "example.com:5000/pillion-init:1",
            ),
        ] {
            assert_eq!(init_image_of(image), init);
        }
    }
}
