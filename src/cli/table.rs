//! Tables for people: columns as wide as they have to be, numbers to the right.

/// A head and rows of as many cells.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '%');
    let is_number = |cell: &str| cell == "-" || cell.chars().all(of_number);
    let mut widths = head.map(|name| name.chars().count());
    let mut numeric = [true; N];
    for row in rows {
        for ((width, numeric), cell) in widths.iter_mut().zip(&mut numeric).zip(row) {
            *width = cell.chars().count().max(*width);
            *numeric &= is_number(cell);
        }
    }
    let line = |cells: &[String; N]| {
        let cells = cells.iter().zip(widths).zip(numeric);
        let padded = cells.map(|((cell, width), numeric)| {
            if numeric {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let lines = std::iter::once(line(&head.map(str::to_owned))).chain(rows.iter().map(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_left_and_numbers_right() {
        let rows = [["jobs", "7"], ["requests", "1000"]].map(|row| row.map(str::to_owned));
        let want = "TABLE     ROWS\njobs         7\nrequests  1000";
        assert_eq!(table(["TABLE", "ROWS"], &rows), want);
    }
}
