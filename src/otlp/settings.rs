//! `[otlp]`: traces and logs for OpenTelemetry. The section is there in every build, so that one without the feature
//! can say what it lacks.

use onelane_core::model::Secret;
use onelane_core::model::setting::{Place, Problem, Secrets, Setting as _, SettingsError};
use onelane_core::{section, words};
use reqwest::Url;
use serde::{Deserialize, Serialize};

section! {
    /// `[otlp]`: what OpenTelemetry's collector is told.
    pub struct OtlpSection checked by Self::goes_together {
        /// Where the collector takes OTLP over HTTP; /v1/traces and /v1/logs are appended. Not set, nothing is exported and
        /// no trace is kept. OTEL_EXPORTER_OTLP_ENDPOINT sets it, too.
        endpoint: Option<String> = None => [text(endpoint).sample("\"http://127.0.0.1:4318\"")];
        /// Headers for the collector as OpenTelemetry writes them: name=value, more behind commas, values
        /// percent-encoded. Better in OTEL_EXPORTER_OTLP_HEADERS.
        headers: Option<Secret> = None => [sample("\"authorization=Bearer%20a-token\"")];
        /// A file that holds the headers for the collector.
        headers_file: Option<String> = None => [sample("\"otlp.headers\"")];
        /// The service's name; not set, onelane. OTEL_SERVICE_NAME sets it, too.
        service_name: Option<String> = None => [text(service_name).sample("\"onelane-blue\"")];
        /// What else is told of the service: name=value, more behind commas, values percent-encoded.
        /// OTEL_RESOURCE_ATTRIBUTES sets it, too.
        resource_attributes: Option<String> = None => [
            text(attributes).sample("\"deployment.environment.name=production\"")
        ];
        /// Whether spans are exported, and traceparent is taken and passed on.
        traces: bool = true;
        /// Whether log lines are exported. The filter of [log] says which.
        logs: bool = true;
        /// Which traces are exported, in OpenTelemetry's words. OTEL_TRACES_SAMPLER sets it, too.
        sampler: Sampler = Sampler::ParentbasedAlwaysOn;
        /// The share of traces that the samplers with "ratio" in their names export. OTEL_TRACES_SAMPLER_ARG sets it, too.
        sampling_ratio: f64 = 1.0 => [within(0.0..=1.0)];
        /// Who is told the trace by traceparent and tracestate: "all", GLM with each attempt and the receivers of
        /// webhooks; "webhooks", these alone; "none".
        propagate: Propagate = Propagate::All;
        /// How long the collector may take for a request, with its repetitions. OTEL_EXPORTER_OTLP_TIMEOUT sets it, too.
        timeout_ms: u64 = 10_000 => [within(1..=600_000)];
        /// How often spans and log records are sent: so much of them a crash can take.
        every_ms: u64 = 1_000 => [within(10..=600_000)];
        /// Spans, and log records, that wait to be sent; what comes on top is dropped and counted.
        queue_max: usize = 2_048 => [within(1..=1_000_000)];
        /// How long the end of the process waits for the last ones to be sent.
        flush_ms: u64 = 3_000 => [within(0..=600_000)];
    }
}

/// Which traces are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Each.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share of them.
    Traceidratio,
    /// As the submitter's trace is; each of those that begin here.
    ParentbasedAlwaysOn,
    /// As the submitter's trace is; none of those that begin here.
    ParentbasedAlwaysOff,
    /// As the submitter's trace is; a share of those that begin here.
    ParentbasedTraceidratio,
}

/// Who is told of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagate {
    /// GLM and the receivers of webhooks.
    All,
    /// The receivers of webhooks.
    Webhooks,
    /// Nobody.
    None,
}

words! {
    Sampler {
        AlwaysOn, AlwaysOff, Traceidratio, ParentbasedAlwaysOn, ParentbasedAlwaysOff, ParentbasedTraceidratio,
    }
    Propagate { All, Webhooks, None }
}

