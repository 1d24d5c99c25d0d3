//! The way to GLM: straight, or through a proxy, and whom else than the system's authorities TLS trusts on it. Webhooks
//! never go this way: a proxy would undo the check of their addresses.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use onelane_core::model::Secret;
use reqwest::{ClientBuilder, Proxy, Url};

use super::fault::HttpGlmError;
use crate::tls::Trust;

/// How calls reach GLM. Its debug form tells no password.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// For every call, whatever its URL.
    proxy: Option<Hop>,
    /// For URLs of one scheme.
    https: Option<Hop>,
    http: Option<Hop>,
    /// Hosts that are reached straight.
    straight: Vec<String>,
    ca_file: Option<PathBuf>,
    /// `None`: the system's authorities alone are trusted.
    trust: Option<Trust>,
}

/// A proxy, and who named it.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    url: Secret,
    named_by: &'static str,
}

impl Hop {
    /// The proxy at an address, which may leave out `http://`. The error follows on the name of who said it.
    pub(crate) fn new(address: &str, named_by: &'static str) -> Result<Self, String> {
        let address = address.trim();
        let whole = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let url = Url::parse(&whole).map_err(|_| WRONG.to_owned())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(WRONG.to_owned());
        }
        Ok(Self {
            url: Secret::new(url.as_str()),
            named_by,
        })
    }
}

const WRONG: &str =
    "must be the URL of an http or https proxy, like http://proxy.example:3128; socks is not known";

/// Where it is, without who may use it.
impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(self.url.expose()).ok();
        let site = url
            .as_ref()
            .and_then(|url| Some((url.scheme(), url.host_str()?)));
        let (scheme, host) = site.unwrap_or(("http", "?"));
        write!(f, "{scheme}://{host}")?;
        if let Some(port) = url.as_ref().and_then(Url::port_or_known_default) {
            write!(f, ":{port}")?;
        }
        write!(f, " ({})", self.named_by)
    }
}

impl Route {
    /// Through this proxy, whatever the URL.
    pub(crate) fn through(mut self, proxy: Hop) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Through these proxies by the scheme of a URL, but for the hosts of a list as `NO_PROXY` has it.
    pub(crate) fn by_scheme(
        mut self,
        https: Option<Hop>,
        http: Option<Hop>,
        straight: &str,
    ) -> Self {
        (self.https, self.http) = (https, http);
        self.straight_to(straight)
    }

    /// Straight to the hosts of a list as `NO_PROXY` has it.
    pub(crate) fn straight_to(mut self, hosts: &str) -> Self {
        let hosts = hosts.split(',').map(str::trim);
        self.straight = hosts
            .filter(|host| !host.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        self
    }

    /// Trusts the authorities of a PEM file, too. The error follows on the name of the setting.
    pub(crate) fn trusting(mut self, file: PathBuf) -> Result<Self, String> {
        // What can't be used is known at the start.
        self.trust = Some(Trust::of_file(&file)?);
        self.ca_file = Some(file);
        Ok(self)
    }

    /// The proxy for a URL; `None`: it is reached straight. This machine always is.
    pub(crate) fn hop(&self, url: &Url) -> Option<&Hop> {
        let hop = self.proxy.as_ref().or(match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        })?;
        let host = url
            .host_str()?
            .trim_matches(['[', ']'])
            .to_ascii_lowercase();
        let is_here = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let is_straight = |pattern: &String| covers(pattern, &host, url.port_or_known_default());
        (!is_here && !self.straight.iter().any(is_straight)).then_some(hop)
    }

    /// The same client, on this way.
    pub fn on(&self, client: ClientBuilder) -> Result<ClientBuilder, HttpGlmError> {
        let client = match &self.trust {
            Some(trust) => trust.on(client),
            None => Trust::of_system()?.on(client),
        };
        // Never the system's own, which would be for every host.
        let client = client.no_proxy();
        if self.proxy.is_none() && self.https.is_none() && self.http.is_none() {
            return Ok(client);
        }
        let route = self.clone();
        let proxy = Proxy::custom(move |url| {
            let hop = route.hop(url)?;
            Url::parse(hop.url.expose()).ok()
        });
        Ok(client.proxy(proxy))
    }

    /// What to tell an operator of the way to this base URL; `None`: nothing is special.
    #[must_use]
    pub fn told(&self, base_url: &str) -> Option<String> {
        let url = Url::parse(base_url).ok();
        let hop = url.as_ref().and_then(|url| self.hop(url));
        let proxy = hop.map(|hop| format!("GLM is called through the proxy {hop}"));
        let trust = self
            .ca_file
            .as_ref()
            .map(|file| format!("TLS trusts the authorities of {}, too", file.display()));
        match (proxy, trust) {
            (Some(proxy), Some(trust)) => Some(format!("{proxy}; {trust}")),
            (proxy, trust) => proxy.or(trust),
        }
    }

