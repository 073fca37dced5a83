//! A table of a service.

use buttress::clock;

use super::text;
use super::view::{Row, View};

/// The lines of a table, with when each instance changed if `with_ages`.
pub(super) fn table(view: &View, with_ages: bool) -> Vec<String> {
    let mut lines = vec![
        text::clean(&format!(
            "{}, as a client of {} sees it",
            view.service, view.registry
        )),
        text::summary(view),
    ];
    lines.extend(text::troubles(view));
    if view.rows.is_empty() {
        return lines;
    }
    lines.push(String::new());
    let head = ["ID", "ADDRESS", "ZONE", "WEIGHT", "STATUS", "CHANGED"].map(str::to_owned);
    let cells: Vec<_> = std::iter::once(head)
        .chain(view.rows.iter().map(cells))
        .collect();
    let whys =
        std::iter::once(String::new()).chain(view.rows.iter().map(|row| text::why(view, row)));
    let rows = columns(&cells, if with_ages { 6 } else { 5 });
    let rows = rows.into_iter().zip(whys);
    lines.extend(rows.map(|(line, why)| (line + &why).trim_end().to_owned()));
    lines
}

/// The first `count` cells of each row, one below the other.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], count: usize) -> Vec<String> {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect()
    };
    rows.iter().map(line).collect()
}

fn cells(row: &Row) -> [String; 6] {
    let instance = &row.instance;
    let changed = row.changed.map(|seen| {
        let age = clock::now().saturating_duration_since(seen.at);
        format!("{} ago", text::span(age))
    });
    [
        text::clean(&instance.id),
        text::address(instance),
        text::clean(instance.zone.as_deref().unwrap_or("-")),
        instance.weight.to_string(),
        text::status(row.status).to_owned(),
        changed.unwrap_or_else(|| "-".to_owned()),
    ]
}
