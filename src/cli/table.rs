//! Tables for people: columns as wide as they have to be, numbers to the right.

/// A head and rows of as many cells.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    lines(Some(head.map(str::to_owned)), rows)
}

/// Rows alone.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    lines(None, rows)
}

fn lines<const N: usize>(head: Option<[String; N]>, rows: &[[String; N]]) -> String {
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '%');
    let is_number = |cell: &str| cell == "-" || cell.chars().all(of_number);
    let mut widths = [0; N];
    for row in head.iter().chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut numeric = [true; N];
    for row in rows {
        for (numeric, cell) in numeric.iter_mut().zip(row) {
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
    let lines = head.iter().chain(rows).map(line);
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
