//! Where a setting is: names and places in lists, from the top of the configuration down. Written as TOML
//! writes it, a name that is not bare in quotes, so that every setting has one spelling.

use std::fmt;

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into the setting of this name.
    Name(String),
    /// Into a list, counted from 0.
    Index(usize),
}

/// The path of a setting or of a group of settings; empty: all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<Step>);

impl KeyPath {
    /// The path and one more name.
    #[must_use]
    pub fn join(&self, name: impl Into<String>) -> Self {
        self.with(Step::Name(name.into()))
    }

    /// The path and a place in the list there.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// What the path is in; `None` for the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, group) = self.0.split_last()?;
        Some(Self(group.to_vec()))
    }

    /// The steps behind `group`; `None` if the path does not begin with it.
    #[must_use]
    pub fn behind(&self, group: &Self) -> Option<&[Step]> {
        self.0.strip_prefix(group.0.as_slice())
    }

    /// Whether the path is `group` or inside it.
    #[must_use]
    pub fn is_in(&self, group: &Self) -> bool {
        self.0.starts_with(&group.0)
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Its names, without places in lists.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Step::Name(name) => Some(name.as_str()),
            Step::Index(_) => None,
        })
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names().next_back().unwrap_or_default()
    }

    /// The path and these steps.
    #[must_use]
    pub fn extended(&self, steps: &[Step]) -> Self {
        Self(self.0.iter().chain(steps).cloned().collect())
    }
}

/// Reads names with dots between, those that are not bare in quotes.
impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        let (mut path, mut name) = (Self::default(), String::new());
        let (mut quoted, mut chars) = (false, text.chars());
        while let Some(c) = chars.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => name.extend(chars.next()),
                '.' if !quoted => path = path.join(std::mem::take(&mut name)),
                c => name.push(c),
            }
        }
        if text.is_empty() {
            return path;
        }
        path.join(name)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    if depth > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(&spelled(name))?;
                }
            }
        }
        Ok(())
    }
}

/// A name as TOML writes it.
#[must_use]
pub fn spelled(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_comes_back_out_of_a_path() {
        let group = KeyPath::from("glm.x");
        for name in ["a", "glm-4.5", "", ".", "a\"b", "\\", "a\\\".b", "ü x"] {
            let path = group.join(name).join("last");
            assert_eq!(KeyPath::from(path.to_string().as_str()), path, "{path}");
            assert_eq!(path.parent(), Some(group.join(name)));
            assert_eq!(path.names().nth(2), Some(name));
        }
        assert_eq!(
            KeyPath::default().join("glm-4.5").to_string(),
            "\"glm-4.5\""
        );
        assert_eq!(group.item(3).join("a").to_string(), "glm.x[3].a");
        assert!(!KeyPath::from("lanes.a").is_in(&KeyPath::from("lane")));
        assert_eq!(KeyPath::from("").parent(), None);
    }
}