/// Variables of OpenTelemetry and the settings that they set.
pub(crate) const VARIABLES: [(&str, &str); 7] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp.endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "otlp.headers"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "otlp.timeout_ms"),
    ("OTEL_SERVICE_NAME", "otlp.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "otlp.resource_attributes"),
    ("OTEL_TRACES_SAMPLER", "otlp.sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "otlp.sampling_ratio"),
];

/// Whether this build can export anything.
pub(crate) const IS_BUILT: bool = cfg!(feature = "otlp");

/// What a program whose build can't export is told.
const NOT_BUILT: &str = "needs a build with OpenTelemetry, and this one has none: build onelane with --features otlp, \
                         or leave [otlp] out";

impl OtlpSection {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if !IS_BUILT {
            let told = self.write(Secrets::Masked);
            let usual = Self::default().write(Secrets::Masked);
            let names = told.as_object().into_iter().flat_map(|all| all.keys());
            let mut said = names.filter(|name| told.get(name.as_str()) != usual.get(name.as_str()));
            if let Some(name) = said.next() {
                errors.push(SettingsError::new(place.at(name), NOT_BUILT));
            }
            return;
        }
        if let Some(headers) = &self.headers
            && pairs(headers.expose()).is_none()
        {
            let problem =
                "must be name=value, more behind commas, with names that HTTP headers may have";
            errors.push(SettingsError::new(place.at("headers"), problem));
        }
    }
}

/// Where OTLP goes, without a slash at its end.
fn endpoint(text: &str) -> Result<String, Problem> {
    let problem = "must be an http or https URL such as http://127.0.0.1:4318";
    let url = Url::parse(text).map_err(|_| problem)?;
    let is_bare = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(problem.into());
    }
    if !url.username().is_empty() || url.password().is_some() || !is_bare {
        return Err("must not hold a user, a password or a query; set otlp.headers".into());
    }
    let path = url.path().trim_end_matches('/');
    if let Some(of_signal) = ["/v1/traces", "/v1/logs"]
        .iter()
        .find(|end| path.ends_with(**end))
    {
        return Err(format!("must leave out {of_signal}, which is appended").into());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn service_name(text: &str) -> Result<String, Problem> {
    match (1..=255).contains(&text.chars().count()) {
        true => Ok(text.to_owned()),
        false => Err("must have 1 to 255 characters".into()),
    }
}

fn attributes(text: &str) -> Result<String, Problem> {
    match pairs(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be name=value, more behind commas".into()),
    }
}

/// The names and values of a list as OpenTelemetry writes it, values as they stand there; `None`: it is none.
pub(crate) fn pairs(text: &str) -> Option<Vec<(&str, &str)>> {
    let members = text.split(',').map(str::trim);
    members
        .filter(|member| !member.is_empty())
        .map(pair)
        .collect()
}

fn pair(member: &str) -> Option<(&str, &str)> {
    let (name, value) = member.split_once('=')?;
    let name = name.trim();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~/".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    is_name.then_some((name, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_base_to_which_paths_are_appended() {
        assert_eq!(
            endpoint("http://127.0.0.1:4318/").unwrap(),
            "http://127.0.0.1:4318"
        );
        assert_eq!(
            endpoint("https://c.example/otlp/").unwrap(),
            "https://c.example/otlp"
        );
        for odd in [
            "127.0.0.1:4318",
            "grpc://c.example",
            "http://u:p@c.example",
            "http://c.example?key=1",
            "http://c.example/v1/traces",
        ] {
            assert!(endpoint(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_list_of_open_telemetry_is_read_pair_by_pair() {
        let read = pairs("a=1, b.c = x%20y ,,d=e=f").unwrap();
        assert_eq!(read, [("a", "1"), ("b.c", "x%20y"), ("d", "e=f")]);
        assert_eq!(pairs(""), Some(Vec::new()));
        for odd in ["a", "=1", "a b=1", "é=1"] {
            assert_eq!(pairs(odd), None, "{odd}");
        }
    }
}
