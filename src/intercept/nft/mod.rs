//! nftables: one table of our own, asked for and replaced by running `nft`.

mod text;

pub use text::{TABLE, applying};

use super::error::InterceptError;
use super::note::{Facts, Listed};
use super::program;
use super::rules::Rules;

/// Our table as it is; None when there is none.
pub fn listed() -> Result<Option<Listed>, InterceptError> {
    match run(&["list", "table", "inet", TABLE], "") {
        Ok(listing) => Ok(Some(text::parse(&listing))),
        Err(InterceptError::Kernel { said, .. }) if said.contains("No such file or directory") => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Puts exactly these rules in place in one transaction.
pub fn apply(rules: &Rules) -> Result<(), InterceptError> {
    run(&["-f", "-"], &applying(rules)).map(drop)
}

/// Whether `apply` would succeed, asked of the kernel without changing anything.
pub fn rehearse(rules: &Rules) -> Result<(), InterceptError> {
    run(&["-c", "-f", "-"], &applying(rules)).map(drop)
}

/// Redirects nothing new and keeps what was redirected alive.
pub fn drain(facts: &Facts) -> Result<(), InterceptError> {
    run(&["-f", "-"], &text::draining(facts)).map(drop)
}

/// Takes everything of ours away.
pub fn clear() -> Result<(), InterceptError> {
    run(&["-f", "-"], &text::removing()).map(drop)
}

fn run(arguments: &[&str], input: &str) -> Result<String, InterceptError> {
    program::run("nft", arguments, input)
}
