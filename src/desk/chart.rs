//! Pictures as shapes of an SVG: columns over time, and spreads of times beside each other on one scale.

const WIDTH: u64 = 960;
/// Where columns begin and end.
const LEFT: u64 = 72;
const RIGHT: u64 = 952;
const TOP: u64 = 12;
const BASE: u64 = 152;
/// Texts below columns, at most.
const TICKS: usize = 8;

/// What a column stands for.
pub(super) struct Column {
    pub(super) label: String,
    pub(super) title: String,
    pub(super) href: String,
    pub(super) value: u64,
}

/// A column as it is drawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) title: String,
    pub(super) href: String,
}

/// A text beside or below a picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) at: u64,
    pub(super) text: String,
}

/// Columns as they are drawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chart {
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) left: u64,
    pub(super) right: u64,
    pub(super) base: u64,
    pub(super) columns: Vec<Drawn>,
    /// Lines across, from above.
    pub(super) marks: Vec<Tick>,
    /// Below.
    pub(super) ticks: Vec<Tick>,
}

/// Draws columns; `None`: there is nothing to see. `tell` says a value.
pub(super) fn columns(columns: Vec<Column>, tell: impl Fn(u64) -> String) -> Option<Chart> {
    let largest = columns.iter().map(|column| column.value).max()?;
    if largest == 0 {
        return None;
    }
    let count = columns.len() as u64;
    let every = columns.len().div_ceil(TICKS).max(1);
    let at = |n: u64| LEFT + (RIGHT - LEFT) * n / count;
    let mut ticks = Vec::new();
    let mut drawn = Vec::new();
    for (n, column) in columns.into_iter().enumerate() {
        let (from, to) = (at(n as u64), at(n as u64 + 1));
        if n % every == 0 {
            ticks.push(Tick {
                at: from + (to - from) / 2,
                text: column.label,
            });
        }
        if column.value == 0 {
            continue;
        }
        let height = u128::from(BASE - TOP) * u128::from(column.value) / u128::from(largest);
        let height = u64::try_from(height).unwrap_or(BASE - TOP).max(1);
        let gap = u64::from(to - from > 4);
        drawn.push(Drawn {
            x: from + gap,
            y: BASE - height,
            width: (to - from).saturating_sub(2 * gap).max(1),
            height,
            title: column.title,
            href: column.href,
        });
    }
    let mark = |part: u64| Tick {
        at: BASE - (BASE - TOP) * part / 2,
        text: tell(largest / 2 * part),
    };
    Some(Chart {
        width: WIDTH,
        height: BASE + 24,
        left: LEFT,
        right: RIGHT,
        base: BASE,
        columns: drawn,
        marks: vec![
            Tick {
                at: TOP,
                text: tell(largest),
            },
            mark(1),
        ],
        ticks,
    })
}

/// How times are spread, of one thing.
pub(super) struct Spread {
    pub(super) label: String,
    pub(super) title: String,
    /// p50, p90 and p99, in milliseconds.
    pub(super) ms: [u64; 3],
}

/// A spread as it is drawn: from half of them to nearly all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) y: u64,
    pub(super) label: String,
    pub(super) title: String,
    pub(super) half: u64,
    pub(super) most: u64,
    pub(super) nearly: u64,
}

/// Spreads as they are drawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spreads {
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) base: u64,
    pub(super) lines: Vec<Line>,
    pub(super) ticks: Vec<Tick>,
}

/// Draws spreads on one scale; `None`: nothing was measured. `tell` says a time.
pub(super) fn spreads(all: Vec<Spread>, tell: impl Fn(u64) -> String) -> Option<Spreads> {
    const NAMES_END: u64 = 200;
    const ROW: u64 = 26;
    let largest = all.iter().flat_map(|spread| spread.ms).max()?.max(1);
    let at = |ms: u64| NAMES_END + (RIGHT - 40 - NAMES_END) * ms.min(largest) / largest;
    let base = all.len() as u64 * ROW + 8;
    let line = |(n, spread): (usize, Spread)| {
        let [half, most, nearly] = spread.ms.map(at);
        Line {
            y: n as u64 * ROW + 18,
            half,
            most,
            nearly,
            label: spread.label,
            title: spread.title,
        }
    };
    let tick = |part: u64| Tick {
        at: at(largest * part / 4),
        text: tell(largest * part / 4),
    };
    Some(Spreads {
        width: WIDTH,
        height: base + 20,
        base,
        lines: all.into_iter().enumerate().map(line).collect(),
        ticks: (0..=4).map(tick).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(n: u64, value: u64) -> Column {
        Column {
            label: n.to_string(),
            title: String::new(),
            href: String::new(),
            value,
        }
    }

    #[test]
    fn columns_stay_inside_and_grow_with_their_values() {
        for count in [1, 2, 31, 400, 3_660] {
            let all = (0..count).map(|n| column(n, n + 1)).collect();
            let chart = columns(all, |value| value.to_string()).unwrap();
            assert_eq!(chart.columns.len() as u64, count);
            assert!(chart.ticks.len() <= TICKS + 1);
            let inside = |c: &Drawn| c.x >= LEFT && c.x + c.width <= RIGHT + 1 && c.y >= TOP;
            assert!(chart.columns.iter().all(inside), "{count}");
            assert!(chart.columns.is_sorted_by_key(|c| c.height));
            assert_eq!(chart.columns.last().unwrap().y, TOP);
        }
        let huge = vec![column(0, u64::MAX), column(1, 1), column(2, 0)];
        let chart = columns(huge, |value| value.to_string()).unwrap();
        assert_eq!(chart.columns.len(), 2, "of nothing there is nothing to see");
        assert_eq!(columns(vec![column(0, 0)], |_| String::new()), None);
        assert_eq!(columns(Vec::new(), |_| String::new()), None);
    }

    #[test]
    fn spreads_share_one_scale() {
        let spread = |ms| Spread {
            label: String::new(),
            title: String::new(),
            ms,
        };
        let drawn = spreads(vec![spread([10, 50, 100]), spread([0, 0, 50])], |ms| {
            ms.to_string()
        });
        let drawn = drawn.unwrap();
        let [one, other] = [&drawn.lines[0], &drawn.lines[1]];
        assert_eq!(other.nearly, one.most);
        assert!(one.half < one.most && one.most < one.nearly);
        assert_eq!(spreads(Vec::new(), |_| String::new()), None);
    }
}
