//! What is exported for OpenTelemetry follows the program's own settings and OpenTelemetry's variables; a build that can't
//! export says so.

use super::Place;

const SECTION: &str = "[otlp]\nendpoint = \"http://127.0.0.1:4318\"\n";

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_without_open_telemetry_refuses_its_section_in_words() {
    let refused = Place::with_config(SECTION).loader().load().unwrap_err();
    let words = refused.to_string();
    assert!(words.contains("otlp.endpoint"), "{words}");
    assert!(words.contains("--features otlp"), "{words}");
    assert!(words.contains("leave [otlp] out"), "{words}");
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_without_open_telemetry_passes_over_its_variables() {
    let place = Place::new()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        .env("OTEL_TRACES_SAMPLER", "nonsense");
    let loaded = place.load();
    assert_eq!(loaded.config.otlp, crate::config::OtlpSection::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[cfg(feature = "otlp")]
mod built {
    use super::{Place, SECTION};
    use crate::config::Sampler;
    use crate::config::error::Origin;

    #[test]
    fn the_variables_of_open_telemetry_stand_above_the_file() {
        let file = format!("{SECTION}service_name = \"file\"\nsampling_ratio = 0.5\n");
        let place = Place::with_config(&file)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example/otlp/")
            .env("OTEL_SERVICE_NAME", "")
            .env("OTEL_RESOURCE_ATTRIBUTES", "team=lane")
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", "0.25")
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t")
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
        let loaded = place.load();
        let otlp = &loaded.config.otlp;
        assert_eq!(otlp.endpoint.as_deref(), Some("https://c.example/otlp"));
        assert_eq!(
            otlp.service_name.as_deref(),
            Some("file"),
            "an empty one says nothing"
        );
        assert_eq!(otlp.resource_attributes.as_deref(), Some("team=lane"));
        assert_eq!(otlp.sampler, Sampler::ParentbasedTraceidratio);
        assert_eq!(otlp.sampling_ratio, 0.25);
        assert_eq!(otlp.timeout_ms, 500);
        let headers = otlp.headers.as_ref().unwrap();
        assert_eq!(headers.expose(), "authorization=Bearer%20t");
        let origin = loaded.origin("otlp.sampler");
        assert_eq!(origin, Origin::Env("OTEL_TRACES_SAMPLER"));
        let shown = format!("{:?}", loaded.explain());
        assert!(!shown.contains("Bearer"), "{shown}");
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_left_out_and_told() {
        let place = Place::with_config(SECTION)
            .env("OTEL_TRACES_SAMPLER", "jaeger_remote")
            .env("OTEL_TRACES_SAMPLER_ARG", "many");
        let loaded = place.load();
        assert_eq!(loaded.config.otlp.sampler, Sampler::ParentbasedAlwaysOn);
        assert_eq!(loaded.warnings.len(), 2);
        for (warning, name) in loaded.warnings.iter().zip(["OTEL_TRACES_SAMPLER", "_ARG"]) {
            assert!(
                warning.contains(name) && warning.contains("left out"),
                "{warning}"
            );
        }
    }

    #[test]
    fn everything_of_open_telemetry_is_switched_off_by_its_own_variable() {
        let place = Place::with_config(SECTION).env("OTEL_SDK_DISABLED", "True");
        let otlp = place.load().config.otlp;
        assert!(!otlp.traces && !otlp.logs);
    }

    #[test]
    fn headers_that_are_none_are_refused_without_a_word_of_them() {
        let place = Place::with_config(&format!("{SECTION}headers = \"secret-without-a-name\"\n"));
        let words = place.loader().load().unwrap_err().to_string();
        assert!(
            words.contains("otlp.headers: must be name=value"),
            "{words}"
        );
        assert!(!words.contains("secret-without"), "{words}");
    }
}
