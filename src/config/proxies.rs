//! The way to GLM as settings and environment say it.

use std::path::PathBuf;

use onelane_core::model::Secret;
use onelane_core::model::setting::KeyPath;

use super::error::{ConfigError, Origin, WrongValue};
use super::loaded::Loaded;
use crate::glm::{Hop, Route};

/// What the variables say that many programs read, each with its name.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    pub(crate) https: Option<(&'static str, String)>,
    pub(crate) http: Option<(&'static str, String)>,
    pub(crate) all: Option<(&'static str, String)>,
    pub(crate) none_for: Option<String>,
}

/// There may be passwords in them.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [&self.https, &self.http, &self.all];
        let names = names.into_iter().flatten().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

/// No proxy, whatever the environment says.
const NONE: &str = "none";

impl Loaded {
    /// The way to GLM. A setting wins over the environment, and what is wrong is told with who said it.
    pub fn route(&self) -> Result<Route, ConfigError> {
        let glm = &self.settings.glm;
        let none_for = self.sources.proxies.none_for.as_deref().unwrap_or_default();
        let route = match glm.proxy.as_ref().map(Secret::expose) {
            Some(NONE) => Route::default(),
            Some(address) => {
                let hop = Hop::new(address, "glm.proxy").map_err(|e| self.wrong("glm.proxy", e))?;
                Route::default().through(hop).straight_to(none_for)
            }
            None => {
                let Proxies {
                    https, http, all, ..
                } = &self.sources.proxies;
                let hop = |said: Option<&(&'static str, String)>| {
                    let hop = said.map(|(name, address)| {
                        let wrong = |problem: String| {
                            let path = KeyPath::default();
                            let wrong = WrongValue::of(Origin::Env(name), path, problem);
                            ConfigError::Invalid(vec![wrong])
                        };
                        Hop::new(address, name).map_err(wrong)
                    });
                    hop.transpose()
                };
                let https = hop(https.as_ref().or(all.as_ref()));
                let http = hop(http.as_ref().or(all.as_ref()));
                // One that GLM is not called through may be of a kind that we don't know.
                let (https, http) = match glm.base_url.starts_with("https:") {
                    true => (https?, http.unwrap_or_default()),
                    false => (https.unwrap_or_default(), http?),
                };
                Route::default().by_scheme(https, http, none_for)
            }
        };
        match &glm.ca_file {
            None => Ok(route),
            Some(file) => {
                let trusting = route.trusting(PathBuf::from(file));
                trusting.map_err(|problem| self.wrong("glm.ca_file", problem))
            }
        }
    }

    fn wrong(&self, setting: &str, problem: String) -> ConfigError {
        let path = KeyPath::from(setting);
        let wrong = match self.merged.get(&path) {
            Some(entry) => entry.wrong_value(&path, problem),
            None => WrongValue::of(Origin::Default, path, problem),
        };
        ConfigError::Invalid(vec![wrong])
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::loader::Loader;

    fn told(variables: &[(&str, &str)], file: &str) -> Result<Option<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("onelane.toml"), file).unwrap();
        let env = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let loaded = Loader::new(env).directory(directory.path()).load().unwrap();
        let route = loaded.route().map_err(|error| error.to_string())?;
        Ok(route.told(&loaded.settings.glm.base_url))
    }

    fn check(variables: &[(&str, &str)], file: &str, want: Option<&str>) {
        let told = told(variables, file).unwrap();
        assert_eq!(told.is_some(), want.is_some(), "{told:?}");
        let told = told.unwrap_or_default();
        assert!(told.contains(want.unwrap_or_default()), "{told}");
    }

    #[test]
    fn the_usual_variables_name_the_proxy_and_the_setting_wins() {
        check(&[], "", None);
        let https = ("HTTPS_PROXY", "http://user:pass@a:1");
        check(&[https], "", Some("http://a:1 (HTTPS_PROXY)"));
        check(
            &[https, ("https_proxy", "b:2")],
            "",
            Some("http://b:2 (https_proxy)"),
        );
        check(&[("ALL_PROXY", "c:3")], "", Some("http://c:3 (ALL_PROXY)"));
        check(&[("HTTP_PROXY", "d:4")], "", None);
        let http = "glm.base_url = 'http://glm.invalid/v4'";
        check(
            &[("HTTP_PROXY", "d:4")],
            http,
            Some("http://d:4 (HTTP_PROXY)"),
        );
        check(&[https, ("NO_PROXY", "bigmodel.cn")], "", None);
        check(&[https, ("HTTPS_PROXY", " ")], "", Some("a:1"));
        let own = "glm.proxy = 'http://e:5'";
        check(&[https], own, Some("http://e:5 (glm.proxy)"));
        check(&[https], "glm.proxy = 'none'", None);
    }

    #[test]
    fn a_proxy_of_another_kind_is_told_with_who_named_it() {
        let error = told(&[("ALL_PROXY", "socks5://a:1")], "").unwrap_err();
        assert!(
            error.contains("ALL_PROXY") && error.contains("socks"),
            "{error}"
        );
        let error = told(&[], "glm.proxy = 'socks5://a:1'").unwrap_err();
        assert!(
            error.contains("onelane.toml:1") && error.contains("glm.proxy"),
            "{error}"
        );
        let error = told(&[], "glm.ca_file = 'nowhere.pem'").unwrap_err();
        assert!(
            error.contains("glm.ca_file") && error.contains("nowhere.pem"),
            "{error}"
        );
        // Where it is not used it stops nobody.
        check(&[("HTTP_PROXY", "socks5://a:1")], "", None);
    }
}
