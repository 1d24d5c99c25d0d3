//! Reads flags, environment and file.

use std::ffi::OsString;
use std::path::PathBuf;

use onelane_core::model::setting::{KeyPath, Problem};

use super::error::{ConfigError, Origin, WrongValue};
use super::layer::{Entry, Layer};
use super::loaded::{Loaded, Sources, ZAI_KEY_VARIABLE};
use super::proxies::Proxies;
use super::{file, read, secrets};
use crate::otlp;

/// Names the configuration file.
const CONFIG_VARIABLE: &str = "ONELANE_CONFIG";

/// Environment variables and the settings they set.
pub(crate) const VARIABLES: [(&str, &str); 5] = [
    ("ONELANE_STORE", "store.path"),
    ("ONELANE_LISTEN", "server.listen"),
    ("ONELANE_BASE_URL", "glm.base_url"),
    ("ONELANE_MODEL", "glm.model"),
    ("ONELANE_ADMIN_TOKEN", "server.admin_token"),
];

/// Where GLM's key may be; the first one that is set counts. The second is the international site's.
pub(crate) const KEY_VARIABLES: [&str; 3] =
    ["ONELANE_API_KEY", ZAI_KEY_VARIABLE, "ZHIPUAI_API_KEY"];

/// Variables that are read elsewhere: by the command line.
const OTHER_VARIABLES: [&str; 4] = [
    CONFIG_VARIABLE,
    "ONELANE_LOG",
    "ONELANE_URL",
    "ONELANE_CONTEXT",
];
/// One that the tests of this source read, and no program.
const OF_TESTS: &str = "ONELANE_BLESS";

/// Switches everything of OpenTelemetry off.
const OTEL_DISABLED: &str = "OTEL_SDK_DISABLED";

/// What the names of our variables begin with.
const PREFIX: &str = "ONELANE_";

/// What to say of variables that begin as ours do and that nobody reads.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let ours = VARIABLES.iter().map(|(name, _)| *name);
    let ours = ours.chain(KEY_VARIABLES).chain(OTHER_VARIABLES);
    let known: Vec<String> = ours
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect();
    let mut told = Vec::new();
    for name in names {
        if !name.starts_with(PREFIX) || known.contains(&name) || name == OF_TESTS {
            continue;
        }
        // What all of them begin with makes none of them more alike.
        let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        let names: Vec<String> = known.iter().map(|name| bare(name)).collect();
        let meant = match crate::meant::nearest(&names, &bare(&name)) {
            Some(near) => format!("did you mean {PREFIX}{near}?"),
            None => format!("there are {}", known.join(", ")),
        };
        told.push(format!(
            "{name} is set, and no variable of onelane's; {meant}"
        ));
    }
    told.sort();
    told
}

/// Files that are read from the working directory when none is named; the first that exists.
const FILES: [&str; 2] = ["onelane.toml", "config.toml"];

/// Looks a variable up.
type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Gathers what a configuration is made of. The environment comes in as a function, so that tests
/// and embedders own it.
pub struct Loader<'a> {
    env: Box<Environment<'a>>,
    directory: PathBuf,
    config_file: Option<PathBuf>,
    flags: Vec<(&'static str, &'static str, OsString)>,
}

impl<'a> Loader<'a> {
    /// Begins with an environment, usually `|name| std::env::var_os(name)`.
    pub fn new(env: impl Fn(&str) -> Option<OsString> + 'a) -> Self {
        Self {
            env: Box::new(env),
            directory: PathBuf::new(),
            config_file: None,
            flags: Vec::new(),
        }
    }

    /// Relative paths of configuration and secret files start here, not in the working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// The configuration file, as a flag names it. It must exist then.
    #[must_use]
    pub fn config_file(mut self, path: Option<impl Into<PathBuf>>) -> Self {
        self.config_file = path.map(Into::into);
        self
    }

    /// A flag that sets `key` (its path in `config.toml`), if it was given.
    #[must_use]
    pub fn flag(
        mut self,
        flag: &'static str,
        key: &'static str,
        value: Option<impl Into<OsString>>,
    ) -> Self {
        if let Some(value) = value {
            self.flags.push((flag, key, value.into()));
        }
        self
    }

