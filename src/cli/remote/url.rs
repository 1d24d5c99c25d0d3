//! Where a daemon listens, as its URL says it.

use std::path::Path;

use reqwest::Url;

use crate::cli::exit::CliError;

/// Where a URL leads.
pub(super) enum Way<'a> {
    Tcp(Url),
    Socket(&'a Path),
}

pub(super) fn way(url: &str) -> Result<Way<'_>, CliError> {
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err(wrong_url(url, "names no socket")),
            path => Ok(Way::Socket(Path::new(path))),
        };
    }
    let parsed = Url::parse(url).map_err(|error| wrong_url(url, &error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" if parsed.host_str().is_some() => {}
        _ => return Err(wrong_url(url, "is of no kind that a daemon listens on")),
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        // Not shown: it holds a secret.
        return Err(CliError::usage("the daemon's URL holds a password")
            .help("give the token by --token-file or ONELANE_ADMIN_TOKEN"));
    }
    Ok(Way::Tcp(parsed))
}

pub(super) fn wrong_url(url: &str, problem: &str) -> CliError {
    CliError::usage(format!("{url} {problem}")).help(
        "give the daemon's URL like http://127.0.0.1:4700, https://host:4700 or unix:/run/onelane.sock",
    )
}

/// Refuses what is no URL of a daemon.
pub(super) fn check_url(url: &str) -> Result<(), CliError> {
    way(url).map(drop)
}

/// The URL as it means the same from every directory.
pub(super) fn absolute(url: &str) -> String {
    match way(url) {
        Ok(Way::Socket(path)) => std::path::absolute(path).map_or_else(
            |_| url.to_owned(),
            |path| format!("unix:{}", path.display()),
        ),
        _ => url.trim_end_matches('/').to_owned(),
    }
}

/// A part of a path, percent-encoded.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    #[test]
    fn a_url_is_one_of_http_tls_or_a_socket_and_holds_no_password() {
        for good in [
            "http://127.0.0.1:4700",
            "https://host",
            "unix:/run/one.sock",
            "unix:api.sock",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:4700", "ftp://host", "unix:", "http://"] {
            let error = check_url(bad).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{bad}");
        }
        let error = check_url("http://me:hidden@host").unwrap_err();
        assert!(!error.message.contains("hidden"));
    }
}
