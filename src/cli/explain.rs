//! `pillion explain`: why a request goes where it goes, by files or as a running proxy sees it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Output;
use crate::admin;
use crate::config::{Loader, Problem, problem, source};
use crate::explain::{self, Asked, Explained, Known, Outcome};
use crate::model::{Name, Snapshot};

/// Explains where a request goes and why: listener, every candidate rule and why it lost, filters, backends, endpoints.
#[derive(clap::Args)]
#[command(
    override_usage = "pillion explain [OPTIONS] FILE... REQUEST\n       pillion explain [OPTIONS] --admin ADDRESS REQUEST",
    after_help = "Examples:\n  pillion explain mesh/ \"GET http://shop.example.com/cart\"\n  \
    pillion explain mesh/ \"http://cart/items?all\" -H \"x-tester: yes\" --from shop\n  \
    pillion explain --admin 127.0.0.1:15000 \"POST http://shop.example.com/orders\"\n\n\
    Without --from, the request comes from outside to a Gateway; where none has a listener for it, from an application of \
    the namespace `default`.\n\n\
    Exit codes: 0 a rule or service takes the request, 1 nobody does, or the files are wrong. With --admin, 0 it is explained."
)]
pub struct Arguments {
    /// Files or folders of mesh documents, and last the request: "METHOD http://HOST:PORT/PATH", of which only the host has to be
    #[arg(required = true, value_name = "FILE... REQUEST")]
    words: Vec<String>,
    /// A header of the request, such as "x-user: ann"; repeatable
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The namespace of the application that asks, through its sidecar
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "gateway")]
    from: Option<String>,
    /// The Gateway that is asked: NAME, or NAMESPACE/NAME
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// Ask the running proxy with this admin address in place of files
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Arguments {
    fn asked(&self, request: &str) -> Asked {
        Asked {
            request: request.to_owned(),
            headers: self.headers.clone(),
            from: self.from.clone(),
            gateway: self.gateway.clone(),
        }
    }
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let Some((request, files)) = arguments.words.split_last() else {
        return fail("say a request, such as \"GET http://shop.example.com/cart\"");
    };
    match (arguments.admin, files) {
        (Some(admin), []) => live(arguments, admin, request),
        (Some(_), _) => {
            fail("--admin asks a running proxy, which has its own documents: leave the files out")
        }
        (None, []) => fail("say the files, then the request; or --admin to ask a running proxy"),
        (None, files) => offline(arguments, files, request),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("pillion explain: {message}");
    ExitCode::FAILURE
}

fn offline(arguments: &Arguments, files: &[String], request: &str) -> ExitCode {
    let snapshot = match snapshot(files) {
        Ok(snapshot) => snapshot,
        Err(problems) => {
            eprint!("{}", problem::render(&problems, false));
            return ExitCode::FAILURE;
        }
    };
    let known = Known {
        endpoints: &|key| explain::documented(&snapshot, key),
        interfaces: true,
    };
    let asked = arguments.asked(request);
    match asked.explain(&snapshot, Name::DEFAULT_NAMESPACE, known) {
        Ok(explained) => print(arguments, &explained),
        Err(error) => fail(&error.to_string()),
    }
}

/// What stands against the documents; what a proxy would take all the same is left to `check`.
fn snapshot(files: &[String]) -> Result<Snapshot, Vec<Problem>> {
    let mut sources = Vec::new();
    for file in files {
        sources.extend(source::read(&PathBuf::from(file))?);
    }
    sources.retain(|source| crate::config::bootstrap::recognise(&source.text).is_none());
    Loader::new().load(&sources).map(|loaded| loaded.snapshot)
}

fn print(arguments: &Arguments, explained: &Explained) -> ExitCode {
    match arguments.output {
        Output::Text => print!("{explained}"),
        // Plain data becomes JSON.
        Output::Json => println!("{:#}", serde_json::json!(explained)),
    }
    match explained.outcome {
        Outcome::Refused { .. } => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn live(arguments: &Arguments, admin: SocketAddr, request: &str) -> ExitCode {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut page = format!("/explain?request={}", encoded(request));
    let headers = arguments.headers.iter().map(|header| ("header", header));
    let from = arguments.from.iter().map(|from| ("from", from));
    let gateway = arguments.gateway.iter().map(|gateway| ("gateway", gateway));
    for (name, value) in headers.chain(from).chain(gateway) {
        page += &format!("&{name}={}", encoded(value));
    }
    page += match arguments.output {
        Output::Text => "&format=text",
        Output::Json => "&format=json",
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(admin::get_page(admin, &page)),
        Err(error) => Err(error.into()),
    };
    match shown {
        Ok((status, text)) => {
            print!("{text}");
            match status.is_success() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => fail(&format!(
            "nothing answers on {admin}: {error}; is the proxy running, and is its admin address this one?"
        )),
    }
}
