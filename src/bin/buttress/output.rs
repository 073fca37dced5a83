use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use terminal_size::{Height, Width};

use super::view::{Row, View};
use super::{draw, json, text};

/// Where views go, and what they look like there.
pub(super) enum Output {
    /// A table that is drawn again.
    Table,
    /// A line for each change.
    Lines(Option<Shown>),
    /// A line of JSON for each change.
    Json(Option<Shown>),
}

/// What was shown last, to show what is different.
pub(super) struct Shown {
    state: State,
    rows: BTreeMap<String, Row>,
}

/// All that a service has but its instances and the course of time.
type State = (u64, &'static str, Option<String>);

impl Output {
    pub(super) fn new(as_json: bool) -> Self {
        match as_json {
            true => Self::Json(None),
            false if io::stdout().is_terminal() => Self::Table,
            false => Self::Lines(None),
        }
    }

    /// Shows `view`, or what is new in it.
    pub(super) fn show(&mut self, view: &View) -> io::Result<()> {
        match self {
            Self::Table => redraw(&draw::table(view, true)),
            Self::Lines(before) => {
                let shown = Shown::new(view);
                let lines = changes(view, before.as_ref(), &shown);
                *before = Some(shown);
                write(&lines)
            }
            Self::Json(before) => {
                let shown = Shown::new(view);
                if before.as_ref().is_some_and(|before| before.is_like(&shown)) {
                    return Ok(());
                }
                *before = Some(shown);
                write(&[json::line(view)])
            }
        }
    }
}

impl Shown {
    fn new(view: &View) -> Self {
        let error = view.failure.as_ref().map(|failure| failure.error.clone());
        let rows = view.rows.iter();
        Self {
            state: (view.version, text::freshness(view.freshness), error),
            rows: rows
                .map(|row| (row.instance.id.clone(), row.clone()))
                .collect(),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let mut rows = self.rows.iter().zip(&other.rows);
        self.state == other.state
            && self.rows.len() == other.rows.len()
            && rows.all(|((_, a), (_, b))| a.is_like(b))
    }
}

/// What is new, a line each: the service, then those that came (`+`), changed (`~`) or went (`-`), and troubles (`!`).
fn changes(view: &View, before: Option<&Shown>, now: &Shown) -> Vec<String> {
    if before.is_some_and(|before| before.is_like(now)) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if before.is_none_or(|before| before.state != now.state) {
        let service = text::clean(&view.service);
        lines.push(format!("{service} {}", text::summary(view)));
        let troubles = text::troubles(view);
        lines.extend(troubles.iter().map(|trouble| format!("! {trouble}")));
    }
    let known = |id: &str| before.and_then(|before| before.rows.get(id));
    for row in &view.rows {
        let sign = match known(&row.instance.id) {
            Some(before) if before.is_like(row) => continue,
            Some(_) => '~',
            None => '+',
        };
        let why = text::why(view, row);
        lines.push(format!("{sign} {}: {why}", described(row)));
    }
    let gone = before.iter().flat_map(|before| before.rows.iter());
    let gone = gone.filter(|(id, _)| !now.rows.contains_key(*id));
    lines.extend(gone.map(|(_, row)| format!("- {}: gone", described(row))));

    let time = json::time(view.at);
    // An error may have several lines.
    let lines = lines.into_iter().map(|line| line.replace('\n', " "));
    lines.map(|line| format!("{time} {line}")).collect()
}

fn described(row: &Row) -> String {
    let instance = &row.instance;
    let zone = instance.zone.as_deref().unwrap_or("-");
    let (id, zone) = (text::clean(&instance.id), text::clean(zone));
    let (address, weight) = (text::address(instance), instance.weight);
    let status = text::status(row.status);
    format!("{id} {address} zone={zone} weight={weight} {status}")
}

pub(super) fn write(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Writes over what is on the terminal, no more than fits.
fn redraw(lines: &[String]) -> io::Result<()> {
    let size = terminal_size::terminal_size();
    let (Width(width), Height(height)) = size.unwrap_or((Width(80), Height(24)));
    // A line that is too long goes on in the next: its end says why.
    let taken = |line: &str| line.chars().count().div_ceil(width.max(1).into()).max(1);
    // The cursor takes one, and what is left out another.
    let mut room = usize::from(height).saturating_sub(2);
    let lines = lines.iter().flat_map(|text| text.split('\n'));
    let mut screen = HOME.to_owned();
    let mut left_out = 0;
    for line in lines {
        match room.checked_sub(taken(line)) {
            Some(rest) if left_out == 0 => {
                room = rest;
                screen += line;
                screen += NEXT;
            }
            _ => left_out += 1,
        }
    }
    if left_out > 0 {
        screen += &format!("… and {left_out} lines more{NEXT}");
    }
    screen += CLEAR;
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes())?;
    out.flush()
}

/// To the upper left corner; the rest of the line, then the next; the rest of the screen.
const HOME: &str = "\x1b[H";
const NEXT: &str = "\x1b[K\n";
const CLEAR: &str = "\x1b[J";
