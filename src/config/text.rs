//! What a text setting must look like. Each check answers the canonical form or what would be
//! right; none repeats what was given, for it may be a secret in the wrong place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use onelane_core::model::{Calendar, DEFAULT_LANE, Nanos, limits};
use reqwest::Url;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use tracing_subscriber::EnvFilter;

use super::suggest::quoted;
use crate::glm::{ErrorTable, RowClass};

/// Any text that says something: a name, a path.
pub(crate) fn plain(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// A key or token, as it can travel in an HTTP header.
pub(crate) fn secret(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.starts_with("****") {
        return Err("is a masked secret; leave it out to keep the one in force".to_owned());
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("must be printable ASCII without blanks".to_owned());
    }
    Ok(text.to_owned())
}

/// The base URL of GLM, without a slash at its end.
pub(crate) fn base_url(text: &str) -> Result<String, String> {
    let problem = "must be an http or https URL such as https://open.bigmodel.cn/api/paas/v4";
    let url = Url::parse(text).map_err(|_| problem.to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(problem.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password; the key belongs in glm.api_key".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without `?` or `#`".to_owned());
    }
    let trimmed = url.as_str().trim_end_matches('/');
    if let Some(base) = trimmed.strip_suffix("/chat/completions") {
        return Err(format!(
            "must leave out /chat/completions, which is appended: write {base}"
        ));
    }
    Ok(trimmed.to_owned())
}

/// Whether a key sent to `base_url` would cross a network in the clear.
pub(crate) fn is_exposed(base_url: &str) -> bool {
    let Ok(url) = Url::parse(base_url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    url.scheme() == "http" && host != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback())
}

/// The address to listen on, as IP and port. `localhost` is taken as 127.0.0.1.
pub(crate) fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    let localhost = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    localhost
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "must be an IP address and a port such as 127.0.0.1:4700".to_owned())
}

/// [`socket_addr`] as text.
pub(crate) fn listen(text: &str) -> Result<String, String> {
    socket_addr(text).map(|addr| addr.to_string())
}

/// A filter of log lines in the syntax of `tracing`.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    plain(text)?;
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|_| {
            "must be a level (error, warn, info, debug, trace, off) or directives such as \
             info,onelane=debug"
                .to_owned()
        })
}

/// The name of a model.
pub(crate) fn model(text: &str) -> Result<String, String> {
    plain(text)?;
    if text.chars().count() > limits::MODEL_CHARS_MAX {
        return Err(format!(
            "must have 1 to {} characters",
            limits::MODEL_CHARS_MAX
        ));
    }
    Ok(text.to_owned())
}

/// [`model`], for a name that stands before something.
pub(crate) fn model_name(text: &str) -> Result<(), String> {
    model(text).map(drop)
}

/// The name of a model, or its beginning and a `*`.
pub(crate) fn model_pattern(text: &str) -> Result<String, String> {
    match text.find('*') {
        Some(at) if at + 1 < text.len() => {
            Err("may have a `*` at its end only, as in glm-4.5*".to_owned())
        }
        _ => model(text),
    }
}

/// The name of a lane of its own.
pub(crate) fn lane_name(text: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&text.len()) && text.chars().all(is_plain) && text != DEFAULT_LANE {
        return Ok(());
    }
    Err(
        "must be named with 1 to 64 letters, digits, `-` or `_`, and not `default`, which is [lane]"
            .to_owned(),
    )
}

/// A budget's name.
pub(crate) fn budget_name(text: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(());
    }
    Err("must be named with 1 to 64 letters, digits, `-` or `_`".to_owned())
}

/// A calendar's zone.
pub(crate) fn zone(text: &str) -> Result<String, String> {
    let zone: Calendar = text.parse()?;
    Ok(zone.to_string())
}

/// An amount of money, as decimal text.
pub(crate) fn amount(text: &str) -> Result<String, String> {
    nanos(text).map(|_| text.to_owned())
}

/// An amount of money in billionths.
pub(crate) fn nanos(text: &str) -> Result<Nanos, String> {
    const NANOS_PER_UNIT: i64 = 1_000_000_000;
    let amount = Decimal::from_str_exact(text)
        .map_err(|_| "must be a plain decimal such as \"12.50\"".to_owned())?;
    let nanos = amount.checked_mul(Decimal::from(NANOS_PER_UNIT));
    nanos
        .filter(|n| n.fract().is_zero() && *n > Decimal::ZERO)
        .and_then(|n| n.to_i64())
        .ok_or_else(|| {
            "must be above 0, at most nine decimals long, and at most 9 billion".to_owned()
        })
}