    /// Reads everything and checks it. Changes kept in the store come later, once it is known
    /// where the store is: [`Loaded::with_stored`].
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let (below, file) = self.below()?;
        let (ignored, otel) = self.of_open_telemetry();
        let mut above = otel;
        above.cover(&self.above()?);
        let secrets = secrets::read(&below, &above, &self.directory)?;
        Loaded::compose(Sources {
            below,
            above,
            secrets,
            proxies: self.proxies(),
            stored: None,
            file,
            ignored,
        })
    }

    /// What the variables say that many programs read. One that is empty, or no text, says nothing.
    fn proxies(&self) -> Proxies {
        let said = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let text = (self.env)(name)?.into_string().ok()?;
                (!text.trim().is_empty()).then_some((name, text))
            })
        };
        Proxies {
            https: said(["https_proxy", "HTTPS_PROXY"]),
            http: said(["http_proxy", "HTTP_PROXY"]),
            all: said(["all_proxy", "ALL_PROXY"]),
            none_for: said(["no_proxy", "NO_PROXY"]).map(|(_, hosts)| hosts),
        }
    }

    /// The file.
    fn below(&self) -> Result<(Layer, Option<PathBuf>), ConfigError> {
        let from_env = match &self.config_file {
            Some(_) => None,
            None => self.variable(CONFIG_VARIABLE).map_err(|problem| {
                let origin = Origin::Env(CONFIG_VARIABLE);
                ConfigError::Invalid(vec![WrongValue::of(origin, KeyPath::default(), problem)])
            })?,
        };
        if let Some(path) = self.config_file.clone().or(from_env.map(PathBuf::from)) {
            let path = self.directory.join(path);
            return Ok((file::read_file(&path)?, Some(path)));
        }
        let found = FILES.iter().map(|name| self.directory.join(name));
        match found.into_iter().find(|path| path.exists()) {
            Some(path) => {
                let read = file::read_file(&path);
                let read = read.map_err(|error| ConfigError::Found(Box::new(error)))?;
                Ok((read, Some(path)))
            }
            None => Ok((Layer::default(), None)),
        }
    }

    /// The environment, and the flags on top of it.
    fn above(&self) -> Result<Layer, ConfigError> {
        let key_variable = KEY_VARIABLES.iter().find(|name| (self.env)(name).is_some());
        let key_variable = key_variable.map(|name| (*name, "glm.api_key"));
        let mut given: Vec<(Origin, &'static str, Result<String, Problem>)> = Vec::new();
        for (name, key) in VARIABLES.iter().copied().chain(key_variable) {
            if let Some(text) = self.variable(name).transpose() {
                given.push((Origin::Env(name), key, text));
            }
        }
        for (flag, key, value) in &self.flags {
            given.push((Origin::Flag(flag), key, as_text(value.clone())));
        }
        let mut layer = Layer::default();
        let mut errors = Vec::new();
        for (origin, key, text) in given {
            let path = KeyPath::from(key);
            match text.and_then(|text| read::read_text(&path, &text)) {
                Ok(value) => layer.insert(path, Entry::new(value, origin)),
                Err(problem) => errors.push(WrongValue::of(origin, path, problem)),
            }
        }
        if !errors.is_empty() {
            return Err(ConfigError::Invalid(errors));
        }
        Ok(layer)
    }

    /// What OpenTelemetry's own variables say, where this build exports, and what of it is not understood: its
    /// specification wants that left out with a warning, and an empty value taken for none.
    fn of_open_telemetry(&self) -> (Vec<String>, Layer) {
        let (mut ignored, mut layer) = (Vec::new(), Layer::default());
        if !otlp::IS_BUILT {
            return (ignored, layer);
        }
        let said = |name: &str| (self.env)(name).filter(|value| !value.is_empty());
        for (name, key) in otlp::VARIABLES {
            let Some(value) = said(name) else { continue };
            let path = KeyPath::from(key);
            match as_text(value).and_then(|text| read::read_text(&path, &text)) {
                Ok(value) => layer.insert(path, Entry::new(value, Origin::Env(name))),
                Err(problem) => ignored.push(format!("{name} is left out: it {problem}")),
            }
        }
        if said(OTEL_DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            for key in ["otlp.traces", "otlp.logs"] {
                let off = Entry::new(false.into(), Origin::Env(OTEL_DISABLED));
                layer.insert(KeyPath::from(key), off);
            }
        }
        (ignored, layer)
    }

    fn variable(&self, name: &str) -> Result<Option<String>, Problem> {
        match (self.env)(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => {
                Err("is set but empty; give it a value or unset it".into())
            }
            Some(value) => as_text(value).map(Some),
        }
    }
}

fn as_text(value: OsString) -> Result<String, Problem> {
    value.into_string().map_err(|_| "is not UTF-8 text".into())
}
