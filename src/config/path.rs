//! Paths of settings as TOML writes them: names with dots between, a name that is not bare in quotes.
//! So `glm.fallbacks."glm-4.5"` has three names, and every setting has one spelling.

/// A path and one more name.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    let name = if is_bare(name) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    };
    if prefix.is_empty() {
        return name;
    }
    format!("{prefix}.{name}")
}

/// The first name, unquoted, and the path behind it.
pub(crate) fn split_first(path: &str) -> (String, Option<&str>) {
    let mut name = String::new();
    let mut chars = path.char_indices();
    let mut quoted = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' if !quoted => return (name, path.get(at + 1..)),
            c => name.push(c),
        }
    }
    (name, None)
}

/// The group that a path is in; `None` for a name alone.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let mut rest = path;
    while let (_, Some(behind)) = split_first(rest) {
        rest = behind;
    }
    path.strip_suffix(rest)?.strip_suffix('.')
}

/// The path behind a group; `None` when it is not in the group.
pub(crate) fn inside<'a>(group: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(group)?.strip_prefix('.')
}

fn is_bare(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_comes_back_out_of_a_path() {
        for name in ["a", "glm-4.5", "", ".", "a\"b", "\\", "a\\\".b", "ü x"] {
            let path = join(&join("glm.x", name), "last");
            assert_eq!(split_first(&path), ("glm".to_owned(), inside("glm", &path)));
            let behind = inside("glm.x", &path).unwrap();
            assert_eq!(split_first(behind), (name.to_owned(), Some("last")));
            assert_eq!(parent(&path), Some(join("glm.x", name).as_str()));
        }
        assert_eq!(join("", "glm-4.5"), "\"glm-4.5\"");
        assert_eq!(parent("glm"), None);
        assert_eq!(parent("glm.model"), Some("glm"));
        assert_eq!(inside("lane", "lanes.a"), None);
    }
}