/// A code of the policy table: GLM's number, an HTTP status, or another code with a row of its own.
pub(crate) fn policy_code(text: &str) -> Result<(), String> {
    let is_number = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
    let status = text.strip_prefix("http_").filter(|n| n.len() == 3);
    let is_status = status.is_some_and(|n| n.parse().is_ok_and(|n| (100..=599_u16).contains(&n)));
    let table = ErrorTable::shipped();
    let in_table: Vec<&str> = table
        .rows()
        .chain(table.own_rows())
        // There the code inside the body decides: that one may be changed.
        .filter(|row| row.class != RowClass::MapByInnerCode)
        .map(|row| row.code.as_str())
        .collect();
    if is_number || is_status || in_table.contains(&text) {
        return Ok(());
    }
    let begins_with_letter = |code: &&str| code.starts_with(|c: char| c.is_ascii_alphabetic());
    let names: Vec<&str> = in_table
        .into_iter()
        .filter(begins_with_letter)
        .filter(|code| !code.starts_with("http_"))
        .collect();
    Err(format!(
        "must be a code of GLM such as 1305, an HTTP status such as http_503 or http_5xx, or one \
         of {}",
        quoted(&names)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_canonical_or_the_problem_says_what_to_write() {
        let check = |text: &str, expected: Result<&str, &str>| match (base_url(text), expected) {
            (Ok(url), Ok(expected)) => assert_eq!(url, expected),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{text}: {problem}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check(
            "https://api.z.ai/api/paas/v4/",
            Ok("https://api.z.ai/api/paas/v4"),
        );
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080"));
        check("HTTP://LocalHost:8080//", Ok("http://localhost:8080"));
        check(
            "https://api.z.ai/api/paas/v4/chat/completions/",
            Err("write https://api.z.ai/api/paas/v4"),
        );
        for bad in [
            "",
            "api.z.ai",
            "localhost:80",
            "ftp://x/y",
            "https://",
            "http://:80",
        ] {
            check(bad, Err("must be an http or https URL"));
        }
        check("https://u:p@x/v4", Err("glm.api_key"));
        check("https://x/v4?a=1", Err("without `?`"));
        check("https://x/v4#a", Err("without `?`"));
    }

    #[test]
    fn only_http_to_another_machine_is_exposed() {
        for url in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost",
            "https://x",
        ] {
            assert!(!is_exposed(url), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://glm.example/v4",
            "http://localhost.evil",
        ] {
            assert!(is_exposed(url), "{url}");
        }
    }

    #[test]
    fn an_address_is_ip_and_port() {
        assert_eq!(listen("localhost:80").unwrap(), "127.0.0.1:80");
        assert_eq!(listen("[::1]:0").unwrap(), "[::1]:0");
        for bad in [
            "",
            ":4700",
            "4700",
            "127.0.0.1",
            "host:80",
            "localhost:70000",
            "1.2.3.4:-1",
        ] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_fits_in_a_header_and_is_never_repeated() {
        assert!(secret("0123456789abcdef.topsecret").is_ok());
        for bad in ["", "a b", "a\n", "schlüssel", "****cret"] {
            let problem = secret(bad).unwrap_err();
            assert!(bad.len() < 2 || !problem.contains(bad), "{problem}");
        }
    }

    #[test]
    fn a_code_of_the_policy_is_one_that_a_call_can_fail_with() {
        for good in [
            "1305",
            "9999",
            "500",
            "http_503",
            "http_5xx",
            "conn",
            "timeout_total",
        ] {
            assert_eq!(policy_code(good), Ok(()), "{good}");
        }
        assert_eq!(policy_code("finish:sensitive"), Ok(()));
        // The last three are conclusions of the lane itself, and a body that only holds another code.
        for bad in [
            "",
            "13",
            "13055",
            "http_",
            "http_999",
            "http_05",
            "http_0503",
            "timeout",
            "a b",
            "interrupted",
            "deadline",
            "body:200_error",
        ] {
            let problem = policy_code(bad).unwrap_err();
            assert!(
                problem.contains("such as 1305, an HTTP status such as http_503"),
                "{problem}"
            );
            assert!(problem.contains("`timeout_total`"), "{problem}");
            assert!(!problem.contains("body:200"), "{problem}");
        }
    }

    #[test]
    fn a_lane_has_a_plain_name_and_models_that_end_in_a_star_or_not() {
        for good in ["big", "glm-5", "A_1"] {
            assert_eq!(lane_name(good), Ok(()), "{good}");
        }
        for bad in ["", "default", "a.b", "a b", "ü", &"x".repeat(65)] {
            assert!(lane_name(bad).is_err(), "{bad}");
        }
        for good in ["glm-5", "glm-4.5*", "*"] {
            assert_eq!(model_pattern(good).unwrap(), good);
        }
        for bad in ["", "*air", "glm-*-air", "a\n", &"m".repeat(129)] {
            assert!(model_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_filter_is_one_that_tracing_takes() {
        for good in ["info", "warn,onelane=debug", "off"] {
            assert_eq!(log_filter(good).unwrap(), good);
        }
        for bad in ["", "onelane=loud", "a=b=c"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }
}
