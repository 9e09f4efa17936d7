//! Reports of load on answers, in the forms of ORCA (Open Request Cost Aggregation): `endpoint-load-metrics: TEXT …`, `JSON …` or
//! `BIN …`, and `endpoint-load-metrics-bin`, which is a `xds.data.orca.v3.OrcaLoadReport` in base64.
//!
//! <https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto>; gRPC A51 and A64 use the message, Envoy the fields.
//!
//! Only the figures that a balancer goes by are read, and names that are not known here are passed over. A report of which anything
//! cannot be read, or is out of its range, says nothing at all.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// A longer report is not read.
pub const BYTES_MAX: usize = 4 << 10;

/// How long the report is that a sidecar writes.
pub const WRITTEN_LEN: usize = 36;

/// With padding or without, as gRPC writes binary fields either way.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an application, or the sidecar in front of it, says of its load; None where it does not.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Report {
    /// A share of the CPU it has; above 1 beyond a soft limit of its own.
    pub cpu: Option<f64>,
    /// A share of the memory it has, 0 to 1.
    pub memory: Option<f64>,
    /// Whatever it measures itself by; above 1 beyond a soft limit of its own.
    pub application: Option<f64>,
    /// Requests a second.
    pub rps: Option<f64>,
    /// Failed requests a second.
    pub eps: Option<f64>,
}

/// The figures that are read: the name in the text and in JSON (either is allowed there), and the number in the message.
const FIGURES: [(&str, &str, u64); 5] = [
    ("cpu_utilization", "cpuUtilization", CPU),
    ("mem_utilization", "memUtilization", MEMORY),
    (
        "application_utilization",
        "applicationUtilization",
        APPLICATION,
    ),
    ("rps_fractional", "rpsFractional", RPS),
    ("eps", "eps", EPS),
];

const CPU: u64 = 1;
const MEMORY: u64 = 2;
const RPS: u64 = 6;
const EPS: u64 = 7;
const APPLICATION: u64 = 9;

impl Report {
    /// What decides: what the application measures itself by, or else its CPU (gRPC A58).
    pub fn utilization(&self) -> Option<f64> {
        self.application.filter(|share| *share > 0.0).or(self.cpu)
    }

    /// From the value of `endpoint-load-metrics`.
    pub fn parse(value: &[u8]) -> Option<Report> {
        let value = std::str::from_utf8(value).ok()?;
        let (form, rest) = value.split_once(' ')?;
        match form {
            _ if value.len() > BYTES_MAX => None,
            "TEXT" => text(rest),
            "JSON" => json(rest),
            "BIN" => Self::parse_binary(rest.as_bytes()),
            _ => None,
        }
    }

    /// From the value of `endpoint-load-metrics-bin`.
    pub fn parse_binary(value: &[u8]) -> Option<Report> {
        if value.len() > BYTES_MAX {
            return None;
        }
        message(&BASE64.decode(value.trim_ascii()).ok()?)
    }

    /// Its application's share, requests and failed requests as the value of `endpoint-load-metrics-bin`.
    pub fn write_binary(&self) -> [u8; WRITTEN_LEN] {
        let mut message = [0; WRITTEN_LEN / 4 * 3];
        let figures = [
            (RPS, self.rps),
            (EPS, self.eps),
            (APPLICATION, self.application),
        ];
        for (bytes, (number, figure)) in message.chunks_exact_mut(9).zip(figures) {
            // Numbers this small are one byte, together with the wire type.
            bytes[0] = (number << 3 | WIRE_64_BITS) as u8;
            bytes[1..].copy_from_slice(&figure.unwrap_or(0.0).to_le_bytes());
        }
        let mut value = [0; WRITTEN_LEN];
        let written = BASE64.encode_slice(message, &mut value);
        debug_assert_eq!(written.ok(), Some(WRITTEN_LEN));
        value
    }

    /// None where the figure is out of its range.
    fn set(&mut self, number: u64, figure: f64) -> Option<()> {
        let most = if number == MEMORY { 1.0 } else { f64::MAX };
        if !(0.0..=most).contains(&figure) {
            return None;
        }
        let place = match number {
            CPU => &mut self.cpu,
            MEMORY => &mut self.memory,
            APPLICATION => &mut self.application,
            RPS => &mut self.rps,
            _ => &mut self.eps,
        };
        *place = Some(figure);
        Some(())
    }
}

/// `cpu_utilization=0.3, named_metrics.x=7`.
fn text(text: &str) -> Option<Report> {
    let mut report = Report::default();
    for pair in text.split(',') {
        let (name, figure) = pair.split_once('=')?;
        let figure = figure.trim().parse().ok()?;
        let name = name.trim();
        if let Some((_, _, number)) = FIGURES.iter().find(|(known, _, _)| *known == name) {
            report.set(*number, figure)?;
        }
    }
    Some(report)
}

fn json(text: &str) -> Option<Report> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let mut report = Report::default();
    for (snake, camel, number) in FIGURES {
        if let Some(figure) = object.get(snake).or_else(|| object.get(camel)) {
            report.set(number, figure.as_f64()?)?;
        }
    }
    Some(report)
}

const WIRE_VARINT: u64 = 0;
const WIRE_64_BITS: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_32_BITS: u64 = 5;

