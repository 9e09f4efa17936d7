//! `pillion events`: what proxies have detected, and what they did.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::client::{Connection, Failure, Output};
use super::services::table;
use crate::admin;
use crate::api::{Client, Event, Events};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  pillion events                               of all sidecars, as their registry was told
  pillion events --service cart --follow       of one service, as they happen
  pillion events --admin 127.0.0.1:15000       of one proxy, without a registry

Exit codes: 0 done, 1 the registry or the proxy does not answer.")]
pub struct Arguments {
    /// Only events of services whose name contains this
    #[arg(long, short)]
    service: Option<String>,
    /// Only what came after the event of this id
    #[arg(long, default_value_t = 0)]
    since: u64,
    /// Go on listing what happens; with --output json one event a line
    #[arg(long, short)]
    follow: bool,
    /// Ask the proxy with this admin address instead of a registry
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    connection: Connection,
}

/// Between two questions of `--follow`.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub fn run(arguments: &Arguments) -> ExitCode {
    arguments.connection.run(async |client| {
        let found = ask(arguments, &client, arguments.since).await?;
        if !arguments.follow {
            arguments.connection.print(&found, listed);
            return Ok(());
        }
        follow(arguments, &client, found).await
    })
}

/// Ends only with a failure.
async fn follow(arguments: &Arguments, client: &Client, first: Events) -> Result<(), Failure> {
    let mut found = first;
    loop {
        for event in &found.events {
            match arguments.connection.output {
                // Wire types always serialize.
                Output::Json => println!("{}", serde_json::to_string(event).unwrap_or_default()),
                Output::Text => println!("{}", row(event).join("  ")),
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
        found = ask(arguments, client, found.last).await?;
    }
}

async fn ask(arguments: &Arguments, client: &Client, since: u64) -> Result<Events, Failure> {
    let mut found: Events = match arguments.admin {
        None => client.get(&format!("/v1/events?since={since}")).await?,
        Some(address) => {
            let page = admin::get(address, &format!("/events?since={since}")).await;
            let page = page.map_err(|error| Failure::Other(format!("{address}: {error}")))?;
            serde_json::from_str(&page)
                .map_err(|_| Failure::Other(format!("{address} lists no events: {page}")))?
        }
    };
    if let Some(service) = &arguments.service {
        found.events.retain(|event| event.service.contains(service));
    }
    Ok(found)
}

fn listed(found: &Events) -> String {
    let head = [
        "TIME", "SIDECAR", "SERVICE", "ENDPOINT", "CAUSE", "ACTION", "LASTS", "EVIDENCE",
    ];
    let head = head.map(str::to_owned).to_vec();
    table(head, found.events.iter().map(row).collect())
}

fn row(event: &Event) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let lasts = event.duration_ms;
    let lasts = lasts.map(|ms| format!("{:.1}s", ms as f64 / 1e3));
    vec![
        event.time.clone(),
        or_dash(&event.sidecar),
        event.service.clone(),
        or_dash(&event.endpoint),
        event.cause.to_string(),
        event.action.to_string(),
        or_dash(&lasts),
        event.evidence.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_what_is_known_of_it() {
        let event = Event {
            time: "2026-01-01T00:00:00Z".to_owned(),
            service: "default/shop".to_owned(),
            endpoint: Some("10.0.0.1:80".to_owned()),
            cause: "health_check".into(),
            action: "returned".into(),
            evidence: "its health check passes".to_owned(),
            duration_ms: Some(1500),
            ..Event::default()
        };
        let text = listed(&Events {
            last: 1,
            events: vec![event],
        });
        let line = text.lines().nth(1).unwrap_or_default();
        let cells: Vec<&str> = line.split("  ").map(str::trim).collect();
        let cells: Vec<&str> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "2026-01-01T00:00:00Z",
                "-",
                "default/shop",
                "10.0.0.1:80",
                "health_check",
                "returned",
                "1.5s",
                "its health check passes"
            ]
        );
    }
}
