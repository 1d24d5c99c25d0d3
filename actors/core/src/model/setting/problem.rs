//! What is wrong with a setting. Other settings that a problem speaks of are kept as paths, so that every
//! reader hears the names that it uses itself.

use std::fmt;

use super::KeyPath;

/// What is wrong and what would be right. Never holds the value, which may be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Words(String),
    Setting(KeyPath),
}

impl Problem {
    /// The problem with more words at its end.
    #[must_use]
    pub fn words(mut self, words: impl Into<String>) -> Self {
        self.0.push(Piece::Words(words.into()));
        self
    }

    /// The problem with the name of a setting at its end.
    #[must_use]
    pub fn setting(mut self, path: KeyPath) -> Self {
        self.0.push(Piece::Setting(path));
        self
    }

    /// The settings that it speaks of.
    pub fn settings(&self) -> impl Iterator<Item = &KeyPath> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Words(_) => None,
            Piece::Setting(path) => Some(path),
        })
    }

    /// The problem in words, settings called as `name` calls them.
    #[must_use]
    pub fn told(&self, name: impl Fn(&KeyPath) -> String) -> String {
        let told = self.0.iter().map(|piece| match piece {
            Piece::Words(words) => words.clone(),
            Piece::Setting(path) => name(path),
        });
        told.collect()
    }
}

impl<T: Into<String>> From<T> for Problem {
    fn from(words: T) -> Self {
        Self(vec![Piece::Words(words.into())])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(KeyPath::to_string))
    }
}

/// Why settings are refused: which one, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct SettingsError {
    /// The setting, by its names in `config.toml`.
    pub path: KeyPath,
    /// What is wrong and what would be right.
    pub problem: Problem,
}

impl SettingsError {
    /// This problem of this setting.
    pub fn new(path: KeyPath, problem: impl Into<Problem>) -> Self {
        Self {
            path,
            problem: problem.into(),
        }
    }
}