/// Protocol buffers, as far as the message goes (<https://protobuf.dev/programming-guides/encoding/>).
fn message(mut bytes: &[u8]) -> Option<Report> {
    let mut report = Report::default();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = tag >> 3;
        match tag & 7 {
            WIRE_VARINT => drop(varint(&mut bytes)?),
            WIRE_64_BITS => {
                let (figure, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                if FIGURES.iter().any(|(_, _, known)| *known == number) {
                    report.set(number, f64::from_le_bytes(*figure))?;
                }
            }
            WIRE_BYTES => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                bytes = bytes.get(length..)?;
            }
            WIRE_32_BITS => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(report)
}

/// Ten bytes at most.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Report {
        Report {
            cpu: Some(0.25),
            memory: Some(0.5),
            application: Some(1.5),
            rps: Some(1_000.5),
            eps: Some(2.0),
        }
    }

    #[test]
    fn text_and_json_say_the_same() {
        for value in [
            "TEXT cpu_utilization=0.25,mem_utilization=0.5,application_utilization=1.5,rps_fractional=1000.5,eps=2",
            "TEXT eps=2, named_metrics.x=-7, mem_utilization = 0.5, cpu_utilization=0.25, application_utilization=1.5, rps_fractional=1000.5",
            r#"JSON {"cpu_utilization":0.25,"mem_utilization":0.5,"application_utilization":1.5,"rps_fractional":1000.5,"eps":2}"#,
            r#"JSON {"cpuUtilization":0.25,"memUtilization":0.5,"applicationUtilization":1.5,"rpsFractional":1000.5,"eps":2,"namedMetrics":{"x":1}}"#,
        ] {
            assert_eq!(Report::parse(value.as_bytes()), Some(whole()), "{value}");
        }
    }

    /// As protoc writes it: `cpu_utilization: 0.25`, `rps: 300`, `utilization {key: "a" value: 0.5}`, `eps: 2`.
    #[test]
    fn a_binary_report_is_read_with_padding_and_without() {
        let mut message = vec![0x09];
        message.extend(0.25f64.to_le_bytes());
        message.extend([0x18, 0xAC, 0x02]);
        message.extend([0x2A, 0x0C, 0x0A, 0x01, b'a', 0x11]);
        message.extend(0.5f64.to_le_bytes());
        message.push(0x39);
        message.extend(2f64.to_le_bytes());
        let expected = Report {
            cpu: Some(0.25),
            eps: Some(2.0),
            ..Report::default()
        };
        let padded = base64::engine::general_purpose::STANDARD.encode(&message);
        let bare = padded.trim_end_matches('=');
        assert_ne!(padded, bare);
        for value in [&padded, bare] {
            assert_eq!(Report::parse_binary(value.as_bytes()), Some(expected));
            let field = format!("BIN {value}");
            assert_eq!(Report::parse(field.as_bytes()), Some(expected));
        }
        for length in 1..message.len() {
            let cut = BASE64.encode(&message[..length]);
            let report = Report::parse_binary(cut.as_bytes());
            assert!(
                [9, 12, 26].contains(&length) == report.is_some(),
                "{length}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let report = Report {
            application: Some(0.75),
            rps: Some(321.5),
            eps: Some(0.25),
            ..Report::default()
        };
        let value = report.write_binary();
        assert_eq!(Report::parse_binary(&value), Some(report));
    }

    #[test]
    fn what_cannot_be_read_or_cannot_be_says_nothing() {
        for value in [
            "",
            "TEXT",
            "TEXT ",
            "TEXT cpu_utilization",
            "TEXT cpu_utilization=",
            "TEXT cpu_utilization=x",
            "TEXT cpu_utilization=-0.1",
            "TEXT cpu_utilization=NaN",
            "TEXT cpu_utilization=inf",
            "TEXT mem_utilization=1.1",
            "TEXT cpu_utilization=0.1,,eps=1",
            "text cpu_utilization=0.1",
            "JSON {",
            "JSON []",
            r#"JSON {"eps":"many"}"#,
            r#"JSON {"cpuUtilization":-1}"#,
            "BIN !",
            "cpu_utilization=0.3",
        ] {
            assert_eq!(Report::parse(value.as_bytes()), None, "{value}");
        }
        let long = format!("TEXT eps=1{}", " ".repeat(BYTES_MAX));
        assert_eq!(Report::parse(long.as_bytes()), None);
    }

    #[test]
    fn an_application_that_measures_itself_is_believed_before_its_cpu() {
        assert_eq!(whole().utilization(), Some(1.5));
        let with = |application| Report {
            application,
            ..whole()
        };
        assert_eq!(with(None).utilization(), Some(0.25));
        assert_eq!(with(Some(0.0)).utilization(), Some(0.25));
        assert_eq!(Report::default().utilization(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes: Vec<u8>, text: String) {
            let reports = [
                Report::parse(&bytes),
                Report::parse(format!("TEXT {text}").as_bytes()),
                Report::parse(format!("JSON {text}").as_bytes()),
                Report::parse_binary(&bytes),
                message(&bytes),
            ];
            for report in reports.into_iter().flatten() {
                let figures = [report.cpu, report.memory, report.application, report.rps, report.eps];
                proptest::prop_assert!(figures.iter().flatten().all(|figure| figure.is_finite() && *figure >= 0.0));
            }
        }
    }
}
