//! What a text setting must look like. Each check answers the canonical form or what would be
//! right; none repeats what was given, for it may be a secret in the wrong place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use onelane_core::model::setting::{Problem, named, plain, quoted};
use onelane_core::model::{DEFAULT_LANE, Nanos, limits, model_name};
use reqwest::Url;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use tracing_subscriber::EnvFilter;

use crate::glm::{ErrorTable, RowClass};

type Checked = Result<String, Problem>;

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
pub(crate) fn socket_addr(text: &str) -> Result<SocketAddr, Problem> {
    let localhost = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    localhost
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "must be an IP address and a port such as 127.0.0.1:4700".into())
}

/// Where nothing is listened on.
pub(crate) const NOWHERE: &str = "none";

/// [`socket_addr`] as text, or [`NOWHERE`].
pub(crate) fn listen(text: &str) -> Checked {
    match text {
        NOWHERE => Ok(text.to_owned()),
        text => socket_addr(text).map(|addr| addr.to_string()),
    }
}

/// The mode of a file in octal digits.
pub(crate) fn mode(text: &str) -> Checked {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(format!("{mode:04o}")),
        _ => Err("must be a mode in octal digits, 0000 to 0777, such as \"0660\"".into()),
    }
}

/// The origin of web pages, as browsers name it; `*` for each.
pub(crate) fn origin(text: &str) -> Checked {
    let problem = "must be an origin such as https://app.example.com, or \"*\"";
    if text == "*" {
        return Ok(text.to_owned());
    }
    let url = Url::parse(text).map_err(|_| problem)?;
    let is_bare = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !is_bare {
        return Err(problem.into());
    }
    Ok(url.origin().ascii_serialization())
}

/// A filter of log lines in the syntax of `tracing`.
pub(crate) fn log_filter(text: &str) -> Checked {
    let text = plain(text)?;
    let problem = "must be a level (error, warn, info, debug, trace, off) or directives such as \
                   info,onelane=debug";
    EnvFilter::try_new(&text).map_err(|_| problem)?;
    Ok(text)
}

/// The name of a lane of its own.
pub(crate) fn lane_name(text: &str) -> Checked {
    if named(text).is_ok() && text != DEFAULT_LANE {
        return Ok(text.to_owned());
    }
    let problem = "must be named with 1 to 64 letters, digits, `-` or `_`, and not `default`, \
                   which is [lane]";
    Err(problem.into())
}

/// Calls to which model a budget is for; `*` for each.
pub(crate) fn model(text: &str) -> Checked {
    if text.trim() == "*" {
        return Ok("*".to_owned());
    }
    model_name::setting(text)
}

/// Whose calls a budget is for: a user, `*` for each.
pub(crate) fn whose(text: &str) -> Checked {
    let text = plain(text)?;
    if text.chars().count() > limits::USER_ID_CHARS_MAX {
        return Err("must have 1 to 128 characters, or be \"*\" for each".into());
    }
    Ok(text)
}

/// An amount of money, as decimal text.
pub(crate) fn amount(text: &str) -> Checked {
    nanos(text).map(|_| text.to_owned())
}

/// An amount of money in billionths.
pub(crate) fn nanos(text: &str) -> Result<Nanos, Problem> {
    const NANOS_PER_UNIT: i64 = 1_000_000_000;
    let amount =
        Decimal::from_str_exact(text).map_err(|_| "must be a plain decimal such as \"12.50\"")?;
    let nanos = amount.checked_mul(Decimal::from(NANOS_PER_UNIT));
    nanos
        .filter(|n| n.fract().is_zero() && *n > Decimal::ZERO)
        .and_then(|n| n.to_i64())
        .ok_or_else(|| "must be above 0, at most nine decimals long, and at most 9 billion".into())
}

/// A code of the policy table: GLM's number, an HTTP status, or another code with a row of its own.
pub(crate) fn policy_code(text: &str) -> Checked {
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
        return Ok(text.to_owned());
    }
    let begins_with_letter = |code: &&str| code.starts_with(|c: char| c.is_ascii_alphabetic());
    let names: Vec<&str> = in_table
        .into_iter()
        .filter(begins_with_letter)
        .filter(|code| !code.starts_with("http_"))
        .collect();
    let problem = format!(
        "must be a code of GLM such as 1305, an HTTP status such as http_503 or http_5xx, or one \
         of {}",
        quoted(&names)
    );
    Err(problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_to_another_machine_is_exposed() {
        for url in "http://127.0.0.1:1 http://[::1]:1 http://localhost https://x".split(' ') {
            assert!(!is_exposed(url), "{url}");
        }
        for url in "http://10.0.0.1 http://glm.example/v4 http://localhost.evil".split(' ') {
            assert!(is_exposed(url), "{url}");
        }
    }

    #[test]
    fn an_address_is_ip_and_port() {
        assert_eq!(listen("localhost:80").unwrap(), "127.0.0.1:80");
        assert_eq!(listen("[::1]:0").unwrap(), "[::1]:0");
        for bad in "|:4700|4700|127.0.0.1|host:80|localhost:70000|1.2.3.4:-1".split('|') {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        for (good, mode) in [("0600", "0600"), ("660", "0660"), ("0o777", "0777")] {
            assert_eq!(super::mode(good).unwrap(), mode);
        }
        for bad in ["", "0888", "1777", "+600", "rw", "-1"] {
            assert!(super::mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_as_browsers_name_it() {
        for (good, told) in [
            ("https://App.example.com", "https://app.example.com"),
            ("https://a.example:443/", "https://a.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("*", "*"),
        ] {
            assert_eq!(origin(good).unwrap(), told);
        }
        for bad in
            "|null|app.example.com|https://a/b|https://u@a|https://*.a.com/x|ftp://a".split('|')
        {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_of_the_policy_is_one_that_a_call_can_fail_with() {
        for good in "1305 9999 500 http_503 http_5xx conn timeout_total".split(' ') {
            assert!(policy_code(good).is_ok(), "{good}");
        }
        assert!(policy_code("finish:sensitive").is_ok());
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
            let problem = policy_code(bad).unwrap_err().to_string();
            let part = "such as 1305, an HTTP status such as http_503";
            assert!(problem.contains(part), "{problem}");
            assert!(problem.contains("`timeout_total`"), "{problem}");
            assert!(!problem.contains("body:200"), "{problem}");
        }
    }

    #[test]
    fn a_lane_has_a_plain_name() {
        for good in ["big", "glm-5", "A_1"] {
            assert!(lane_name(good).is_ok(), "{good}");
        }
        for bad in ["", "default", "a.b", "a b", "ü", &"x".repeat(65)] {
            assert!(lane_name(bad).is_err(), "{bad}");
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
