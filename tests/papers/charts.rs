//! The charts of `docs/performance.md` are drawn from its tables, so that none says what they don't.

use std::fmt::Write as _;
use std::fs;

use super::{is_blessing, read, root};

const PAGE: &str = "docs/performance.md";

/// A bar: the beginning of its row's name, which cell has the figure, and which of the numbers there it is.
struct Bar {
    row: &'static str,
    cell: usize,
    number: usize,
    label: &'static str,
    /// Whether the next two numbers are the range of the rounds.
    has_range: bool,
    /// Which of the numbers of the last cell is the aim, if one is.
    aim: Option<usize>,
}

struct Chart {
    file: &'static str,
    title: &'static str,
    decimals: usize,
    /// What the axis ends with; `None`: with the longest bar.
    end: Option<f64>,
    bars: &'static [Bar],
}

const BASELINE: usize = 1;
const LANE: usize = 2;

const fn ratio(row: &'static str, number: usize, label: &'static str) -> Bar {
    Bar {
        row,
        cell: LANE,
        number,
        label,
        has_range: true,
        aim: Some(0),
    }
}

const fn rate(row: &'static str, cell: usize, number: usize, label: &'static str) -> Bar {
    Bar {
        row,
        cell,
        number,
        label,
        has_range: false,
        aim: None,
    }
}

const CHARTS: [Chart; 2] = [
    Chart {
        file: "docs/images/calls.svg",
        title: "Calls a second, beside a bare loop that stores nothing (1)",
        decimals: 3,
        end: Some(1.0),
        bars: &[
            ratio("calls per second, 50 ms server, beside", 0, "50 ms a call"),
            ratio(
                "calls per second, 50 ms server, a disk",
                0,
                "the same, 20 ms more a sync",
            ),
            ratio("calls per second, 5 ms server", 0, "5 ms a call"),
            ratio(
                "calls per second, server answers at once",
                1,
                "answered at once",
            ),
        ],
    },
    Chart {
        file: "docs/images/submissions.svg",
        title: "Durable submissions a second",
        decimals: 0,
        end: None,
        bars: &[
            rate(
                "durable submissions",
                BASELINE,
                0,
                "1 submitter, one by one",
            ),
            rate("durable submissions", LANE, 0, "64 submitters, one by one"),
            rate("`submit_many`", LANE, 0, "1 caller, 1,000 at a time"),
            rate("`submit_many`", LANE, 4, "2 callers, 1,000 at a time"),
        ],
    },
];

/// The numbers of a cell, in their order: `5,029 / s` has one.
fn numbers(cell: &str) -> Vec<f64> {
    let is_part = |c: char| c.is_ascii_digit() || c == ',' || c == '.';
    let words = cell.split(|c: char| !is_part(c));
    let words = words.map(|word| word.trim_matches([',', '.']).replace(',', ""));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The cells of the one row whose name begins so.
fn row<'a>(page: &'a str, begins: &str) -> Vec<&'a str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let mut found = rows.filter(|row| row.starts_with(begins));
    let (Some(row), None) = (found.next(), found.next()) else {
        panic!("{PAGE}: not one row begins with {begins}");
    };
    row.split('|').map(str::trim).collect()
}

/// `73646` as `73,646`.
fn written(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let whole = plain.split('.').next().unwrap().len();
    let mut out = String::new();
    for (at, c) in plain.chars().enumerate() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

const LEFT: f64 = 220.0;
const WIDTH: f64 = 400.0;
const HEAD: f64 = 44.0;
const STEP: f64 = 34.0;

fn drawn(chart: &Chart, page: &str) -> String {
    let figures = chart.bars.iter().map(|bar| {
        let cells = row(page, bar.row);
        let all = numbers(cells[bar.cell]);
        let range = bar
            .has_range
            .then(|| (all[bar.number + 1], all[bar.number + 2]));
        let aim = bar.aim.map(|number| numbers(cells[3])[number]);
        (bar.label, all[bar.number], range, aim)
    });
    let figures: Vec<_> = figures.collect();
    let longest = figures
        .iter()
        .map(|(_, value, ..)| *value)
        .fold(0.0, f64::max);
    let scale = WIDTH / chart.end.unwrap_or(longest);
    let height = HEAD + STEP * figures.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 780 {height}\" width=\"780\" height=\"{height}\" role=\"img\">\n\
         <title>{}</title>\n\
         <style>\n\
         text {{ font: 13px system-ui, sans-serif; fill: #1f2328; }}\n\
         .title {{ font-weight: 600; }} .bar {{ fill: #2f81c7; }} .range, .aim {{ stroke: #1f2328; }} .aim {{ stroke-dasharray: 3 2; }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3; }} .bar {{ fill: #4493f8; }} .range, .aim {{ stroke: #e6edf3; }} }}\n\
         </style>\n\
         <text class=\"title\" x=\"8\" y=\"22\">{}</text>\n",
        chart.title, chart.title
    );
    for (at, (label, value, range, aim)) in figures.into_iter().enumerate() {
        let top = HEAD + STEP * at as f64;
        let middle = top + 10.0;
        let x = |value: f64| LEFT + value * scale;
        let told = written(value, chart.decimals);
        let mut end = x(value);
        writeln!(svg, "<text x=\"8\" y=\"{}\">{label}</text>", top + 15.0).unwrap();
        writeln!(
            svg,
            "<rect class=\"bar\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"20\"/>",
            value * scale
        )
        .unwrap();
        if let Some((low, high)) = range {
            end = end.max(x(high));
            writeln!(
                svg,
                "<path class=\"range\" d=\"M{:.1} {middle}H{:.1}\"/>",
                x(low),
                x(high)
            )
            .unwrap();
        }
        let aim = aim.map_or_else(String::new, |aim| {
            writeln!(
                svg,
                "<path class=\"aim\" d=\"M{0:.1} {1}V{2}\"/>",
                x(aim),
                top - 3.0,
                top + 23.0
            )
            .unwrap();
            format!(" (aim {aim})")
        });
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{told}{aim}</text>",
            end + 8.0,
            top + 15.0
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

#[test]
fn the_charts_of_the_figures_are_drawn_from_their_table() {
    let page = read(PAGE);
    for chart in &CHARTS {
        let drawn = drawn(chart, &page);
        if is_blessing() {
            fs::write(root().join(chart.file), &drawn).unwrap();
        }
        assert!(
            read(chart.file) == drawn,
            "{} shows other figures than {PAGE}; draw it anew with ONELANE_BLESS=1",
            chart.file
        );
        let name = chart.file.strip_prefix("docs/").unwrap();
        assert!(
            page.contains(&format!("({name})")),
            "{PAGE} does not show {name}"
        );
    }
}
