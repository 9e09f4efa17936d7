//! Why the machine's rules could not be read or changed, in words an operator can act on.

use std::io;

use thiserror::Error;

use super::backend::Backend;
use super::nft::TABLE;
use super::routes::ROUTE_TABLE;

#[derive(Debug, Error)]
pub enum InterceptError {
    #[error("the program `{program}` was not found: {}", how_to_install(program))]
    Missing { program: &'static str },
    #[error(
        "not permitted to change the redirect rules: run as root, or with the capability NET_ADMIN \
         (docker run --user 0 --cap-add NET_ADMIN; in Kubernetes securityContext.capabilities.add: [NET_ADMIN])"
    )]
    NotPermitted,
    #[error(
        "the kernel refused the rules: it needs {}; {program} said: {said}",
        kernel_parts(program)
    )]
    Kernel { program: &'static str, said: String },
    #[error(
        "there is a table `inet {TABLE}` that pillion did not write; it is left as it is. Look at it with `nft list table inet {TABLE}` and rename or delete it"
    )]
    ForeignTable,
    #[error(
        "there are iptables chains PILLION_... that pillion did not write; they are left as they are. Look at them with `iptables-save` \
         and `ip6tables-save`, and rename or delete them"
    )]
    ForeignChain,
    #[error(
        "the routing table {ROUTE_TABLE} has routes that pillion did not write; they are left as they are. Look at them with \
         `ip route show table {ROUTE_TABLE}`; --inbound-mode tproxy needs that table for itself"
    )]
    ForeignRoutes,
    #[error(
        "rules of pillion are in place already, by {0}: take them away first (pillion intercept remove), or change them there (--backend {0})"
    )]
    OtherBackend(Backend),
    #[error(
        "the rules in place take inbound connections the other way, and changing that would cut them: \
         run `pillion intercept remove` first, and then apply these"
    )]
    OtherMode,
    #[error(
        "there is no interface `{0}` here; those there are: {1}. A name that ends in * may match none yet"
    )]
    UnknownInterface(String, String),
    #[error(
        "the proxy that listens on port {port} runs as user {uid}, and these rules would send its own connections back to it: \
         run it as user {proxy_uid}, or name its user with --uid {uid}"
    )]
    ProxyOfAnotherUser { port: u16, uid: u32, proxy_uid: u32 },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
    #[error("{doing}: {error}")]
    Io { doing: String, error: io::Error },
}

impl InterceptError {
    /// The program or the kernel's part of it is not there; another backend may be.
    pub fn means_no_backend(&self) -> bool {
        matches!(
            self,
            InterceptError::Missing { .. } | InterceptError::Kernel { .. }
        )
    }
}

/// What a program said as it failed, by what the operator can do about it.
pub fn failure(program: &'static str, said: &str) -> InterceptError {
    const NOT_PERMITTED: [&str; 3] = [
        "Operation not permitted",
        "Permission denied",
        "you must be root",
    ];
    const KERNEL: [&str; 8] = [
        "No such file or directory",
        "not supported",
        "Invalid argument",
        "cache initialization failed",
        "can't initialize",
        "is incompatible, use 'nft' tool",
        "missing kernel module",
        "No chain/target/match by that name",
    ];
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let (refused, of_the_kernel) = (says(&NOT_PERMITTED), says(&KERNEL));
    let said = said.to_owned();
    if refused {
        InterceptError::NotPermitted
    } else if of_the_kernel {
        InterceptError::Kernel { program, said }
    } else {
        InterceptError::Failed { program, said }
    }
}

fn how_to_install(program: &str) -> String {
    let package = match program {
        "nft" => "nftables",
        "ip" => "iproute2",
        _ => "iptables",
    };
    format!(
        "install {package} (Debian and Ubuntu: apt-get install {package}; Fedora: dnf install {package}; Alpine: apk add {package}), \
         or use the image target `init` of docker/Dockerfile, which carries it"
    )
}

fn kernel_parts(program: &str) -> &'static str {
    match program {
        "nft" => {
            "nf_tables with NAT for this family (modules nf_tables, nft_chain_nat, nft_redir, nft_fib_inet, nft_socket, which `--while-away refuse` does without; for tproxy nft_tproxy)"
        }
        "ip" => "policy routing (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)",
        _ => {
            "netfilter's NAT and matches (modules xt_REDIRECT, xt_owner, xt_addrtype, xt_multiport, xt_comment, xt_conntrack, \
             xt_socket, which `--while-away refuse` does without; for tproxy xt_TPROXY, xt_mark and xt_connmark)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_becomes_what_the_operator_can_do() {
        let refused = "Error: Could not process rule: Operation not permitted";
        assert!(matches!(
            failure("nft", refused),
            InterceptError::NotPermitted
        ));
        let refused = "Fatal: can't open lock file /run/xtables.lock: Permission denied";
        assert!(matches!(
            failure("iptables-restore", refused),
            InterceptError::NotPermitted
        ));
        let kernel = "Error: Could not process rule: Protocol not supported";
        assert!(matches!(
            failure("nft", kernel),
            InterceptError::Kernel { .. }
        ));
        let other = "Error: syntax error, unexpected newline";
        assert!(matches!(
            failure("nft", other),
            InterceptError::Failed { .. }
        ));
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let missing = |program| InterceptError::Missing { program }.to_string();
        assert!(missing("nft").contains("apt-get install nftables"));
        assert!(missing("ip6tables-save").contains("apt-get install iptables"));
        assert!(missing("ip").contains("apt-get install iproute2"));
    }
}