    /// The words of a connection that did not come about, with what to look at on this way.
    pub(super) fn explain(&self, url: &Url, words: String) -> String {
        let is_of_trust = words.contains("certificate");
        let words = match self.hop(url) {
            Some(hop) if !is_of_trust => format!(
                "through the proxy {hop}: {words}; see that it is up and lets {} through, or set glm.proxy",
                url.host_str().unwrap_or_default()
            ),
            Some(hop) => format!("through the proxy {hop}: {words}"),
            None => words,
        };
        match is_of_trust {
            true => format!(
                "{words}; if a proxy or a server of your own signs for it, name its authority's PEM file in glm.ca_file"
            ),
            false => words,
        }
    }
}

/// Whether an entry of `NO_PROXY` covers a host: `*`, a domain with those below it, an address, a network, each with a
/// port behind it or not.
fn covers(pattern: &str, host: &str, port: Option<u16>) -> bool {
    let (pattern, of_port) = match pattern.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse::<u16>().ok())
        }
        _ => (pattern, None),
    };
    if of_port.is_some() && of_port != port {
        return false;
    }
    let pattern = pattern.trim_matches(['[', ']']);
    if pattern == "*" {
        return true;
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return match pattern.split_once('/') {
            Some((network, bits)) => is_in(ip, network, bits),
            None => pattern.parse::<IpAddr>().is_ok_and(|known| known == ip),
        };
    }
    let domain = pattern.trim_start_matches("*.").trim_start_matches('.');
    let above = host.strip_suffix(domain);
    !domain.is_empty() && above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_in(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let prefix = |bits: u32, width: u32, a: u128, b: u128| {
        bits == 0 || (bits <= width && (a ^ b) >> (width - bits) == 0)
    };
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => prefix(bits, 32, a.to_bits().into(), b.to_bits().into()),
        (IpAddr::V6(a), IpAddr::V6(b)) => prefix(bits, 128, a.to_bits(), b.to_bits()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(address: &str) -> Hop {
        Hop::new(address, "HTTPS_PROXY").unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_proxy_is_told_without_its_password() {
        let hop = Hop::new("http://user:s3cret@proxy.example:3128", "glm.proxy").unwrap();
        assert_eq!(hop.to_string(), "http://proxy.example:3128 (glm.proxy)");
        let route = Route::default().through(hop);
        assert!(!format!("{route:?}").contains("s3cret"));
        let told = route.told("https://open.bigmodel.cn/api/paas/v4").unwrap();
        assert_eq!(
            told,
            "GLM is called through the proxy http://proxy.example:3128 (glm.proxy)"
        );
        let words = route.explain(&url("https://a.test/"), "connection refused".to_owned());
        assert!(words.contains("proxy.example:3128") && !words.contains("s3cret"));
        assert_eq!(
            self::hop("proxy:8080").to_string(),
            "http://proxy:8080 (HTTPS_PROXY)"
        );
        for wrong in ["", "socks5://proxy:1080", "http://", "ftp://proxy", "a b"] {
            assert!(Hop::new(wrong, "x").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_proxy_is_never_for_this_machine_and_for_the_scheme_that_it_is_for() {
        let route = Route::default().by_scheme(Some(hop("s:1")), Some(hop("h:1")), "");
        let of = |text: &str| route.hop(&url(text)).map(ToString::to_string);
        assert!(of("https://api.z.ai/v4").unwrap().contains("//s:1"));
        assert!(of("http://glm.invalid/v4").unwrap().contains("//h:1"));
        for here in [
            "http://localhost:1/",
            "http://127.0.0.9/",
            "https://[::1]:2/",
            "http://a.localhost/",
        ] {
            assert_eq!(of(here), None, "{here}");
        }
        let all = route.clone().through(hop("all:1"));
        assert!(all.hop(&url("https://api.z.ai/")).is_some());
        assert!(all.hop(&url("http://127.0.0.1/")).is_none());
        assert!(Route::default().hop(&url("https://api.z.ai/")).is_none());
    }

    #[test]
    fn hosts_that_are_named_are_reached_straight() {
        let check = |list: &str, target: &str, straight: bool| {
            let route = Route::default().through(hop("p:1")).straight_to(list);
            assert_eq!(
                route.hop(&url(target)).is_none(),
                straight,
                "{list} {target}"
            );
        };
        check("*", "https://api.z.ai/", true);
        check("z.ai", "https://api.z.ai/", true);
        check(".z.ai", "https://api.z.ai/", true);
        check("*.z.ai", "https://API.Z.AI/", true);
        check("z.ai", "https://notz.ai/", false);
        check("a.test, api.z.ai:443", "https://api.z.ai/", true);
        check("api.z.ai:80", "https://api.z.ai/", false);
        check("10.1.2.3", "http://10.1.2.3:8080/", true);
        check("10.0.0.0/8", "http://10.1.2.3/", true);
        check("10.0.0.0/8", "http://11.1.2.3/", false);
        check("fd00::/8", "http://[fd00::1]/", true);
        check("", "https://api.z.ai/", false);
        check("0.0.0.0/0,nonsense/99", "http://8.8.8.8/", true);
    }

    #[test]
    fn a_file_of_authorities_that_is_none_is_told_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let wrong =
            |file: &std::path::Path| Route::default().trusting(file.to_owned()).unwrap_err();
        assert!(wrong(&file).contains("ca.pem can't be read"));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(wrong(&file).contains("BEGIN CERTIFICATE"));
    }
}
