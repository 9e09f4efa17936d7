//! `pillion services`: what the registry knows of who serves what.

use std::fmt::Write;
use std::process::ExitCode;

use super::client::{Connection, Failure};
use crate::api::client::segment;
use crate::api::{Client, Instance, Load, ServiceInstances, Services};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  pillion services                     every service, its instances counted by state
  pillion services cart                the instances of default/cart
  pillion services shop/cart --output json

Exit codes: 0 done, 1 the service does not exist or the registry does not answer.")]
pub struct Arguments {
    /// A service, as name or namespace/name; without it all are listed
    service: Option<String>,
    /// Only services of this namespace
    #[arg(long, short)]
    namespace: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    arguments
        .connection
        .run(async |client| match &arguments.service {
            Some(service) => one(arguments, &client, service).await,
            None => all(arguments, &client).await,
        })
}

async fn all(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let path = match &arguments.namespace {
        Some(namespace) => format!("/v1/services?namespace={}", segment(namespace)),
        None => "/v1/services".to_owned(),
    };
    let services: Services = client.get(&path).await?;
    arguments.connection.print(&services, table_of_services);
    Ok(())
}

async fn one(arguments: &Arguments, client: &Client, service: &str) -> Result<(), Failure> {
    let default = arguments.namespace.as_deref().unwrap_or("default");
    let (namespace, name) = service.split_once('/').unwrap_or((default, service));
    let path = format!("/v1/services/{}/{}", segment(namespace), segment(name));
    let found: ServiceInstances = client.get(&path).await?;
    arguments.connection.print(&found, table_of_instances);
    Ok(())
}

fn table_of_services(found: &Services) -> String {
    let head = [
        "SERVICE",
        "INSTANCES",
        "PASSING",
        "WARNING",
        "CRITICAL",
        "DRAINING",
    ]
    .map(str::to_owned)
    .to_vec();
    let rows = found.services.iter().map(|service| {
        let counts = [
            service.instances,
            service.passing,
            service.warning,
            service.critical,
            service.draining,
        ];
        let mut row = vec![format!("{}/{}", service.namespace, service.name)];
        row.extend(counts.map(|count| count.to_string()));
        row
    });
    table(head, rows.collect())
}

fn table_of_instances(found: &ServiceInstances) -> String {
    let head = [
        "INSTANCE", "STATE", "ADDRESS", "WEIGHT", "ZONE", "LABELS", "LOAD",
    ]
    .map(str::to_owned)
    .to_vec();
    table(head, found.instances.iter().map(instance_row).collect())
}

fn instance_row(instance: &Instance) -> Vec<String> {
    let ports = instance.ports.iter().map(|port| match port.port {
        Some(number) => format!("{}={}", number, port.address),
        None => port.address.clone(),
    });
    let labels: Vec<String> = instance
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    vec![
        instance.id.clone(),
        instance.state.as_str().to_owned(),
        ports.collect::<Vec<_>>().join(","),
        instance.weight.to_string(),
        instance.zone.clone().unwrap_or_else(|| "-".to_owned()),
        if labels.is_empty() {
            "-".to_owned()
        } else {
            labels.join(",")
        },
        instance
            .load
            .as_ref()
            .and_then(bottleneck)
            .unwrap_or_else(|| "-".to_owned()),
    ]
}

/// The load factor, or else the largest share that is known.
fn bottleneck(load: &Load) -> Option<String> {
    let shares = [load.cpu, load.memory, load.network, load.lane];
    let most = || shares.into_iter().flatten().reduce(f64::max);
    let most = load.factor.or_else(most)?;
    Some(format!("{:.0}%", most * 100.0))
}

/// Columns as wide as their widest cell.
pub fn table(head: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut widths = vec![0; head.len()];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(row(["A", "B"]), vec![row(["long", "1"]), row(["x", ""])]);
        assert_eq!(text, "A     B\nlong  1\nx\n");
    }
}
