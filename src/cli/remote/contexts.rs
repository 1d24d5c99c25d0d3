//! Daemons by name: `contexts.toml` in the user's directory of configurations, readable by its owner alone. It names the
//! files of tokens and holds none.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::url;
use crate::cli::answer;
use crate::cli::args::remote::ContextVerb;
use crate::cli::args::remote::Target;
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// What is known of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is asked where a command names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// Where they stand; `None`: this user has no directory.
fn path() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = of("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(of("HOME")?).join(".config")))?;
    Some(base.join("onelane").join("contexts.toml"))
}

fn unusable(path: &Path, problem: impl std::fmt::Display) -> CliError {
    CliError::usage(format!("{} can't be used: {problem}", path.display()))
        .help("mend it or remove it; `onelane context set` writes it anew, and --url needs none")
}

impl Contexts {
    /// Reads them; none where there is no file.
    pub(crate) fn load() -> Result<Self, CliError> {
        let Some(path) = path() else {
            return Ok(Self::default());
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| unusable(&path, error.message())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unusable(&path, error)),
        }
    }

    /// The one of this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Context, CliError> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let help = match names.as_slice() {
                [] => format!("name one: onelane context set {name} --url http://HOST:4700"),
                names => format!(
                    "there are {}; `onelane context set` adds one",
                    names.join(", ")
                ),
            };
            CliError::usage(format!("there is no context {name}")).help(help)
        })
    }

    /// Writes them, whole or not at all.
    fn save(&self) -> Result<PathBuf, CliError> {
        let path = path().ok_or_else(|| {
            CliError::usage("there is no directory for contexts")
                .help("set XDG_CONFIG_HOME or HOME, or name the daemon with --url")
        })?;
        let wrong = |error: std::io::Error| {
            CliError::new(
                Exit::JobsFailed,
                format!("{} can't be written: {error}", path.display()),
            )
            .help("check the directory and its permissions, or set XDG_CONFIG_HOME")
        };
        let text = toml::to_string(self).map_err(|error| unusable(&path, error))?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(wrong)?;
        }
        let partial = path.with_extension("toml.partial");
        // One that is left of a dead process has who knows which permissions.
        let _ = std::fs::remove_file(&partial);
        let mut options = std::fs::File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&partial).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&partial, &path)
        });
        written.map_err(wrong)?;
        Ok(path)
    }
}

/// `onelane context`.
pub(crate) fn context(verb: ContextVerb, target: &Target, json: bool) -> Result<Exit, CliError> {
    let mut contexts = Contexts::load()?;
    match verb {
        ContextVerb::Ls => return list(&contexts, json),
        ContextVerb::Use(args) => {
            contexts.find(&args.name)?;
            contexts.current = Some(args.name.clone());
            contexts.save()?;
            let told = json!({"current": args.name});
            answer(json, &told, |_| {
                format!("{} is asked from now on", args.name)
            })?;
        }
        ContextVerb::Rm(args) => {
            contexts.find(&args.name)?;
            contexts.contexts.remove(&args.name);
            let was_current = contexts.current.as_ref() == Some(&args.name);
            if was_current {
                contexts.current = None;
            }
            contexts.save()?;
            let told = json!({"removed": args.name, "current": contexts.current});
            answer(json, &told, |_| match was_current {
                true => format!(
                    "{} is forgotten; the daemon on this machine is asked from now on",
                    args.name
                ),
                false => format!("{} is forgotten", args.name),
            })?;
        }
        ContextVerb::Set(args) => {
            let name = args.name;
            let known = contexts.contexts.get(&name).cloned();
            let place = target
                .url
                .clone()
                .or(known.as_ref().map(|known| known.url.clone()));
            let Some(place) = place else {
                return Err(
                    CliError::usage(format!("nothing is known of {name} yet")).help(format!(
                        "say where it listens: onelane context set {name} --url http://HOST:4700"
                    )),
                );
            };
            url::check_url(&place)?;
            let file = |given: &Option<PathBuf>, known: Option<PathBuf>| match given {
                Some(file) => std::path::absolute(file).map(Some).map_err(|error| {
                    CliError::usage(format!("{} is no path: {error}", file.display()))
                }),
                None => Ok(known),
            };
            let (token_file, ca_file) =
                known.map_or((None, None), |known| (known.token_file, known.ca_file));
            let context = Context {
                url: url::absolute(&place),
                token_file: file(&target.token_file, token_file)?,
                ca_file: file(&target.ca_file, ca_file)?,
            };
            contexts.contexts.insert(name.clone(), context.clone());
            if args.is_used {
                contexts.current = Some(name.clone());
            }
            let path = contexts.save()?;
            let told = json!({"name": name, "context": context, "current": contexts.current});
            answer(json, &told, |_| {
                let next = match args.is_used {
                    true => "it is asked from now on".to_owned(),
                    false => format!("`onelane context use {name}` asks it from now on"),
                };
                format!("{name} is {}, in {}; {next}", context.url, path.display())
            })?;
        }
    }
    Ok(Exit::Done)
}

fn list(contexts: &Contexts, json: bool) -> Result<Exit, CliError> {
    answer(json, contexts, |contexts| {
        if contexts.contexts.is_empty() {
            return "no daemon has a name; `onelane context set NAME --url URL` gives one"
                .to_owned();
        }
        let shown = |file: &Option<PathBuf>| {
            file.as_ref()
                .map_or_else(|| "-".to_owned(), |file| file.display().to_string())
        };
        let row = |(name, context): (&String, &Context)| {
            let is_current = contexts.current.as_ref() == Some(name);
            [
                if is_current { "*" } else { "" }.to_owned(),
                name.clone(),
                context.url.clone(),
                shown(&context.token_file),
                shown(&context.ca_file),
            ]
        };
        let rows: Vec<_> = contexts.contexts.iter().map(row).collect();
        fitting(["", "NAME", "URL", "TOKEN FILE", "CA FILE"], &rows)
    })?;
    Ok(Exit::Done)
}
