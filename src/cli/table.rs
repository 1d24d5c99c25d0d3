//! Tables for people: columns as wide as they have to be, numbers to the right; and tables that fit the terminal.

use std::io::IsTerminal as _;

use ratatui::text::Span;

/// The width of what is no terminal.
const WIDTH_DEFAULT: usize = 80;
/// A column that is cut keeps so many places.
const COLUMN_MIN: usize = 8;
/// Between two columns.
const GAP: &str = "  ";

/// A head and rows of as many cells.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    lines(Some(head.map(str::to_owned)), rows, None)
}

/// The same, no wider than the terminal: the widest texts are cut.
pub(crate) fn fitting<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    lines(Some(head.map(str::to_owned)), rows, Some(width()))
}

/// The same in so many places.
pub(crate) fn fitting_in<const N: usize>(
    head: [&str; N],
    rows: &[[String; N]],
    width: usize,
) -> String {
    lines(Some(head.map(str::to_owned)), rows, Some(width))
}

/// Rows alone.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    lines(None, rows, None)
}

/// Rows alone, no wider than the terminal.
pub(crate) fn fitting_columns<const N: usize>(rows: &[[String; N]]) -> String {
    lines(None, rows, Some(width()))
}

/// How wide the terminal is: as `COLUMNS` says, else as it says itself.
pub(crate) fn width() -> usize {
    let told = std::env::var("COLUMNS").ok();
    let told = told.and_then(|text| text.trim().parse().ok());
    let told = told.filter(|columns| *columns > 0);
    let asked = || {
        let is_terminal = std::io::stdout().is_terminal();
        let size = is_terminal.then(|| ratatui::crossterm::terminal::size().ok());
        size.flatten().map(|(columns, _)| usize::from(columns))
    };
    told.or_else(asked)
        .filter(|columns| *columns > 0)
        .unwrap_or(WIDTH_DEFAULT)
}

/// How many places a text takes: a Chinese character has two.
pub(crate) fn places(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in so many places at most, with a sign where it is cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if places(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if places(&out) >= width {
            out.pop();
            break;
        }
    }
    format!("{}…", out.trim_end())
}

fn lines<const N: usize>(
    head: Option<[String; N]>,
    rows: &[[String; N]],
    width: Option<usize>,
) -> String {
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '%' | ',');
    let is_number = |cell: &str| cell == "-" || cell.chars().all(of_number);
    let mut widths = [0; N];
    for row in head.iter().chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = places(cell).max(*width);
        }
    }
    let mut numeric = [true; N];
    for row in rows {
        for (numeric, cell) in numeric.iter_mut().zip(row) {
            *numeric &= is_number(cell);
        }
    }
    if let Some(width) = width {
        squeeze(&mut widths, &numeric, width);
    }
    let line = |cells: &[String; N]| {
        let cells = cells.iter().zip(widths).zip(numeric);
        let padded = cells.map(|((cell, width), numeric)| {
            let cell = cut(cell, width);
            let room = " ".repeat(width.saturating_sub(places(&cell)));
            match numeric {
                true => room + &cell,
                false => cell + &room,
            }
        });
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let lines = head.iter().chain(rows).map(line);
    lines.collect::<Vec<_>>().join("\n")
}

/// Takes places from the widest texts until all columns fit; numbers stay whole.
fn squeeze<const N: usize>(widths: &mut [usize; N], numeric: &[bool; N], width: usize) {
    let gaps = GAP.len() * N.saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let columns = widths.iter_mut().zip(numeric);
        let texts = columns.filter(|(width, numeric)| !**numeric && **width > COLUMN_MIN);
        let Some((widest, _)) = texts.max_by_key(|(width, _)| **width) else {
            return;
        };
        *widest -= 1;
    }
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

    #[test]
    fn what_is_too_wide_is_cut_where_it_is_widest_and_numbers_stay_whole() {
        let rows = [["quota is used up until noon", "1000000"]].map(|row| row.map(str::to_owned));
        let told = lines(None, &rows, Some(20));
        assert_eq!(told, "quota is u…  1000000");
        assert_eq!(cut("已达到使用上限", 7), "已达到…");
        assert_eq!(places("已达到"), 6);
    }
}
