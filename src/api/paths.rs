//! Which rows of a table a path means. Empty segments don't count: base URLs come with and without a slash at their end.

use std::collections::BTreeMap;

/// The raw parts of a path that stand for the parameters of a template, by their names.
pub(crate) type Captures = Vec<(String, String)>;

/// The paths of a table, with parameters in braces.
pub(crate) struct Paths(matchit::Router<Vec<usize>>);

impl Paths {
    /// The paths of rows in their order; rows of the same path differ in their methods. Of two templates that can't be
    /// told apart the later is not found: the tests of each table ask for every row.
    pub(crate) fn new<'p>(rows: impl Iterator<Item = &'p str>) -> Self {
        let mut of_paths: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, path) in rows.enumerate() {
            of_paths.entry(path).or_default().push(at);
        }
        let mut paths = matchit::Router::new();
        for (path, rows) in of_paths {
            let _ = paths.insert(path, rows);
        }
        Self(paths)
    }

    /// The places of a path's rows, and what stands for its parameters; `None`: it is no path of the table.
    pub(crate) fn at(&self, path: &str) -> Option<(&[usize], Captures)> {
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let plain = format!("/{}", segments.join("/"));
        let found = self.0.at(&plain).ok()?;
        let captures = found.params.iter();
        let captures = captures.map(|(name, raw)| (name.to_owned(), raw.to_owned()));
        Some((found.value, captures.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_by_its_template() {
        let templates = ["/a/{id}/b", "/a/{id}", "/a/{id}", "/a/x/b", "/"];
        let paths = Paths::new(templates.into_iter());
        let check = |path: &str, want: Option<(&[usize], Option<&str>)>| {
            let found = paths.at(path);
            let found = found
                .as_ref()
                .map(|(rows, captures)| (*rows, captures.first().map(|(_, value)| value.as_str())));
            assert_eq!(found, want, "{path}");
        };
        check("/a/7/b", Some((&[0], Some("7"))));
        check("//a//7%2F8/b/", Some((&[0], Some("7%2F8"))));
        check("/a/7", Some((&[1, 2], Some("7"))));
        check("/a/x/b", Some((&[3], None)));
        check("/a/7/b/c", None);
        check("/b", None);
        check("", Some((&[4], None)));
    }
}
