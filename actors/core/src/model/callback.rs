//! Where the end of a job may be told: the rules for URLs that submitters name, so that nobody makes
//! this program call what only it can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::limits;
use super::setting::Problem;
use crate::section;

section! {
    /// What a `callbackUrl` may be.
    #[derive(Eq)]
    pub struct CallbackRules {
        /// Hosts that a job's callbackUrl may name: example.com, *.example.com for what is below it, an address,
        /// or * for any. An empty list refuses every callbackUrl.
        allowed_hosts: Vec<String> = Vec::new() => [text(host_rule)];
        /// true lets a callbackUrl be plain http.
        allow_http: bool = false;
        /// true lets a callbackUrl lead to this machine and its networks: whoever submits jobs reaches them then.
        allow_private: bool = false;
    }
}

impl CallbackRules {
    /// Whether nothing may be called.
    #[must_use]
    pub const fn refuse_all(&self) -> bool {
        self.allowed_hosts.is_empty()
    }

    /// The URL, if it may be called as far as its text tells; the error says what would be right. A
    /// name is also checked by the addresses it resolves to, when it is called: [`Self::may_connect`].
    pub fn check(&self, text: &str) -> Result<Url, String> {
        if self.refuse_all() {
            return Err(
                "is not allowed here: webhooks.allowed_hosts names no host that may be called"
                    .to_owned(),
            );
        }
        if text.len() > limits::CALLBACK_URL_BYTES_MAX {
            let max = limits::CALLBACK_URL_BYTES_MAX;
            return Err(format!("must have at most {max} bytes"));
        }
        let url = Url::parse(text).map_err(|_| self.form())?;
        let schemes: &[&str] = match self.allow_http {
            true => &["https", "http"],
            false => &["https"],
        };
        let Some(host) = url.host().filter(|_| schemes.contains(&url.scheme())) else {
            return Err(self.form());
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or password; what arrives is signed".to_owned());
        }
        let host = host.to_owned();
        if !self.allowed_hosts.iter().any(|rule| covers(rule, &host)) {
            return Err(format!("{host} is not among webhooks.allowed_hosts"));
        }
        let address = match host {
            Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
            Host::Domain(_) => None,
        };
        match address {
            Some(ip) if !self.may_connect(ip) => Err(format!(
                "{ip} is not on the public internet; webhooks.allow_private would allow it"
            )),
            _ => Ok(url),
        }
    }

    /// Whether this address may be connected to.
    #[must_use]
    pub fn may_connect(&self, address: IpAddr) -> bool {
        self.allow_private || is_public(address)
    }

    fn form(&self) -> String {
        let also = if self.allow_http { " or http" } else { "" };
        format!("must be an https{also} URL such as https://example.com/hook")
    }
}

/// Checks a rule of [`CallbackRules::allowed_hosts`] and answers its canonical form.
pub fn host_rule(text: &str) -> Result<String, Problem> {
    let problem = || "must be a host such as example.com, *.example.com, 203.0.113.7 or *".into();
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (prefix, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    match Host::parse(name) {
        Ok(Host::Domain(name)) if !name.is_empty() && !name.contains('*') => {
            Ok(format!("{prefix}{name}"))
        }
        Ok(host @ (Host::Ipv4(_) | Host::Ipv6(_))) if prefix.is_empty() => Ok(host.to_string()),
        _ => Err(problem()),
    }
}

fn covers(rule: &str, host: &Host<String>) -> bool {
    match (rule.strip_prefix("*."), host) {
        _ if rule == "*" => true,
        (Some(end), Host::Domain(name)) => name
            .strip_suffix(end)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        (Some(_), _) => false,
        (None, host) => rule == host.to_string(),
    }
}

/// Whether an address is one of the public internet: neither this machine, nor its networks, nor
/// what is set aside for other uses. An IPv4 address within an IPv6 one counts as itself.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_public_v4(ip),
            None => is_public_v6(ip),
        },
    }
}

/// IANA's registry of special addresses, without those that are reachable for everybody.
const fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || a == 10
        || a == 127
        || (a == 100 && b >= 64 && b < 128)
        || (a == 169 && b == 254)
        || (a == 172 && b >= 16 && b < 32)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 168)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224)
}

/// Global unicast, 2000::/3, without the special ranges in it: 2001::/23 (Teredo and others),
/// documentation, and 6to4, which leads to an IPv4 address of anybody's choice.
const fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    a >> 13 == 1
        && !(a == 0x2001 && b < 0x200)
        && !(a == 0x2001 && b == 0xdb8)
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str]) -> CallbackRules {
        CallbackRules {
            allowed_hosts: hosts.iter().map(|host| host_rule(host).unwrap()).collect(),
            ..CallbackRules::default()
        }
    }

    #[test]
    fn only_public_addresses_are_public() {
        for ip in PUBLIC.split(' ') {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in PRIVATE.split(' ') {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    const PUBLIC: &str = "1.1.1.1 172.32.0.1 100.128.0.1 2606:4700::1111 ::ffff:8.8.8.8";
    const PRIVATE: &str = "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.255.255.255 169.254.169.254 \
              172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 \
              198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 :: \
              ::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::7f00:1 \
              fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 2001::1 2001:db8::1 \
              2002:7f00:1:: 3fff::1";

    #[test]
    fn without_allowed_hosts_nothing_may_be_called() {
        let problem = CallbackRules::default().check("https://example.com/");
        let problem = problem.unwrap_err();
        assert!(problem.contains("webhooks.allowed_hosts"), "{problem}");
    }

    #[test]
    fn a_host_is_allowed_by_its_name_or_the_end_of_it() {
        let rules = rules(&["Example.com", "*.hooks.test", "203.0.113.7", "9.9.9.9"]);
        for good in [
            "https://example.com/a?b=c",
            "https://EXAMPLE.com:8443/",
            "https://a.hooks.test",
            "https://a.b.hooks.test",
            "https://9.9.9.9/",
        ] {
            assert!(rules.check(good).is_ok(), "{good}");
        }
        let refused = |url: &str, part: &str| {
            let problem = rules.check(url).unwrap_err();
            assert!(problem.contains(part), "{url}: {problem}");
        };
        refused("https://a.example.com/", "a.example.com is not among");
        refused("https://example.com.evil/", "is not among");
        refused("https://hooks.test/", "is not among");
        refused("https://evilhooks.test/", "is not among");
        refused("https://203.0.113.7/", "not on the public internet");
        refused("http://example.com/", "must be an https URL");
        refused("ftp://example.com/", "must be an https URL");
        refused("example.com", "must be an https URL");
        refused("https://user:pass@example.com/", "user or password");
        refused("https://example.com@evil.test/", "user or password");
        let long = format!("https://example.com/{}", "x".repeat(3_000));
        refused(&long, "at most");
    }

    #[test]
    fn an_address_in_disguise_is_the_address() {
        let any = rules(&["*"]);
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
        ] {
            let problem = any.check(url).unwrap_err();
            let why = "not on the public internet";
            assert!(problem.contains(why), "{url}: {problem}");
        }
        let open = CallbackRules {
            allow_http: true,
            allow_private: true,
            ..any
        };
        assert!(open.check("http://127.0.0.1:9/x").is_ok());
    }

    #[test]
    fn a_rule_is_a_host() {
        assert_eq!(host_rule("*.Example.com").unwrap(), "*.example.com");
        assert_eq!(host_rule("[::1]").unwrap(), "[::1]");
        for bad in "|*.|a b|http://x|x:80|x/y|a.*.b|*.1.2.3.4".split('|') {
            assert!(host_rule(bad).is_err(), "{bad}");
        }
    }
}
